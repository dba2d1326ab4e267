# The services among gRPC's own .proto files, as Debian installs them: each is generated and compiled. Only the code of
# the services is compiled, not that of the messages. codegen.GrpcProto* checks that the list is complete.
set(grpc_proto_services
    grpc/channelz/v1/channelz.proto
    grpc/examples/helloworld.proto
    grpc/gcp/handshaker.proto
    grpc/health/v1/health.proto
    grpc/lb/v1/load_balancer.proto
    grpc/lb/v1/load_reporter.proto
    grpc/lookup/v1/rls.proto
    grpc/reflection/v1/reflection.proto
    grpc/reflection/v1alpha/reflection.proto
    grpc/testing/benchmark_service.proto
    grpc/testing/report_qps_scenario_service.proto
    grpc/testing/test.proto
    grpc/testing/worker_service.proto)
# The files of messages that these import.
set(grpc_proto_messages
    grpc/core/stats.proto
    grpc/gcp/transport_security_common.proto
    grpc/testing/control.proto
    grpc/testing/empty.proto
    grpc/testing/messages.proto
    grpc/testing/payloads.proto
    grpc/testing/stats.proto)

set(out_dir ${CMAKE_CURRENT_BINARY_DIR}/grpc_proto)
file(MAKE_DIRECTORY ${out_dir})
list(TRANSFORM grpc_proto_services REPLACE "(.*)\\.proto$" "${out_dir}/\\1.shmrpc.pb.cc" OUTPUT_VARIABLE sources)
list(TRANSFORM grpc_proto_services REPLACE "(.*)\\.proto$" "#include \"\\1.shmrpc.mock.pb.h\"\n"
     OUTPUT_VARIABLE includes)
list(JOIN includes "" includes)
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/grpc_proto_mocks.cc CONTENT "${includes}" @ONLY)
add_custom_command(
  OUTPUT ${sources}
  COMMAND protobuf::protoc -I ${SHMRPC_GRPC_PROTO_DIR} --cpp_out=${out_dir} --shmrpc_out=mock=true:${out_dir}
          --plugin=protoc-gen-shmrpc=$<TARGET_FILE:protoc-gen-shmrpc> ${grpc_proto_services} ${grpc_proto_messages}
  DEPENDS protobuf::protoc protoc-gen-shmrpc
  COMMENT "Generating C++ from ${SHMRPC_GRPC_PROTO_DIR}"
  VERBATIM)
add_library(grpc_proto OBJECT ${sources} ${CMAKE_CURRENT_BINARY_DIR}/grpc_proto_mocks.cc)
compile_only(grpc_proto)
target_include_directories(grpc_proto PRIVATE ${out_dir})
target_link_libraries(grpc_proto PRIVATE shmrpc::shmrpc GTest::gmock shmrpc_warnings)

list(JOIN grpc_proto_services "," grpc_proto_services)
target_sources(codegen_test PRIVATE grpc_proto_test.cc)
target_compile_definitions(codegen_test PRIVATE
  SHMRPC_TEST_GRPC_PROTO_DIR="${SHMRPC_GRPC_PROTO_DIR}"
  SHMRPC_TEST_PROTOBUF_INCLUDE_DIR="${Protobuf_INCLUDE_DIR}"
  SHMRPC_TEST_GRPC_PROTO_SERVICES="${grpc_proto_services}")
