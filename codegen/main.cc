// protoc-gen-shmrpc: the plugin that protoc runs for --shmrpc_out.

#include <cstdio>
#include <cstring>

#include "codegen/generator.h"
#include "google/protobuf/compiler/plugin.h"

int main(int argc, char** argv) {
  if (argc > 1) {
    if (std::strcmp(argv[1], "--version") == 0) {
      std::printf("protoc-gen-shmrpc %s\n", SHMRPC_CODEGEN_VERSION);
      return 0;
    }
    std::fprintf(stderr,
                 "protoc-gen-shmrpc is run by protoc and takes no arguments but --version. Use it so:\n"
                 "  protoc --plugin=protoc-gen-shmrpc=%s --cpp_out=DIR --shmrpc_out=[mock=true:]DIR FILE.proto\n",
                 argv[0]);
    return 2;
  }
  const shmrpc::codegen::Generator generator;
  return google::protobuf::compiler::PluginMain(argc, argv, &generator);
}
