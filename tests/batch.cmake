# batch_tests(<target>...) compiles the *_test.cc files of each target together, a few in one translation unit, because
# most of the time that a test takes to compile goes into the headers and templates that all tests use. A new file only has
# to be in the target's list of sources. SHMRPC_BATCH_TESTS says how many files one translation unit has; 0: each file is
# compiled alone, which shows whether it includes what it needs.
#
# Each file has an anonymous namespace for what is its own. It gets a name in a batch, so that two files may use one name
# for two things. A file that defines macros has to undefine them.

if(CMAKE_SCRIPT_MODE_FILE)
  # Writes OUTPUT from SOURCES, files below ROOT. Messages of the compiler and of tests name the files below ROOT.
  string(REPLACE "," ";" sources "${SOURCES}")
  set(batch "")
  foreach(source IN LISTS sources)
    file(READ ${ROOT}/${source} text)
    string(MAKE_C_IDENTIFIER ${source} name)
    string(REPLACE "\nnamespace {\n" "\nnamespace ${name} {\n" text "${text}")
    string(APPEND batch "#line 1 \"${source}\"\n" "${text}")
  endforeach()
  file(WRITE ${OUTPUT} "${batch}")
  return()
endif()

set(SHMRPC_BATCH_TESTS 6 CACHE STRING "How many files of tests are compiled as one; 0: each alone")
set(batch_script ${CMAKE_CURRENT_LIST_FILE})

# For a target whose code is generated, and compiled only to see that this can be done: in one translation unit, and not
# optimised.
function(compile_only target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O0>)
  if(SHMRPC_BATCH_TESTS GREATER 1)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
  endif()
endfunction()

function(batch_tests)
  if(SHMRPC_BATCH_TESTS LESS 2)
    return()
  endif()
  foreach(target IN LISTS ARGN)
    get_target_property(sources ${target} SOURCES)
    set(tests ${sources})
    list(FILTER tests INCLUDE REGEX "_test\\.cc$")
    list(LENGTH tests count)
    if(count LESS 2)
      continue()
    endif()
    # By a hash of the name, so that a new file leaves the other batches as they are.
    math(EXPR batches "(${count} + ${SHMRPC_BATCH_TESTS} - 1) / ${SHMRPC_BATCH_TESTS}")
    foreach(test IN LISTS tests)
      string(MD5 hash ${test})
      string(SUBSTRING ${hash} 0 6 hash)
      math(EXPR batch "0x${hash} % ${batches}")
      get_filename_component(path ${test} ABSOLUTE)
      file(RELATIVE_PATH path ${PROJECT_SOURCE_DIR} ${path})
      list(APPEND batch_${batch} ${path})
    endforeach()
    list(REMOVE_ITEM sources ${tests})
    math(EXPR last "${batches} - 1")
    foreach(batch RANGE ${last})
      if(NOT batch_${batch})
        continue()
      endif()
      set(output ${CMAKE_CURRENT_BINARY_DIR}/${target}_batch_${batch}.cc)
      list(TRANSFORM batch_${batch} PREPEND ${PROJECT_SOURCE_DIR}/ OUTPUT_VARIABLE paths)
      list(JOIN batch_${batch} "," names)
      add_custom_command(
        OUTPUT ${output}
        COMMAND ${CMAKE_COMMAND} -DROOT=${PROJECT_SOURCE_DIR} -DSOURCES=${names} -DOUTPUT=${output} -P ${batch_script}
        DEPENDS ${paths} ${batch_script}
        COMMENT ""
        VERBATIM)
      # GCC gives this warning for whatever is not in the main file, which is the batch.
      set_source_files_properties(${output} PROPERTIES COMPILE_OPTIONS -Wno-subobject-linkage)
      list(APPEND sources ${output})
      unset(batch_${batch})
    endforeach()
    set_target_properties(${target} PROPERTIES SOURCES "${sources}")
    target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  endforeach()
endfunction()
