#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "codegen/names.h"
#include "codegen/printers.h"
#include "codegen/text_writer.h"

namespace shmrpc::codegen {
namespace {

TextWriter::Variables MethodVariables(const Method& method) {
  return {{"method", method.name}, {"request", method.request_type}, {"reply", method.reply_type}};
}

void PrintAsyncInterface(const Service& service, TextWriter* writer) {
  writer->Print(R"(
// Calls that do not wait: `done` is called exactly once, with the status; see shmrpc::StatusCallback. `context`
// (may be null) and `reply` live until then, `request` until the call returns.
class AsyncInterface {
 public:
  virtual ~AsyncInterface();
)");
  writer->Indent();
  for (const Method& method : service.methods) {
    if (!method.is_unary) continue;
    writer->Print(R"(

virtual void $method$(::shmrpc::ClientContext* context, const $request$* request,
    $reply$* reply, ::shmrpc::StatusCallback done) = 0;
)",
                  MethodVariables(method));
  }
  writer->Outdent();
  writer->Print("};");
}

void PrintStubInterface(const Service& service, TextWriter* writer) {
  writer->Print(R"(

// What clients call: a Stub or, in tests, a mock. Each method has three forms that wait for the reply and differ
// only in how they are written; `context` may be null: no deadline, no metadata. async() has the form that does not
// wait. Thread-safe.
class StubInterface {
 public:
  virtual ~StubInterface();

)");
  writer->Indent();
  PrintAsyncInterface(service, writer);
  for (const Method& method : service.methods) {
    if (!method.is_unary) continue;
    writer->Print("\n\n");
    writer->PrintComment(method.comment);
    writer->Print(R"(
virtual ::absl::Status $method$(::shmrpc::ClientContext* context, const $request$& request,
    $reply$* reply) = 0;
::absl::StatusOr<$reply$> $method$(const $request$& request);
::absl::StatusOr<$reply$> $method$(::shmrpc::ClientContext* context,
    const $request$& request);
)",
                  MethodVariables(method));
  }
  writer->Print("\n\nvirtual AsyncInterface& async() = 0;");
  writer->Outdent();
  writer->Print("};");
}

void PrintStub(const Service& service, TextWriter* writer) {
  writer->Print(R"(

// The calls of one channel. Cheap to make and to copy, any number per channel.
class Stub final : public StubInterface {
 public:
  explicit Stub(::std::shared_ptr<::shmrpc::Channel> channel);

  class Async final : public AsyncInterface {
   public:
    explicit Async(::std::shared_ptr<::shmrpc::Channel> channel);
)");
  writer->Indent();
  writer->Indent();
  for (const Method& method : service.methods) {
    if (!method.is_unary) continue;
    writer->Print(R"(
void $method$(::shmrpc::ClientContext* context, const $request$* request,
    $reply$* reply, ::shmrpc::StatusCallback done) override;
)",
                  MethodVariables(method));
  }
  writer->Outdent();
  writer->Print(R"(

 private:
  ::std::shared_ptr<::shmrpc::Channel> channel_;
};

)");
  for (const Method& method : service.methods) {
    if (!method.is_unary) continue;
    writer->Print(R"(
using StubInterface::$method$;
::absl::Status $method$(::shmrpc::ClientContext* context, const $request$& request,
    $reply$* reply) override;
)",
                  MethodVariables(method));
  }
  writer->Outdent();
  writer->Print(R"(

  Async& async() override;

 private:
  ::std::shared_ptr<::shmrpc::Channel> channel_;
  Async async_;
};
)");
}

void PrintServiceBase(const Service& service, TextWriter* writer) {
  writer->Print(R"(

// What servers derive from and register with shmrpc::ServerBuilder. The methods are called from many threads at once;
// those that are not overridden return UNIMPLEMENTED.
class Service : public ::shmrpc::Service {
 public:
)");
  writer->Indent();
  for (const Method& method : service.methods) {
    if (!method.is_unary) continue;
    writer->PrintComment(method.comment);
    writer->Print(R"(
virtual ::absl::Status $method$(::shmrpc::ServerContext* context, const $request$* request,
    $reply$* reply);

)",
                  MethodVariables(method));
  }
  writer->Print(R"(
::absl::string_view ShmrpcServiceName() const final;
::absl::Span<const ::shmrpc::ServiceMethod> ShmrpcMethods() const final;
)");
  writer->Outdent();
  writer->Print("};");
}

void PrintService(const Service& service, TextWriter* writer) {
  writer->Print("\n\n");
  writer->PrintComment(service.comment);
  writer->Print(R"(
class $service$ final {
 public:
)",
                {{"service", service.name}});
  std::vector<std::string> streaming;
  for (const Method& method : service.methods) {
    if (!method.is_unary) streaming.push_back(method.proto_name);
  }
  writer->Indent();
  if (!streaming.empty()) {
    writer->Print("// This version of the generator leaves streaming methods out: $methods$.",
                  {{"methods", absl::StrJoin(streaming, ", ")}});
  }
  writer->Print(R"(
$service$() = delete;

static constexpr char kServiceName[] = "$full_name$";
)",
                {{"service", service.name}, {"full_name", service.full_name}});
  PrintStubInterface(service, writer);
  PrintStub(service, writer);
  PrintServiceBase(service, writer);
  writer->Outdent();
  writer->Print("};");
}

}  // namespace

std::string HeaderName(const File& file) { return absl::StrCat(file.output_prefix, ".shmrpc.pb.h"); }

std::string PrintHeader(const File& file) {
  const std::string guard = IncludeGuard(HeaderName(file));
  TextWriter writer;
  writer.Print(R"(
// Generated by protoc-gen-shmrpc from $proto$. Do not edit.

#ifndef $guard$
#define $guard$

#include <memory>

#include "shmrpc/generated.h"
#include "$prefix$.pb.h"

static_assert(SHMRPC_GENERATED_CODE_VERSION == $version$,
              "$escaped_header$ was generated for another version of shmrpc: "
              "run protoc with the protoc-gen-shmrpc that comes with the library");
)",
               {{"proto", file.proto_name},
                {"guard", guard},
                {"prefix", file.output_prefix},
                {"version", absl::StrCat(kGeneratedCodeVersion)},
                {"escaped_header", absl::CEscape(HeaderName(file))}});
  if (!file.services.empty()) {
    if (!file.cpp_namespace.empty()) writer.Print("\n\nnamespace $namespace$ {", {{"namespace", file.cpp_namespace}});
    for (const Service& service : file.services) PrintService(service, &writer);
    if (!file.cpp_namespace.empty()) {
      writer.Print("\n\n}  // namespace $namespace$", {{"namespace", file.cpp_namespace}});
    }
  }
  writer.Print("\n\n#endif  // $guard$", {{"guard", guard}});
  return std::move(writer).Take();
}

}  // namespace shmrpc::codegen
