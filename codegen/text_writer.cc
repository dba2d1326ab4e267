#include "codegen/text_writer.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace shmrpc::codegen {
namespace {

std::string Substitute(absl::string_view line, const TextWriter::Variables& variables) {
  std::string result;
  bool is_name = false;  // every second piece stands between two '$'
  for (const absl::string_view piece : absl::StrSplit(line, '$')) {
    if (!is_name) {
      absl::StrAppend(&result, piece);
    } else if (const auto found = variables.find(piece); found != variables.end()) {
      absl::StrAppend(&result, found->second);
    } else {
      std::fprintf(stderr, "protoc-gen-shmrpc: a template names the unknown variable \"%s\"\n",
                   std::string(piece).c_str());
      std::abort();
    }
    is_name = !is_name;
  }
  return result;
}

}  // namespace

void TextWriter::Print(absl::string_view text, const Variables& variables) {
  text = absl::StripPrefix(text, "\n");
  text = absl::StripSuffix(text, "\n");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::string substituted = Substitute(line, variables);
    if (!substituted.empty()) absl::StrAppend(&text_, std::string(indent_, ' '), substituted);
    text_ += '\n';
  }
}

void TextWriter::PrintComment(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) absl::StrAppend(&text_, std::string(indent_, ' '), "//", line, "\n");
}

}  // namespace shmrpc::codegen
