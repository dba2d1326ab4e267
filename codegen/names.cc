#include "codegen/names.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace shmrpc::codegen {

bool IsReservedWord(absl::string_view name) {
  static const auto* const words = new absl::flat_hash_set<absl::string_view>{
      // Keywords, up to C++20, with the alternative tokens.
      "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case", "catch", "char",
      "char16_t", "char32_t", "char8_t", "class", "co_await", "co_return", "co_yield", "compl", "concept", "const",
      "const_cast", "consteval", "constexpr", "constinit", "continue", "decltype", "default", "delete", "do", "double",
      "dynamic_cast", "else", "enum", "explicit", "export", "extern", "false", "float", "for", "friend", "goto", "if",
      "inline", "int", "long", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "nullptr", "operator", "or",
      "or_eq", "private", "protected", "public", "register", "reinterpret_cast", "requires", "return", "short",
      "signed", "sizeof", "static", "static_assert", "static_cast", "struct", "switch", "template", "this",
      "thread_local", "throw", "true", "try", "typedef", "typeid", "typename", "union", "unsigned", "using", "virtual",
      "void", "volatile", "wchar_t", "while", "xor", "xor_eq",
      // Macros of C's headers and, in its GNU modes, of the compiler.
      "BUFSIZ", "EOF", "NAN", "NULL", "RAND_MAX", "assert", "errno", "i386", "linux", "major", "makedev", "minor",
      "offsetof", "setjmp", "stderr", "stdin", "stdout", "typeof", "unix", "va_arg", "va_copy", "va_end", "va_start"};
  return words->contains(name);
}

std::vector<std::string> EscapeNames(const std::vector<std::string>& names,
                                     const absl::flat_hash_set<std::string>& taken) {
  absl::flat_hash_set<std::string> used(names.begin(), names.end());
  std::vector<std::string> result;
  result.reserve(names.size());
  for (const std::string& name : names) {
    std::string escaped = name;
    if (IsReservedWord(name) || taken.contains(name)) {
      do {
        escaped += '_';
      } while (used.contains(escaped) || taken.contains(escaped) || IsReservedWord(escaped));
      used.insert(escaped);
    }
    result.push_back(std::move(escaped));
  }
  return result;
}

absl::flat_hash_set<std::string> MembersOfServiceClass() {
  return {"CallbackService", "CoService", "Service", "Stub", "StubInterface", "kServiceName"};
}

absl::flat_hash_set<std::string> NamesInsideService() {
  return {// Of StubInterface, Stub and the mock.
          "Async", "AsyncInterface", "Coroutines", "CoroutinesInterface", "MockAsync", "MockCoroutines", "Stub",
          "StubInterface", "async", "async_", "channel_", "co", "co_",
          // Of Service, CallbackService and CoService.
          "CallbackService", "CoService", "Service", "ShmrpcMethods", "ShmrpcServiceName"};
}

absl::flat_hash_set<std::string> TopLevelNamespaces() { return {"absl", "google", "shmrpc", "std", "testing"}; }

std::string FileIdentifier(absl::string_view path) {
  std::string identifier;
  for (const char c : path) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      identifier += c;
    } else {
      // "_5f" for an underscore, so that a-b.proto and a_b.proto differ.
      absl::StrAppendFormat(&identifier, "_%02x", static_cast<unsigned char>(c));
    }
  }
  return identifier;
}

std::string IncludeGuard(absl::string_view path) {
  return absl::StrCat("SHMRPC_GENERATED_", FileIdentifier(path), "_INCLUDED");
}

}  // namespace shmrpc::codegen
