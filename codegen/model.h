#ifndef SHMRPC_CODEGEN_MODEL_H_
#define SHMRPC_CODEGEN_MODEL_H_

// What the printers know of a .proto file: names that are already C++, and nothing of protobuf's descriptors. Plain
// data, built once by BuildFile.

#include <string>
#include <vector>

namespace google::protobuf {
class FileDescriptor;
}

namespace shmrpc::codegen {

enum class MethodKind { kUnary, kServerStreaming, kClientStreaming, kBidiStreaming };

struct Method {
  std::string proto_name;            // "SayHello", as the .proto has it
  std::string name;                  // the C++ name; differs when proto_name is a keyword or taken
  std::string path;                  // "/hello.Greeter/SayHello", what travels; never escaped
  std::string request_type;          // "::hello::HelloRequest"
  std::string reply_type;            // "::hello::HelloReply"
  std::vector<std::string> comment;  // the lines that precede the method in the .proto, without "//"
  MethodKind kind = MethodKind::kUnary;

  bool client_streams() const { return kind == MethodKind::kClientStreaming || kind == MethodKind::kBidiStreaming; }
  bool server_streams() const { return kind == MethodKind::kServerStreaming || kind == MethodKind::kBidiStreaming; }
};

struct Service {
  std::string full_name;             // "hello.Greeter", what travels; never escaped
  std::string name;                  // the C++ class
  std::string mock_name;             // the C++ class of the mock
  std::vector<std::string> comment;  // as in Method
  std::vector<Method> methods;       // in the order of the .proto
};

struct File {
  std::string proto_name;     // "dir/hello.proto"
  std::string output_prefix;  // "dir/hello": protobuf's header is this + ".pb.h", ours + ".shmrpc.pb.h"
  std::string cpp_namespace;  // "a::b"; empty for the global namespace
  std::vector<Service> services;

  // Protobuf's variable that stands for the file's descriptors, if nothing else that the services use is defined beside
  // it: a linker then leaves it out of a program that takes it from an archive, and reflection does not know the
  // services. Otherwise empty.
  std::string descriptor_table;  // "descriptor_table_hello_2eproto"
};

File BuildFile(const google::protobuf::FileDescriptor& file);

}  // namespace shmrpc::codegen

#endif  // SHMRPC_CODEGEN_MODEL_H_
