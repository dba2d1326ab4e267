#include "codegen/generator.h"

#include <memory>

#include "codegen/model.h"
#include "codegen/parameters.h"
#include "codegen/printers.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream.h"

namespace shmrpc::codegen {
namespace {

void WriteFile(google::protobuf::compiler::GeneratorContext* context, const std::string& name,
               const std::string& text) {
  const std::unique_ptr<google::protobuf::io::ZeroCopyOutputStream> stream(context->Open(name));
  google::protobuf::io::CodedOutputStream(stream.get()).WriteString(text);
}

}  // namespace

bool Generator::Generate(const google::protobuf::FileDescriptor* descriptor, const std::string& parameter,
                         google::protobuf::compiler::GeneratorContext* context, std::string* error) const {
  const absl::StatusOr<Parameters> parameters = ParseParameters(parameter);
  if (!parameters.ok()) {
    *error = std::string(parameters.status().message());
    return false;
  }
  const File file = BuildFile(*descriptor);
  WriteFile(context, HeaderName(file), PrintHeader(file));
  WriteFile(context, SourceName(file), PrintSource(file));
  if (parameters->mock) WriteFile(context, MockName(file), PrintMock(file));
  return true;
}

}  // namespace shmrpc::codegen
