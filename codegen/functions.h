#ifndef SHMRPC_CODEGEN_FUNCTIONS_H_
#define SHMRPC_CODEGEN_FUNCTIONS_H_

// The C++ functions that one method of a service becomes: three that clients call and three that servers override. All
// printers take them from here, so that declarations, definitions and mocks agree.

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "codegen/model.h"

namespace shmrpc::codegen {

struct Parameter {
  std::string type;  // "const ::hello::HelloRequest&"
  std::string name;  // "request"
};

struct Function {
  std::string result;  // "::absl::Status"
  std::vector<Parameter> parameters;
};

// How the caller learns of the end: the function waits, calls back, or is awaited by a coroutine. The same three forms
// exist for the server, whose handler returns, finishes a reactor, or is a coroutine.
enum class Form { kSync, kCallback, kCoroutine };

// What a stub has for `method`. A unary method's synchronous and coroutine forms also exist in shorter versions, which
// are not told here.
Function StubFunction(Form form, const Method& method);

// What a service has for `method`.
Function HandlerFunction(Form form, const Method& method);

// What a handler reads from and writes to: "::shmrpc::ServerWriter<::hello::HelloReply>". Empty where there is none:
// for unary methods, and for callback services, whose reactors do it.
std::string HandlerStreamType(Form form, const Method& method);

// "::shmrpc::ServerWriteReactor<::hello::HelloReply>".
std::string ServerReactorType(const Method& method);

// What a client holds during a call: a reader or writer, the reactor that it passes, or something to await. Empty for
// unary calls that are not awaited.
std::string ClientStreamType(Form form, const Method& method);

// "::shmrpc::MethodKind::kUnary".
std::string KindName(const Method& method);

// For a declaration: "type name".
std::vector<std::string> Named(const std::vector<Parameter>& parameters);

// For a definition that uses no parameter: "type /*name*/".
std::vector<std::string> Unused(const std::vector<Parameter>& parameters);

}  // namespace shmrpc::codegen

#endif  // SHMRPC_CODEGEN_FUNCTIONS_H_
