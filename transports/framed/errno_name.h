#ifndef SHMRPC_TRANSPORTS_FRAMED_ERRNO_NAME_H_
#define SHMRPC_TRANSPORTS_FRAMED_ERRNO_NAME_H_

#include <string.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace shmrpc::framed {

// "EMFILE"; "errno 4242" for a number that the C library does not know. Any thread.
inline std::string ErrnoName(int error) {
  const char* name = strerrorname_np(error);
  return name != nullptr ? name : absl::StrCat("errno ", error);
}

// "EMFILE (Too many open files)", for error messages. English whatever the locale, so that logs can be searched.
inline std::string ErrnoText(int error) {
  const char* description = strerrordesc_np(error);
  return description != nullptr ? absl::StrCat(ErrnoName(error), " (", description, ")") : ErrnoName(error);
}

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_ERRNO_NAME_H_
