#include "codegen/model.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "codegen/comments.h"
#include "codegen/names.h"
#include "google/protobuf/compiler/cpp/names.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"

namespace shmrpc::codegen {
namespace {

namespace cpp = google::protobuf::compiler::cpp;
using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::EnumDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;
using google::protobuf::SourceLocation;

using NameSet = absl::flat_hash_set<std::string>;

// "::hello::HelloRequest". protobuf writes its own namespace as a macro that only its own headers may use.
std::string QualifiedMessageName(const Descriptor& message) {
  return absl::StrReplaceAll(cpp::QualifiedClassName(&message), {{"PROTOBUF_NAMESPACE_ID", "google::protobuf"}});
}

// The namespace in which protobuf puts the messages of `package`. libprotoc tells it only as part of a message's
// name, and a package need not have a message; so ask for the name of one that we make up. That never differs from
// the installed protobuf's rules for keywords.
std::string NamespaceOf(const std::string& package) {
  google::protobuf::FileDescriptorProto file;
  file.set_name("namespace.proto");
  file.set_package(package);
  file.add_message_type()->set_name("M");
  DescriptorPool pool;
  const std::string message = QualifiedMessageName(*pool.BuildFile(file)->message_type(0));
  return std::string(absl::StripPrefix(absl::StripSuffix(absl::StripSuffix(message, "M"), "::"), "::"));
}

void AddEnumNames(const EnumDescriptor& enumeration, NameSet* names) {
  const std::string name = cpp::ClassName(&enumeration);
  names->insert(name);
  for (const char* suffix : {"_Name", "_Parse", "_IsValid", "_MIN", "_MAX", "_ARRAYSIZE", "_descriptor"}) {
    names->insert(absl::StrCat(name, suffix));
  }
  for (int i = 0; i < enumeration.value_count(); ++i) {
    names->insert(enumeration.containing_type() == nullptr ? enumeration.value(i)->name()
                                                           : absl::StrCat(name, "_", enumeration.value(i)->name()));
  }
}

void AddMessageNames(const Descriptor& message, NameSet* names) {
  names->insert(cpp::ClassName(&message));
  names->insert(absl::StrCat(cpp::ClassName(&message), "DefaultTypeInternal"));
  for (int i = 0; i < message.nested_type_count(); ++i) AddMessageNames(*message.nested_type(i), names);
  for (int i = 0; i < message.enum_type_count(); ++i) AddEnumNames(*message.enum_type(i), names);
}

// The names that protobuf's own code for `file` and for what it imports declares in `package`. A .proto cannot have a
// message and a service of the same name, but the message Outer.Inner becomes the class Outer_Inner.
void AddProtobufNames(const FileDescriptor& file, const std::string& package,
                      absl::flat_hash_set<const FileDescriptor*>* visited, NameSet* names) {
  if (!visited->insert(&file).second) return;
  for (int i = 0; i < file.dependency_count(); ++i) AddProtobufNames(*file.dependency(i), package, visited, names);
  if (file.package() != package) return;
  for (int i = 0; i < file.message_type_count(); ++i) AddMessageNames(*file.message_type(i), names);
  for (int i = 0; i < file.enum_type_count(); ++i) AddEnumNames(*file.enum_type(i), names);
  if (file.options().cc_generic_services()) {
    for (int i = 0; i < file.service_count(); ++i) {
      names->insert(file.service(i)->name());
      names->insert(absl::StrCat(file.service(i)->name(), "_Stub"));
    }
  }
}

template <typename ServiceOrMethod>
std::vector<std::string> CommentOf(const ServiceOrMethod& descriptor) {
  SourceLocation location;
  if (!descriptor.GetSourceLocation(&location)) return {};
  return CommentLines(location.leading_comments);
}

MethodKind KindOf(const MethodDescriptor& descriptor) {
  if (descriptor.client_streaming()) {
    return descriptor.server_streaming() ? MethodKind::kBidiStreaming : MethodKind::kClientStreaming;
  }
  return descriptor.server_streaming() ? MethodKind::kServerStreaming : MethodKind::kUnary;
}

Method BuildMethod(const MethodDescriptor& descriptor, const std::string& name) {
  Method method;
  method.proto_name = descriptor.name();
  method.name = name;
  method.path = absl::StrCat("/", descriptor.service()->full_name(), "/", descriptor.name());
  method.request_type = QualifiedMessageName(*descriptor.input_type());
  method.reply_type = QualifiedMessageName(*descriptor.output_type());
  method.comment = CommentOf(descriptor);
  method.kind = KindOf(descriptor);
  return method;
}

Service BuildService(const ServiceDescriptor& descriptor, const std::string& name, const std::string& mock_name) {
  Service service;
  service.full_name = descriptor.full_name();
  service.name = name;
  service.mock_name = mock_name;
  service.comment = CommentOf(descriptor);

  std::vector<std::string> proto_names;
  for (int i = 0; i < descriptor.method_count(); ++i) proto_names.push_back(descriptor.method(i)->name());
  NameSet taken = NamesInsideService();
  taken.insert(mock_name);
  const std::vector<std::string> names = EscapeNames(proto_names, taken);
  for (int i = 0; i < descriptor.method_count(); ++i) {
    service.methods.push_back(BuildMethod(*descriptor.method(i), names[i]));
  }
  return service;
}


// Whether a method takes or returns a message of the file itself.
bool UsesOwnMessages(const FileDescriptor& file) {
  for (int i = 0; i < file.service_count(); ++i) {
    for (int j = 0; j < file.service(i)->method_count(); ++j) {
      const MethodDescriptor& method = *file.service(i)->method(j);
      if (method.input_type()->file() == &file || method.output_type()->file() == &file) return true;
    }
  }
  return false;
}

// Empty when the file has none.
std::string DescriptorTableOf(const FileDescriptor& file) {
  if (file.options().optimize_for() == google::protobuf::FileOptions::LITE_RUNTIME) return "";
  return absl::StrCat("descriptor_table_", FileIdentifier(file.name()));
}

}  // namespace

File BuildFile(const FileDescriptor& descriptor) {
  File file;
  file.proto_name = descriptor.name();
  file.output_prefix = cpp::StripProto(descriptor.name());
  file.cpp_namespace = NamespaceOf(descriptor.package());

  NameSet taken_by_protobuf;
  absl::flat_hash_set<const FileDescriptor*> visited;
  AddProtobufNames(descriptor, descriptor.package(), &visited, &taken_by_protobuf);

  std::vector<std::string> proto_names;
  for (int i = 0; i < descriptor.service_count(); ++i) proto_names.push_back(descriptor.service(i)->name());
  NameSet taken_for_services = taken_by_protobuf;
  taken_for_services.merge(MembersOfServiceClass());
  taken_for_services.merge(TopLevelNamespaces());
  const std::vector<std::string> names = EscapeNames(proto_names, taken_for_services);

  std::vector<std::string> mock_names;
  NameSet taken_for_mocks = taken_by_protobuf;
  for (const std::string& name : names) {
    mock_names.push_back(absl::StrCat("Mock", name, "Stub"));
    taken_for_mocks.insert(name);
  }
  mock_names = EscapeNames(mock_names, taken_for_mocks);

  for (int i = 0; i < descriptor.service_count(); ++i) {
    file.services.push_back(BuildService(*descriptor.service(i), names[i], mock_names[i]));
  }
  if (!UsesOwnMessages(descriptor)) file.descriptor_table = DescriptorTableOf(descriptor);
  return file;
}

}  // namespace shmrpc::codegen
