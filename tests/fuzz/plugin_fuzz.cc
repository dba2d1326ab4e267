// What protoc says to the plugin. Either a CodeGeneratorRequest as bytes, after a first byte of 0; or, which gets
// further, a line of parameters and then a .proto as text.

#include <memory>
#include <string>

#include "codegen/generator.h"
#include "google/protobuf/compiler/parser.h"
#include "google/protobuf/compiler/plugin.h"
#include "google/protobuf/compiler/plugin.pb.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/input.h"

namespace shmrpc::fuzz {
namespace {

class NoErrors final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, google::protobuf::io::ColumnNumber, const std::string&) override {}
};

bool ParseProto(absl::string_view text, google::protobuf::FileDescriptorProto* file) {
  google::protobuf::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  NoErrors errors;
  google::protobuf::io::Tokenizer tokenizer(&stream, &errors);
  google::protobuf::compiler::Parser parser;
  return parser.Parse(&tokenizer, file);
}

}  // namespace
}  // namespace shmrpc::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shmrpc;
  static const bool quiet = (google::protobuf::SetLogHandler(nullptr), true);
  (void)quiet;
  google::protobuf::compiler::CodeGeneratorRequest request;
  if (size > 0 && data[0] == 0) {
    if (!request.ParseFromArray(data + 1, static_cast<int>(size - 1))) return 0;
  } else {
    const absl::string_view text(reinterpret_cast<const char*>(data), size);
    const size_t line = text.find('\n');
    if (line == absl::string_view::npos) return 0;
    google::protobuf::FileDescriptorProto* const file = request.add_proto_file();
    if (!fuzz::ParseProto(text.substr(line + 1), file)) return 0;
    file->set_name("a.proto");
    request.set_parameter(std::string(text.substr(0, line)));
    request.add_file_to_generate("a.proto");
  }
  const codegen::Generator generator;
  google::protobuf::compiler::CodeGeneratorResponse response;
  std::string error;
  (void)google::protobuf::compiler::GenerateCode(request, generator, &response, &error);
  return 0;
}
