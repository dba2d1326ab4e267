# Installs the build, builds the consumer against that, runs it, and checks what changes make it generate anew.
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

set(prefix ${WORK_DIR}/prefix)
set(source ${WORK_DIR}/source)
set(build ${WORK_DIR}/build)
file(REMOVE_RECURSE ${WORK_DIR})
file(MAKE_DIRECTORY ${WORK_DIR})
file(COPY ${CONSUMER_DIR}/ DESTINATION ${source})

run("Installing" ${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${prefix} --config "${BUILD_TYPE}")

set(flags "")
if(SANITIZE)
  set(flags "-DCMAKE_CXX_FLAGS=-fsanitize=${SANITIZE}")
endif()
run("Configuring" ${CMAKE_COMMAND} -S ${source} -B ${build} -G ${GENERATOR} -DCMAKE_BUILD_TYPE=${BUILD_TYPE}
    -DCMAKE_PREFIX_PATH=${prefix} -DWITH_GRPC=${WITH_GRPC} ${flags})
run("Building" ${CMAKE_COMMAND} --build ${build})
run("Running" ${build}/consumer)
expect_output(TEXT "Hello, package!")
if(WITH_GRPC)
  run("Running, with gRPC" ${build}/grpc_consumer)
  expect_output(TEXT "grpc: asked for")
endif()

run("Building without a change" ${CMAKE_COMMAND} --build ${build})
expect_output(NOT TEXT "Generating C++ from")

# A new method in the .proto is there after the next build.
file(READ ${source}/protos/greeter.proto text)
string(REPLACE "service Greeter {" "service Greeter {\n  rpc Added(HelloRequest) returns (common.Text);" text "${text}")
file(WRITE ${source}/protos/greeter.proto "${text}")
run("Building after a change of the .proto" ${CMAKE_COMMAND} --build ${build})
expect_output(TEXT "Generating C++ from greeter.proto")
expect_output(NOT TEXT "Generating C++ from common/text.proto")
file(STRINGS ${build}/consumer_protos_generated/greeter.shmrpc.pb.h added REGEX "Added\\(")
if(NOT added)
  message(FATAL_ERROR "greeter.shmrpc.pb.h does not have the method Added")
endif()

# A change of an imported .proto generates what imports it, too.
file(APPEND ${source}/protos/common/text.proto "\nmessage Another {}\n")
run("Building after a change of the imported .proto" ${CMAKE_COMMAND} --build ${build})
expect_output(TEXT "Generating C++ from common/text.proto")
expect_output(TEXT "Generating C++ from greeter.proto")

# So does a change of the generator.
file(TOUCH ${prefix}/bin/protoc-gen-shmrpc)
run("Building after a change of the generator" ${CMAKE_COMMAND} --build ${build})
expect_output(TEXT "Generating C++ from greeter.proto")

run("Running again" ${build}/consumer)
expect_output(TEXT "Hello, package!")
