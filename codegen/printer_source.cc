#include "absl/strings/str_cat.h"
#include "codegen/functions.h"
#include "codegen/printers.h"
#include "codegen/text_writer.h"

namespace shmrpc::codegen {
namespace {

TextWriter::Variables MethodVariables(const Service& service, const Method& method) {
  return {{"service", service.name},  {"method", method.name},          {"path", method.path},
          {"kind", KindName(method)}, {"request", method.request_type}, {"reply", method.reply_type}};
}

// "result scope::method(parameters) {".
void PrintBegin(const Function& function, const std::string& scope, const Method& method, TextWriter* writer) {
  writer->Print("\n\n");
  writer->PrintFunction(function.result, absl::StrCat(scope, "::", method.name), Named(function.parameters), " {");
}

// One statement: head, arguments, tail.
void PrintBody(const std::string& head, const std::vector<std::string>& arguments, absl::string_view tail,
               TextWriter* writer) {
  writer->Indent();
  writer->PrintList(head, arguments, tail);
  writer->Outdent();
  writer->Print("}");
}

// The forms of a unary method that are made of another one of the same class.
void PrintShortForms(const Service& service, const Method& method, TextWriter* writer) {
  if (method.kind != MethodKind::kUnary) return;
  const std::string scope = absl::StrCat(service.name, "::StubInterface");
  const std::string result = absl::StrCat("::absl::StatusOr<", method.reply_type, ">");
  const Parameter context = {"::shmrpc::ClientContext*", "context"};
  const Parameter request = {absl::StrCat("const ", method.request_type, "&"), "request"};

  PrintBegin({result, {request}}, scope, method, writer);
  PrintBody(absl::StrCat("return this->", method.name, "("), {"nullptr", "request"}, ");", writer);
  PrintBegin({result, {context, request}}, scope, method, writer);
  writer->Print(R"(
  $reply$ reply;
  ::absl::Status status = this->$method$(context, request, &reply);
  if (!status.ok()) return status;
  return reply;
}
)",
                MethodVariables(service, method));
  PrintBegin({StubFunction(Form::kCoroutine, method).result, {request}}, absl::StrCat(scope, "::CoroutinesInterface"),
             method, writer);
  PrintBody(absl::StrCat("return this->", method.name, "("), {"nullptr", "request"}, ");", writer);
}

void PrintSyncCall(const std::string& scope, const Method& method, TextWriter* writer) {
  const Function function = StubFunction(Form::kSync, method);
  const std::string path = absl::StrCat("\"", method.path, "\"");
  PrintBegin(function, scope, method, writer);
  if (method.kind == MethodKind::kUnary) {
    PrintBody("return ::shmrpc::UnaryCall(", {"*channel_", path, "context", "request", "reply"}, ");", writer);
    return;
  }
  writer->Print("  return ::std::make_unique<$stream$>(", {{"stream", ClientStreamType(Form::kSync, method)}});
  writer->Indent();
  writer->Indent();
  writer->Indent();
  writer->PrintList("::shmrpc::StartClientStream(",
                    {"channel_", path, KindName(method), "context", method.client_streams() ? "nullptr" : "&request",
                     method.server_streams() ? "nullptr" : "reply"},
                    "));");
  writer->Outdent();
  writer->Outdent();
  writer->Outdent();
  writer->Print("}");
}

void PrintAsyncCall(const std::string& scope, const Method& method, TextWriter* writer) {
  const std::string path = absl::StrCat("\"", method.path, "\"");
  PrintBegin(StubFunction(Form::kCallback, method), scope, method, writer);
  if (method.kind == MethodKind::kUnary) {
    PrintBody("::shmrpc::AsyncUnaryCall(", {"channel_", path, "context", "*request", "reply", "::std::move(done)"},
              ");", writer);
    return;
  }
  PrintBody("::shmrpc::PrepareClientReactor(",
            {"channel_", path, KindName(method), "context", method.client_streams() ? "nullptr" : "request",
             method.server_streams() ? "nullptr" : "reply", "reactor"},
            ");", writer);
}

void PrintCoroutineCall(const std::string& scope, const Method& method, TextWriter* writer) {
  const Function function = StubFunction(Form::kCoroutine, method);
  PrintBegin(function, scope, method, writer);
  std::vector<std::string> arguments = {"channel_", absl::StrCat("\"", method.path, "\""), "context"};
  if (!method.client_streams()) arguments.push_back("request");
  PrintBody(absl::StrCat("return ", function.result, "("), arguments, ");", writer);
}

