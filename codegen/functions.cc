#include "codegen/functions.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace shmrpc::codegen {
namespace {

// "::shmrpc::name<arguments>".
std::string LibraryTemplate(absl::string_view name, absl::string_view first, absl::string_view second = "") {
  return absl::StrCat("::shmrpc::", name, "<", first, second.empty() ? "" : ", ", second, ">");
}

}  // namespace

Function StubFunction(Form form, const Method& method) {
  const bool is_unary = method.kind == MethodKind::kUnary;
  const std::string stream = ClientStreamType(form, method);
  Function function;
  function.parameters.push_back({"::shmrpc::ClientContext*", "context"});
  if (!method.client_streams()) {
    function.parameters.push_back(
        {absl::StrCat("const ", method.request_type, form == Form::kCallback ? "*" : "&"), "request"});
  }
  if (!method.server_streams() && form != Form::kCoroutine) {
    function.parameters.push_back({absl::StrCat(method.reply_type, "*"), "reply"});
  }
  switch (form) {
    case Form::kSync:
      function.result = is_unary ? "::absl::Status" : absl::StrCat("::std::unique_ptr<", stream, ">");
      break;
    case Form::kCallback:
      function.result = "void";
      if (is_unary) {
        function.parameters.push_back({"::shmrpc::StatusCallback", "done"});
      } else {
        function.parameters.push_back({absl::StrCat(stream, "*"), "reactor"});
      }
      break;
    case Form::kCoroutine:
      function.result = stream;
      break;
  }
  return function;
}

Function HandlerFunction(Form form, const Method& method) {
  const std::string stream = HandlerStreamType(form, method);
  Function function;
  function.parameters.push_back({"::shmrpc::ServerContext*", "context"});
  if (!method.client_streams()) {
    function.parameters.push_back({absl::StrCat("const ", method.request_type, "*"), "request"});
  }
  if (!stream.empty()) function.parameters.push_back({absl::StrCat(stream, "*"), "stream"});
  if (!method.server_streams()) function.parameters.push_back({absl::StrCat(method.reply_type, "*"), "reply"});
  switch (form) {
    case Form::kSync:
      function.result = "::absl::Status";
      break;
    case Form::kCallback:
      function.result = absl::StrCat(ServerReactorType(method), "*");
      break;
    case Form::kCoroutine:
      function.result = "::shmrpc::Task<::absl::Status>";
      break;
  }
  return function;
}

std::string ClientStreamType(Form form, const Method& method) {
  const std::string& request = method.request_type;
  const std::string& reply = method.reply_type;
  switch (method.kind) {
    case MethodKind::kUnary:
      return form == Form::kCoroutine ? LibraryTemplate("CoUnaryCall", reply) : "";
    case MethodKind::kServerStreaming:
      if (form == Form::kSync) return LibraryTemplate("ClientReader", reply);
      if (form == Form::kCallback) return LibraryTemplate("ClientReadReactor", reply);
      return LibraryTemplate("CoClientReader", reply);
    case MethodKind::kClientStreaming:
      if (form == Form::kSync) return LibraryTemplate("ClientWriter", request);
      if (form == Form::kCallback) return LibraryTemplate("ClientWriteReactor", request);
      return LibraryTemplate("CoClientWriter", request, reply);
    case MethodKind::kBidiStreaming:
      if (form == Form::kSync) return LibraryTemplate("ClientReaderWriter", request, reply);
      if (form == Form::kCallback) return LibraryTemplate("ClientBidiReactor", request, reply);
      return LibraryTemplate("CoClientReaderWriter", request, reply);
  }
  std::abort();
}

std::string HandlerStreamType(Form form, const Method& method) {
  if (form == Form::kCallback) return "";
  const absl::string_view prefix = form == Form::kSync ? "" : "Co";
  switch (method.kind) {
    case MethodKind::kUnary:
      return "";
    case MethodKind::kServerStreaming:
      return LibraryTemplate(absl::StrCat(prefix, "ServerWriter"), method.reply_type);
    case MethodKind::kClientStreaming:
      return LibraryTemplate(absl::StrCat(prefix, "ServerReader"), method.request_type);
    case MethodKind::kBidiStreaming:
      return LibraryTemplate(absl::StrCat(prefix, "ServerReaderWriter"), method.reply_type, method.request_type);
  }
  std::abort();
}

std::string ServerReactorType(const Method& method) {
  switch (method.kind) {
    case MethodKind::kUnary:
      return "::shmrpc::ServerUnaryReactor";
    case MethodKind::kServerStreaming:
      return LibraryTemplate("ServerWriteReactor", method.reply_type);
    case MethodKind::kClientStreaming:
      return LibraryTemplate("ServerReadReactor", method.request_type);
    case MethodKind::kBidiStreaming:
      return LibraryTemplate("ServerBidiReactor", method.request_type, method.reply_type);
  }
  std::abort();
}

std::string KindName(const Method& method) {
  switch (method.kind) {
    case MethodKind::kUnary:
      return "::shmrpc::MethodKind::kUnary";
    case MethodKind::kServerStreaming:
      return "::shmrpc::MethodKind::kServerStreaming";
    case MethodKind::kClientStreaming:
      return "::shmrpc::MethodKind::kClientStreaming";
    case MethodKind::kBidiStreaming:
      return "::shmrpc::MethodKind::kBidiStreaming";
  }
  std::abort();
}

std::vector<std::string> Named(const std::vector<Parameter>& parameters) {
  std::vector<std::string> result;
  for (const Parameter& parameter : parameters) result.push_back(absl::StrCat(parameter.type, " ", parameter.name));
  return result;
}

std::vector<std::string> Unused(const std::vector<Parameter>& parameters) {
  std::vector<std::string> result;
  for (const Parameter& parameter : parameters) {
    result.push_back(absl::StrCat(parameter.type, " /*", parameter.name, "*/"));
  }
  return result;
}

}  // namespace shmrpc::codegen
