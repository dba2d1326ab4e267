# Configures the consumer with shmrpc as its subfolder and builds the generator and what it generates.
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

file(REMOVE_RECURSE ${WORK_DIR})
run("Configuring" ${CMAKE_COMMAND} -S ${CONSUMER_DIR} -B ${WORK_DIR} -G ${GENERATOR} -DCMAKE_BUILD_TYPE=Debug
    -DSHMRPC_SOURCE_DIR=${SHMRPC_SOURCE_DIR})
run("Building" ${CMAKE_COMMAND} --build ${WORK_DIR} --target consumer_headers)
foreach(file greeter.pb.h greeter.shmrpc.pb.h common/text.shmrpc.pb.h)
  if(NOT EXISTS ${WORK_DIR}/consumer_protos_generated/${file})
    message(FATAL_ERROR "${file} was not generated:\n${output}")
  endif()
endforeach()
