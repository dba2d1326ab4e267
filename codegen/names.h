#ifndef SHMRPC_CODEGEN_NAMES_H_
#define SHMRPC_CODEGEN_NAMES_H_

// Names of a .proto that C++ or the generated code cannot use as they are get underscores at the end, as protobuf does
// it for messages and fields. Only C++ names change; what travels never does.

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"

namespace shmrpc::codegen {

// True for C++ keywords and for words that C's headers or the compiler define as macros.
bool IsReservedWord(absl::string_view name);

// The C++ names for `names`, which are different from each other and share one scope, in the same order. A name that
// is neither reserved nor in `taken` stays; the others get as many underscores as make them different from all of
// these and from each other.
std::vector<std::string> EscapeNames(const std::vector<std::string>& names,
                                     const absl::flat_hash_set<std::string>& taken);

// What generated code declares in the class of a service beside what the .proto names...
absl::flat_hash_set<std::string> MembersOfServiceClass();

// ...and in the classes inside it, where the methods are.
absl::flat_hash_set<std::string> NamesInsideService();

// The top-level namespaces that generated code uses. A class with such a name would break it in the global namespace,
// and in every other one what refers to them without a leading "::", such as the macros of GoogleTest.
absl::flat_hash_set<std::string> TopLevelNamespaces();

// A part of an identifier that stands for the file `path`, as protobuf makes it; different for different paths.
std::string FileIdentifier(absl::string_view path);

// An include guard for the header `path`, different for different paths.
std::string IncludeGuard(absl::string_view path);

}  // namespace shmrpc::codegen

#endif  // SHMRPC_CODEGEN_NAMES_H_
