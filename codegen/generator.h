#ifndef SHMRPC_CODEGEN_GENERATOR_H_
#define SHMRPC_CODEGEN_GENERATOR_H_

#include <cstdint>
#include <string>

#include "google/protobuf/compiler/code_generator.h"

namespace shmrpc::codegen {

// What protoc-gen-shmrpc does for one .proto: descriptor → model → text. Thread-safe; has no state.
class Generator final : public google::protobuf::compiler::CodeGenerator {
 public:
  bool Generate(const google::protobuf::FileDescriptor* file, const std::string& parameter,
                google::protobuf::compiler::GeneratorContext* context, std::string* error) const override;

  uint64_t GetSupportedFeatures() const override { return FEATURE_PROTO3_OPTIONAL; }
};

}  // namespace shmrpc::codegen

#endif  // SHMRPC_CODEGEN_GENERATOR_H_
