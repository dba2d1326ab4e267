#ifndef SHMRPC_VERSION_H_
#define SHMRPC_VERSION_H_

#define SHMRPC_VERSION_MAJOR 0
#define SHMRPC_VERSION_MINOR 1
#define SHMRPC_VERSION_PATCH 0
#define SHMRPC_VERSION_STRING "0.1.0"

// Counts the changes of what generated code expects of the library. The generator writes the number that it was built
// for into its output, which then compiles only against a library with the same number.
#define SHMRPC_GENERATED_CODE_VERSION 3

#endif  // SHMRPC_VERSION_H_