void PrintClient(const Service& service, TextWriter* writer) {
  writer->Print(R"(

$service$::StubInterface::~StubInterface() = default;
$service$::StubInterface::AsyncInterface::~AsyncInterface() = default;
$service$::StubInterface::CoroutinesInterface::~CoroutinesInterface() = default;

$service$::Stub::Stub(::std::shared_ptr<::shmrpc::Channel> channel)
    : channel_(::shmrpc::internal::NotNull(::std::move(channel))), async_(channel_), co_(channel_) {}

$service$::Stub::Async::Async(::std::shared_ptr<::shmrpc::Channel> channel) : channel_(::std::move(channel)) {}

$service$::Stub::Coroutines::Coroutines(::std::shared_ptr<::shmrpc::Channel> channel)
    : channel_(::std::move(channel)) {}

$service$::Stub::Async& $service$::Stub::async() { return async_; }

$service$::Stub::Coroutines& $service$::Stub::co() { return co_; }
)",
                {{"service", service.name}});
  const std::string stub = absl::StrCat(service.name, "::Stub");
  for (const Method& method : service.methods) {
    PrintShortForms(service, method, writer);
    PrintSyncCall(stub, method, writer);
    PrintAsyncCall(absl::StrCat(stub, "::Async"), method, writer);
    PrintCoroutineCall(absl::StrCat(stub, "::Coroutines"), method, writer);
  }
}

// What differs between the three classes that a server may derive from.
struct ServerClass {
  Form form;
  const char* name;
  const char* field;        // of ServiceMethod
  const char* result;       // of the function in that field
  const char* stream_type;  // its last parameter; null where it has none
};

constexpr ServerClass kServerClasses[] = {
    {Form::kSync, "Service", "invoke", "::absl::Status", "::shmrpc::ServerStream*"},
    {Form::kCallback, "CallbackService", "react", "::shmrpc::ServerReactor*", nullptr},
    {Form::kCoroutine, "CoService", "co_invoke", "::shmrpc::Task<::absl::Status>", "::shmrpc::CoServerStream*"}};

void PrintDefaultHandler(const Service& service, const ServerClass& server_class, const Method& method,
                         TextWriter* writer) {
  const Function function = HandlerFunction(server_class.form, method);
  writer->Print("\n\n");
  writer->PrintFunction(function.result, absl::StrCat(service.name, "::", server_class.name, "::", method.name),
                        Unused(function.parameters), " {");
  const std::string path = absl::StrCat("\"", method.path, "\"");
  switch (server_class.form) {
    case Form::kSync:
      PrintBody("return ::shmrpc::internal::Unimplemented(", {path}, ");", writer);
      break;
    case Form::kCallback:
      PrintBody(absl::StrCat("return new ::shmrpc::FinishingReactor<", ServerReactorType(method), ">("),
                {absl::StrCat("::shmrpc::internal::Unimplemented(", path, ")")}, ");", writer);
      break;
    case Form::kCoroutine:
      PrintBody("return ::shmrpc::internal::CoUnimplemented(", {path}, ");", writer);
      break;
  }
}

