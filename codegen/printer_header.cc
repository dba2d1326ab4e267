#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "codegen/functions.h"
#include "codegen/names.h"
#include "codegen/printers.h"
#include "codegen/text_writer.h"

namespace shmrpc::codegen {
namespace {

// "virtual result name(parameters)tail;".
void PrintVirtual(const Function& function, const std::string& name, absl::string_view tail, TextWriter* writer) {
  writer->PrintFunction(absl::StrCat("virtual ", function.result), name, Named(function.parameters),
                        absl::StrCat(tail, ";"));
}

void PrintOverride(const Function& function, const std::string& name, TextWriter* writer) {
  writer->PrintFunction(function.result, name, Named(function.parameters), " override;");
}

void PrintAsyncInterface(const Service& service, TextWriter* writer) {
  writer->Print(R"(
// Calls that do not wait. A unary call's end is told to `done`, exactly once; see shmrpc::StatusCallback. A
// streaming call begins with reactor->StartCall(), and `reactor` is told of it up to its OnDone; see
// shmrpc::ClientReactor. `context` (may be null) and `reply` live until the end of the call, `request` until it has
// begun: until the function returns, or StartCall does.
class AsyncInterface {
 public:
  virtual ~AsyncInterface();
)");
  writer->Indent();
  for (const Method& method : service.methods) {
    writer->Print("\n\n");
    PrintVirtual(StubFunction(Form::kCallback, method), method.name, " = 0", writer);
  }
  writer->Outdent();
  writer->Print("};");
}

void PrintCoroutinesInterface(const Service& service, TextWriter* writer) {
  writer->Print(R"(

// Calls for coroutines: co_await what a unary method returns, and the operations of what a streaming method
// returns. `context` may be null and lives as long as the call; `request` lives until the end of the expression in
// which it is passed, which must be the one that awaits a unary call.
class CoroutinesInterface {
 public:
  virtual ~CoroutinesInterface();
)");
  writer->Indent();
  for (const Method& method : service.methods) {
    const Function function = StubFunction(Form::kCoroutine, method);
    writer->Print("\n\n");
    PrintVirtual(function, method.name, " = 0", writer);
    if (method.kind == MethodKind::kUnary) {
      writer->PrintFunction(function.result, method.name, {absl::StrCat("const ", method.request_type, "& request")},
                            ";");
    }
  }
  writer->Outdent();
  writer->Print("};");
}

void PrintStubInterface(const Service& service, TextWriter* writer) {
  writer->Print(R"(

// What clients call: a Stub or, in tests, a mock. These methods wait: a unary one for the reply, in three forms that
// differ only in how they are written; a streaming one returns what to read from and write to, with functions that
// wait. `context` may be null: no deadline, no metadata. Otherwise it lives until the call has ended, as does the
// `reply` of a streaming method. async() and co() have the forms that do not wait. Thread-safe.
class StubInterface {
 public:
  virtual ~StubInterface();

)");
  writer->Indent();
  PrintAsyncInterface(service, writer);
  PrintCoroutinesInterface(service, writer);
  for (const Method& method : service.methods) {
    writer->Print("\n\n");
    writer->PrintComment(method.comment);
    PrintVirtual(StubFunction(Form::kSync, method), method.name, " = 0", writer);
    if (method.kind != MethodKind::kUnary) continue;
    const std::string result = absl::StrCat("::absl::StatusOr<", method.reply_type, ">");
    const std::string request = absl::StrCat("const ", method.request_type, "& request");
    writer->PrintFunction(result, method.name, {request}, ";");
    writer->PrintFunction(result, method.name, {"::shmrpc::ClientContext* context", request}, ";");
  }
  writer->Print(R"(

virtual AsyncInterface& async() = 0;
virtual CoroutinesInterface& co() = 0;
)");
  writer->Outdent();
  writer->Print("};");
}

// One of the classes inside Stub.
void PrintStubPart(const Service& service, Form form, const std::string& name, TextWriter* writer) {
  writer->Print(R"(

class $name$ final : public $name$Interface {
 public:
  explicit $name$(::std::shared_ptr<::shmrpc::Channel> channel);
)",
                {{"name", name}});
  writer->Indent();
  for (const Method& method : service.methods) {
    if (form == Form::kCoroutine && method.kind == MethodKind::kUnary) {
      writer->Print("using $name$Interface::$method$;", {{"name", name}, {"method", method.name}});
    }
    PrintOverride(StubFunction(form, method), method.name, writer);
  }
  writer->Outdent();
  writer->Print(R"(

 private:
  ::std::shared_ptr<::shmrpc::Channel> channel_;
};
)");
}

void PrintStub(const Service& service, TextWriter* writer) {
  writer->Print(R"(

// The calls of one channel. Cheap to make and to copy, any number per channel.
class Stub final : public StubInterface {
 public:
  explicit Stub(::std::shared_ptr<::shmrpc::Channel> channel);
)");
  writer->Indent();
  PrintStubPart(service, Form::kCallback, "Async", writer);
  PrintStubPart(service, Form::kCoroutine, "Coroutines", writer);
  if (!service.methods.empty()) writer->Print("\n\n");
  for (const Method& method : service.methods) {
    if (method.kind == MethodKind::kUnary) {
      writer->Print("using StubInterface::$method$;", {{"method", method.name}});
    }
    PrintOverride(StubFunction(Form::kSync, method), method.name, writer);
  }
  writer->Outdent();
  writer->Print(R"(

  Async& async() override;
  Coroutines& co() override;

 private:
  ::std::shared_ptr<::shmrpc::Channel> channel_;
  Async async_;
  Coroutines co_;
};
)");
}

void PrintServiceBase(const Service& service, Form form, const std::string& name, TextWriter* writer) {
  writer->Print(R"(
class $name$ : public ::shmrpc::Service {
 public:
)",
                {{"name", name}});
  writer->Indent();
  for (const Method& method : service.methods) {
    writer->PrintComment(method.comment);
    PrintVirtual(HandlerFunction(form, method), method.name, "", writer);
    writer->Print("\n\n");
  }
  writer->Print(R"(
::std::string_view ShmrpcServiceName() const final;
::std::span<const ::shmrpc::ServiceMethod> ShmrpcMethods() const final;
)");
  writer->Outdent();
  writer->Print("};");
}

void PrintServiceBases(const Service& service, TextWriter* writer) {
  writer->Print(R"(

// What servers derive from and register with shmrpc::ServerBuilder. The methods are called from many threads at
// once; those that are not overridden answer UNIMPLEMENTED. The handler of a streaming method reads and writes with
// functions that wait, and its thread is its own until it returns.
)");
  PrintServiceBase(service, Form::kSync, "Service", writer);
  writer->Print(R"(

// The same for handlers that do not wait: each returns a reactor, whose Start functions begin operations, whose On
// functions are called when these are done, and whose Finish ends the call. What a handler is given lives until the
// reactor's OnDone.
)");
  PrintServiceBase(service, Form::kCallback, "CallbackService", writer);
  writer->Print(R"(

// The same for handlers that are coroutines. What a handler is given lives until the coroutine has returned.
)");
  PrintServiceBase(service, Form::kCoroutine, "CoService", writer);
}

void PrintService(const Service& service, TextWriter* writer) {
  writer->Print("\n\n");
  if (!service.comment.empty()) {
    writer->PrintComment(service.comment);
    writer->Print("//");
  }
  writer->Print(R"(
// $full_name$, as it is called and as it is served:
//   Stub             calls it and waits; its async() calls back, its co() is for coroutines
//   StubInterface    what a Stub has in common with a mock
//   Service          serves it with functions that return when they are done
//   CallbackService  serves it with functions that return at once, and reactors
//   CoService        serves it with coroutines
class $service$ final {
 public:
  $service$() = delete;

  static constexpr char kServiceName[] = "$full_name$";
)",
                {{"service", service.name}, {"full_name", service.full_name}});
  writer->Indent();
  PrintStubInterface(service, writer);
  PrintStub(service, writer);
  PrintServiceBases(service, writer);
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
