#include "shmrpc/reflection.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "runtime/src/absl_strings.h"
#include "shmrpc/reflection.pb.h"
#include "shmrpc/server_reactor.h"
#include "shmrpc/service.h"
#include "transports/grpc/standard_services.h"

namespace shmrpc {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

// The answers. Thread-safe.
class Directory {
 public:
  explicit Directory(std::set<std::string> services) : services_(std::move(services)) {}

  reflection::Response Answer(const reflection::Request& request) const {
    reflection::Response response;
    response.set_valid_host(request.host());
    *response.mutable_original_request() = request;
    const absl::Status status = Answer(request, &response);
    if (!status.ok()) {
      response.mutable_error()->set_error_code(status.raw_code());
      response.mutable_error()->set_error_message(std::string(status.message()));
    }
    return response;
  }

 private:
  absl::Status Answer(const reflection::Request& request, reflection::Response* response) const {
    switch (request.question_case()) {
      case reflection::Request::kFileByFilename:
        return AddFile(Find(&DescriptorPool::FindFileByName, request.file_by_filename()), "file",
                       request.file_by_filename(), response);
      case reflection::Request::kFileContainingSymbol:
        return AddFile(Find(&DescriptorPool::FindFileContainingSymbol, request.file_containing_symbol()), "symbol",
                       request.file_containing_symbol(), response);
      case reflection::Request::kFileContainingExtension: {
        const reflection::Extension& wanted = request.file_containing_extension();
        const auto* const type = pool_->FindMessageTypeByName(wanted.containing_type());
        const auto* const extension =
            type == nullptr ? nullptr : pool_->FindExtensionByNumber(type, wanted.extension_number());
        return AddFile(extension == nullptr ? nullptr : extension->file(), "extension",
                       absl::StrCat(wanted.containing_type(), ":", wanted.extension_number()), response);
      }
      case reflection::Request::kAllExtensionNumbersOfType: {
        const std::string& name = request.all_extension_numbers_of_type();
        const auto* const type = pool_->FindMessageTypeByName(name);
        if (type == nullptr) return Unknown("message type", name);
        std::vector<const google::protobuf::FieldDescriptor*> extensions;
        pool_->FindAllExtensions(type, &extensions);
        response->mutable_extension_numbers()->set_base_type_name(name);
        for (const auto* extension : extensions) {
          response->mutable_extension_numbers()->add_extension_number(extension->number());
        }
        return absl::OkStatus();
      }
      case reflection::Request::kListServices:
        response->mutable_services();
        for (const std::string& service : services_) response->mutable_services()->add_service()->set_name(service);
        return absl::OkStatus();
      case reflection::Request::QUESTION_NOT_SET:
        break;
    }
    return absl::InvalidArgumentError("the request asks for nothing that this server knows of");
  }

  // What the program has itself comes first.
  template <typename Name>
  const FileDescriptor* Find(const FileDescriptor* (DescriptorPool::*find)(Name) const, const std::string& name) const {
    const FileDescriptor* const found = (pool_->*find)(name);
    return found != nullptr ? found : (grpc_transport::StandardServices().*find)(name);
  }

  static absl::Status Unknown(std::string_view what, std::string_view name) {
    return absl::NotFoundError(
        absl::StrCat("this server has no ", ToAbsl(what), " \"", absl::CHexEscape(ToAbsl(name)), "\""));
  }

  static absl::Status AddFile(const FileDescriptor* file, std::string_view what, std::string_view name,
                              reflection::Response* response) {
    if (file == nullptr) return Unknown(what, name);
    std::set<const FileDescriptor*> added;
    AddWithImports(file, &added, response->mutable_files());
    return absl::OkStatus();
  }

  static void AddWithImports(const FileDescriptor* file, std::set<const FileDescriptor*>* added,
                             reflection::Files* files) {
    if (!added->insert(file).second) return;
    google::protobuf::FileDescriptorProto proto;
    file->CopyTo(&proto);
    files->add_file_descriptor_proto(proto.SerializeAsString());
    for (int i = 0; i < file->dependency_count(); ++i) AddWithImports(file->dependency(i), added, files);
  }

  const DescriptorPool* const pool_ = DescriptorPool::generated_pool();
  const std::set<std::string> services_;
};

// One client's questions, answered one after the other.
class Dialogue final : public ServerBidiReactor<reflection::Request, reflection::Response> {
 public:
  explicit Dialogue(const Directory* directory) : directory_(directory) { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(absl::OkStatus());
    response_ = directory_->Answer(request_);
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(absl::CancelledError("the client is gone"));
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  const Directory* const directory_;
  reflection::Request request_;
  reflection::Response response_;
};

template <typename Names>
class ReflectionService final : public Service {
 public:
  explicit ReflectionService(const Directory* directory) : directory_(directory) {}

  std::string_view ShmrpcServiceName() const override { return Names::kService; }
  std::span<const ServiceMethod> ShmrpcMethods() const override {
    static constexpr ServiceMethod kMethods[] = {{
        .path = Names::kMethod,
        .kind = MethodKind::kBidiStreaming,
        .request_prototype = []() -> const google::protobuf::MessageLite& {
          return reflection::Request::default_instance();
        },
        .reply_prototype = []() -> const google::protobuf::MessageLite& {
          return reflection::Response::default_instance();
        },
        .react = [](Service* service, ServerContext*, const google::protobuf::MessageLite*,
                    google::protobuf::MessageLite*) -> ServerReactor* {
          return new Dialogue(static_cast<ReflectionService*>(service)->directory_);
        },
    }};
    return kMethods;
  }

 private:
  const Directory* const directory_;
};

struct V1Alpha {
  static constexpr char kService[] = "grpc.reflection.v1alpha.ServerReflection";
  static constexpr char kMethod[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
};
struct V1 {
  static constexpr char kService[] = "grpc.reflection.v1.ServerReflection";
  static constexpr char kMethod[] = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
};

class ReflectionServices final : public Reflection {
 public:
  explicit ReflectionServices(ServerBuilder* builder) : directory_(ServicesOf(*builder)) {
    builder->Register(&v1alpha_).Register(&v1_);
  }

 private:
  static std::set<std::string> ServicesOf(const ServerBuilder& builder) {
    std::set<std::string> names = {V1Alpha::kService, V1::kService};
    for (const std::string& name : builder.ServiceNames()) names.insert(name);
    return names;
  }

  const Directory directory_;
  ReflectionService<V1Alpha> v1alpha_{&directory_};
  ReflectionService<V1> v1_{&directory_};
};

}  // namespace

std::unique_ptr<Reflection> AddReflection(ServerBuilder* builder) {
  return std::make_unique<ReflectionServices>(builder);
}

}  // namespace shmrpc
