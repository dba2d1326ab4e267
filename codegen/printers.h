#ifndef SHMRPC_CODEGEN_PRINTERS_H_
#define SHMRPC_CODEGEN_PRINTERS_H_

// The text of the generated files. Types of other files are always written as ::fully::qualified::Names, and members
// as this->Name where a parameter or variable could hide them: a .proto may use any name for anything.

#include <string>

#include "codegen/model.h"

namespace shmrpc::codegen {

// What generated code expects of the library: SHMRPC_GENERATED_CODE_VERSION of shmrpc/version.h. The generator does
// not depend on the library, so the number is here too; generated code compiles only where both agree.
inline constexpr int kGeneratedCodeVersion = 3;

std::string HeaderName(const File& file);  // NAME.shmrpc.pb.h
std::string SourceName(const File& file);  // NAME.shmrpc.pb.cc
std::string MockName(const File& file);    // NAME.shmrpc.mock.pb.h

std::string PrintHeader(const File& file);
std::string PrintSource(const File& file);
std::string PrintMock(const File& file);

}  // namespace shmrpc::codegen

#endif  // SHMRPC_CODEGEN_PRINTERS_H_
