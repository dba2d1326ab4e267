# shmrpc_generate(TARGET <target> PROTOS <file.proto>... [IMPORT_DIRS <dir>...] [OUT_DIR <dir>] [MOCKS])
#
# Generates C++ for the messages and services of the PROTOS and compiles it into the library <target>, which is created
# unless it exists. Who links <target> may include "NAME.pb.h" and "NAME.shmrpc.pb.h", NAME being the path of the .proto
# below its import folder, and links shmrpc::shmrpc with it.
#
#   IMPORT_DIRS  where `import` looks; each of the PROTOS must be in one of these. Default: the current source folder.
#                What protobuf itself brings (google/protobuf/*.proto) is always found.
#   OUT_DIR      where the generated files go. Default: <target>_generated in the current build folder.
#   MOCKS        also generate "NAME.shmrpc.mock.pb.h", with GoogleTest mocks of the stubs; <target> then links
#                GTest::gmock.
#
# Relative paths are relative to the current source folder. The files are generated anew whenever the .proto, something
# that it imports, or the generator has changed.

cmake_policy(PUSH)
cmake_policy(VERSION 3.25)

# Sets <name_variable> to the name under which protoc knows <proto>, and <path_variable> to where it is.
function(_shmrpc_locate_proto proto import_dirs name_variable path_variable)
  get_filename_component(path "${proto}" ABSOLUTE)
  if(NOT EXISTS "${path}" AND NOT IS_ABSOLUTE "${proto}")
    foreach(dir IN LISTS import_dirs)
      if(EXISTS "${dir}/${proto}")
        set(path "${dir}/${proto}")
        break()
      endif()
    endforeach()
  endif()
  get_source_file_property(generated "${path}" GENERATED)
  if(NOT EXISTS "${path}" AND NOT generated)
    message(FATAL_ERROR "shmrpc_generate: there is no file ${proto} in ${CMAKE_CURRENT_SOURCE_DIR} "
                        "nor in any of IMPORT_DIRS (${import_dirs})")
  endif()
  foreach(dir IN LISTS import_dirs)
    cmake_path(IS_PREFIX dir "${path}" NORMALIZE is_inside)
    if(is_inside)
      file(RELATIVE_PATH name "${dir}" "${path}")
      set(${name_variable} "${name}" PARENT_SCOPE)
      set(${path_variable} "${path}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "shmrpc_generate: ${path} is in none of IMPORT_DIRS (${import_dirs}): "
                      "add the folder from which other files import it")
endfunction()