// The element of the table for one method.
void PrintServiceMethod(const std::string& class_name, const ServerClass& server_class, const Method& method,
                        TextWriter* writer) {
  const std::string stream = HandlerStreamType(server_class.form, method);
  writer->Print(R"(
{
  .path = "$path$",
  .kind = $kind$,
  .request_prototype = ::shmrpc::internal::Prototype<$request$>,
  .reply_prototype = ::shmrpc::internal::Prototype<$reply$>,
)",
                {{"path", method.path},
                 {"kind", KindName(method)},
                 {"request", method.request_type},
                 {"reply", method.reply_type}});

  const auto parameter = [](absl::string_view type, absl::string_view name, bool is_used) {
    return is_used ? absl::StrCat(type, " ", name) : absl::StrCat(type, " /*", name, "*/");
  };
  std::vector<std::string> parameters = {
      "::shmrpc::Service* service", "::shmrpc::ServerContext* context",
      parameter("const ::google::protobuf::MessageLite*", "request", !method.client_streams()),
      parameter("::google::protobuf::MessageLite*", "reply", !method.server_streams())};
  if (server_class.stream_type != nullptr) {
    parameters.push_back(parameter(server_class.stream_type, "stream", !stream.empty()));
  }
  std::vector<std::string> arguments = {"context"};
  if (!method.client_streams()) {
    arguments.push_back(absl::StrCat("static_cast<const ", method.request_type, "*>(request)"));
  }
  if (!stream.empty()) arguments.push_back("&typed_stream");
  if (!method.server_streams()) arguments.push_back(absl::StrCat("static_cast<", method.reply_type, "*>(reply)"));
  const std::string call = absl::StrCat("static_cast<", class_name, "*>(service)->", method.name, "(");

  writer->Indent();
  writer->PrintList(absl::StrCat(".", server_class.field, " = []("), parameters,
                    absl::StrCat(") -> ", server_class.result, " {"));
  writer->Indent();
  if (!stream.empty()) writer->Print("$type$ typed_stream(stream);", {{"type", stream}});
  if (server_class.form == Form::kCoroutine && !stream.empty()) {
    // The typed stream must outlive the handler, so this is a coroutine as well.
    writer->PrintList(absl::StrCat("auto handler = ", call), arguments, ");");
    writer->Print("co_return co_await ::std::move(handler);");
  } else {
    writer->PrintList(absl::StrCat("return ", call), arguments, ");");
  }
  writer->Outdent();
  writer->Print("},");
  writer->Outdent();
  writer->Print("},");
}

void PrintServerClass(const Service& service, const ServerClass& server_class, const std::string& scope,
                      TextWriter* writer) {
  for (const Method& method : service.methods) PrintDefaultHandler(service, server_class, method, writer);
  const TextWriter::Variables variables = {{"class", absl::StrCat(service.name, "::", server_class.name)},
                                           {"full_name", service.full_name}};
  writer->Print(R"(

::std::string_view $class$::ShmrpcServiceName() const { return "$full_name$"; }

)",
                variables);
  if (service.methods.empty()) {
    writer->Print("::std::span<const ::shmrpc::ServiceMethod> $class$::ShmrpcMethods() const { return {}; }",
                  variables);
    return;
  }
  writer->Print(R"(
::std::span<const ::shmrpc::ServiceMethod> $class$::ShmrpcMethods() const {
  static constexpr ::shmrpc::ServiceMethod kMethods[] = {
)",
                variables);
  const std::string class_name = absl::StrCat(scope, service.name, "::", server_class.name);
  writer->Indent();
  writer->Indent();
  writer->Indent();
  for (const Method& method : service.methods) PrintServiceMethod(class_name, server_class, method, writer);
  writer->Outdent();
  writer->Outdent();
  writer->Outdent();
  writer->Print(R"(
  };
  return kMethods;
}
)");
}

}  // namespace

std::string SourceName(const File& file) { return absl::StrCat(file.output_prefix, ".shmrpc.pb.cc"); }

std::string PrintSource(const File& file) {
  TextWriter writer;
  writer.Print(R"(
// Generated by protoc-gen-shmrpc from $proto$. Do not edit.

#include "$header$"
)",
               {{"proto", file.proto_name}, {"header", HeaderName(file)}});
  if (file.services.empty()) return std::move(writer).Take();

  writer.Print("\n\n#include <utility>");
  if (!file.descriptor_table.empty()) {
    writer.Print(R"(

// Has the descriptors linked as well, for reflection: nothing else here refers to them.
[[gnu::used]] static const void* const shmrpc_keeps_$table$ =
    &::$table$;
)",
                 {{"table", file.descriptor_table}});
  }
  const std::string scope = file.cpp_namespace.empty() ? "::" : absl::StrCat("::", file.cpp_namespace, "::");
  if (!file.cpp_namespace.empty()) writer.Print("\n\nnamespace $namespace$ {", {{"namespace", file.cpp_namespace}});
  for (const Service& service : file.services) {
    PrintClient(service, &writer);
    for (const ServerClass& server_class : kServerClasses) PrintServerClass(service, server_class, scope, &writer);
  }
  if (!file.cpp_namespace.empty()) {
    writer.Print("\n\n}  // namespace $namespace$", {{"namespace", file.cpp_namespace}});
  }
  return std::move(writer).Take();
}

}  // namespace shmrpc::codegen
