#ifndef SHMRPC_LOG_H_
#define SHMRPC_LOG_H_

// What the library tells whoever operates the program, because there is no call that could carry it: single lines, on
// stderr unless the program takes them itself.
//
//   2026-11-28T09:15:00.123456Z warning shmrpc[1234]: refused a connection from ...
//
// The environment variable SHMRPC_LOG says from which level on: error, warning (the default), info or debug. A program
// that runs with more rights than its user has (set-user-ID and the like) ignores it.
//
// No thread of the program's, or of the library's that serves calls, ever waits for the log: lines go through a queue
// of kLogQueueLines to a thread of its own, and when that does not keep up, lines are left out and counted in the next
// one. Lines that a peer can cause are limited to one per second for each kind.
//
// Descriptor 2 is written to only while it is what it was when the library was first used: a program that closes it
// and gets the number again for a file or a connection of its own finds nothing of the library's there. A terminal,
// /dev/null and a file opened to append to (a log that is being rotated) may take its place.

#include <cstddef>
#include <functional>
#include <string_view>

namespace shmrpc {

enum class LogLevel {
  kError,    // something does not work, and somebody has to do something about it
  kWarning,  // a client or a call was refused, or does not get what it could have
  kInfo,     // connections made and lost, and why calls go another way than shared memory
  kDebug,    // what helps to find out what the library does
};

// "error", "warning", "info", "debug".
std::string_view LogLevelName(LogLevel level);

// Takes the lines from now on, instead of stderr. `text` is one line, without its end, and without time, level and
// process. Called by one thread at a time, which belongs to the library and waits for nothing else: the sink may block,
// and may use the library. In the child of a fork() it is called as well.
//
// An empty function brings the lines back to stderr, to whatever descriptor 2 is then.
//
// When it returns, the sink before is no longer in use, unless it is the sink itself that has called. Thread-safe.
using LogSink = std::function<void(LogLevel level, std::string_view text)>;
void SetLogSink(LogSink sink);

// Lines of this level and the more severe ones; whatever the environment says. Thread-safe.
void SetLogLevel(LogLevel level);

inline constexpr std::size_t kLogQueueLines = 256;

}  // namespace shmrpc

#endif  // SHMRPC_LOG_H_