function(shmrpc_generate)
  cmake_parse_arguments(PARSE_ARGV 0 arg "MOCKS" "TARGET;OUT_DIR" "PROTOS;IMPORT_DIRS")
  set(usage "shmrpc_generate(TARGET <target> PROTOS <file.proto>... [IMPORT_DIRS <dir>...] [OUT_DIR <dir>] [MOCKS])")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "shmrpc_generate: unknown arguments \"${arg_UNPARSED_ARGUMENTS}\"; usage: ${usage}")
  endif()
  if(arg_KEYWORDS_MISSING_VALUES)
    message(FATAL_ERROR "shmrpc_generate: no value after ${arg_KEYWORDS_MISSING_VALUES}; usage: ${usage}")
  endif()
  foreach(keyword TARGET PROTOS)
    if(NOT arg_${keyword})
      message(FATAL_ERROR "shmrpc_generate: ${keyword} is missing; usage: ${usage}")
    endif()
  endforeach()
  if(NOT arg_IMPORT_DIRS)
    set(arg_IMPORT_DIRS "${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  set(import_dirs "")
  foreach(dir IN LISTS arg_IMPORT_DIRS)
    get_filename_component(dir "${dir}" ABSOLUTE)
    if(EXISTS "${dir}" AND NOT IS_DIRECTORY "${dir}")
      message(FATAL_ERROR "shmrpc_generate: ${dir} in IMPORT_DIRS is not a folder")
    endif()
    list(APPEND import_dirs "${dir}")
  endforeach()
  if(NOT arg_OUT_DIR)
    set(arg_OUT_DIR ${arg_TARGET}_generated)
  endif()
  get_filename_component(out_dir "${arg_OUT_DIR}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_BINARY_DIR}")

  set(names "")
  set(paths "")
  foreach(proto IN LISTS arg_PROTOS)
    _shmrpc_locate_proto("${proto}" "${import_dirs}" name path)
    list(APPEND names "${name}")
    list(APPEND paths "${path}")
  endforeach()

  if(TARGET ${arg_TARGET})
    get_target_property(type ${arg_TARGET} TYPE)
    get_target_property(imported ${arg_TARGET} IMPORTED)
    get_target_property(target_dir ${arg_TARGET} SOURCE_DIR)
    if(imported OR NOT type MATCHES "^(STATIC_LIBRARY|SHARED_LIBRARY|MODULE_LIBRARY|OBJECT_LIBRARY|EXECUTABLE)$")
      message(FATAL_ERROR "shmrpc_generate: the target ${arg_TARGET} cannot take sources: "
                          "name a library or program of this project, or a target that does not exist yet")
    endif()
    if(NOT target_dir STREQUAL CMAKE_CURRENT_SOURCE_DIR)
      message(FATAL_ERROR "shmrpc_generate: the target ${arg_TARGET} belongs to ${target_dir}: "
                          "call shmrpc_generate there, or name a target of ${CMAKE_CURRENT_SOURCE_DIR}")
    endif()
  else()
    add_library(${arg_TARGET})
    # Generated code does not mark what a shared library exports.
    set_target_properties(${arg_TARGET} PROPERTIES CXX_VISIBILITY_PRESET default VISIBILITY_INLINES_HIDDEN OFF)
  endif()

  if(NOT TARGET protobuf::protoc)
    find_package(Protobuf REQUIRED GLOBAL)
  endif()
  if(arg_MOCKS AND NOT TARGET GTest::gmock)
    find_package(GTest REQUIRED GLOBAL)
  endif()

  set(includes "")
  foreach(dir IN LISTS import_dirs)
    list(APPEND includes -I "${dir}")
  endforeach()
  set(parameter "")
  if(arg_MOCKS)
    set(parameter "mock=true:")
  endif()
  # protoc does not escape spaces in its depfile. Where there are some, everything that could be imported counts.
  set(importable "")
  if("${out_dir};${import_dirs}" MATCHES "[ \t]")
    foreach(dir IN LISTS import_dirs)
      file(GLOB_RECURSE protos CONFIGURE_DEPENDS "${dir}/*.proto")
      list(APPEND importable ${protos})
    endforeach()
  endif()
  file(MAKE_DIRECTORY "${out_dir}")
  foreach(name path IN ZIP_LISTS names paths)
    # protoc drops these endings and no other.
    string(REGEX REPLACE "\\.(proto|protodevel)$" "" prefix "${name}")
    set(prefix "${out_dir}/${prefix}")
    set(outputs "${prefix}.pb.cc" "${prefix}.pb.h" "${prefix}.shmrpc.pb.cc" "${prefix}.shmrpc.pb.h")
    if(arg_MOCKS)
      list(APPEND outputs "${prefix}.shmrpc.mock.pb.h")
    endif()
    set(depfile DEPFILE "${prefix}.d")
    if(importable)
      set(depfile "")
    endif()
    get_filename_component(prefix_dir "${prefix}" DIRECTORY)
    file(MAKE_DIRECTORY "${prefix_dir}")  # protoc makes folders for its output, but not for the depfile
    add_custom_command(
      OUTPUT ${outputs}
      COMMAND protobuf::protoc ${includes} "--cpp_out=${out_dir}" "--shmrpc_out=${parameter}${out_dir}"
              "--plugin=protoc-gen-shmrpc=$<TARGET_FILE:shmrpc::protoc-gen-shmrpc>"
              "--dependency_out=${prefix}.d" "${path}"
      DEPENDS "${path}" ${importable} protobuf::protoc shmrpc::protoc-gen-shmrpc
      ${depfile}
      COMMENT "Generating C++ from ${name}"
      VERBATIM)
    target_sources(${arg_TARGET} PRIVATE ${outputs})
  endforeach()

  target_include_directories(${arg_TARGET} PUBLIC "$<BUILD_INTERFACE:${out_dir}>")
  target_link_libraries(${arg_TARGET} PUBLIC shmrpc::shmrpc)
  if(arg_MOCKS)
    target_link_libraries(${arg_TARGET} PUBLIC GTest::gmock)
  endif()
endfunction()

cmake_policy(POP)
