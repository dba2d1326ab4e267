#ifndef SHMRPC_TESTS_FAULT_REFUSED_CALLS_H_
#define SHMRPC_TESTS_FAULT_REFUSED_CALLS_H_

// System calls that the kernel refuses to a process (seccomp), as containers, sandboxes and old kernels do.

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

namespace shmrpc::conformance {

struct SystemCall {
  const char* name;
  unsigned number;
};

// What the library calls, directly or through the C library, and could be refused without the process's not even
// starting: all but mmap, futex, read, write, close and the end of threads and processes. Nor recvmsg, sendmsg and
// sendto: a server to which these are refused closes the connection, or is ended by keepalive, and its log does not say
// why yet.
#define SHMRPC_SYSTEM_CALL(name) \
  SystemCall { #name, __NR_##name }
inline constexpr SystemCall kSystemCalls[] = {
    SHMRPC_SYSTEM_CALL(accept4),
    SHMRPC_SYSTEM_CALL(bind),
    SHMRPC_SYSTEM_CALL(clone3),
    SHMRPC_SYSTEM_CALL(connect),
    SHMRPC_SYSTEM_CALL(dup3),
    SHMRPC_SYSTEM_CALL(epoll_create1),
    SHMRPC_SYSTEM_CALL(epoll_ctl),
    SHMRPC_SYSTEM_CALL(epoll_pwait),
#if defined(__NR_epoll_wait)
    SHMRPC_SYSTEM_CALL(epoll_wait),
    SHMRPC_SYSTEM_CALL(poll),
#endif
    SHMRPC_SYSTEM_CALL(eventfd2),
    SHMRPC_SYSTEM_CALL(fcntl),
    SHMRPC_SYSTEM_CALL(fchmod),
    SHMRPC_SYSTEM_CALL(flock),
    SHMRPC_SYSTEM_CALL(fstatfs),
    SHMRPC_SYSTEM_CALL(ftruncate),
    SHMRPC_SYSTEM_CALL(getpeername),
    SHMRPC_SYSTEM_CALL(getpriority),
    SHMRPC_SYSTEM_CALL(getrandom),
    SHMRPC_SYSTEM_CALL(getsockname),
    SHMRPC_SYSTEM_CALL(getsockopt),
    SHMRPC_SYSTEM_CALL(kcmp),
    SHMRPC_SYSTEM_CALL(listen),
    SHMRPC_SYSTEM_CALL(madvise),
    SHMRPC_SYSTEM_CALL(membarrier),
    SHMRPC_SYSTEM_CALL(memfd_create),
    SHMRPC_SYSTEM_CALL(newfstatat),
    SHMRPC_SYSTEM_CALL(openat),
    SHMRPC_SYSTEM_CALL(ppoll),
    SHMRPC_SYSTEM_CALL(prctl),
    SHMRPC_SYSTEM_CALL(recvfrom),
    SHMRPC_SYSTEM_CALL(rt_sigprocmask),
    SHMRPC_SYSTEM_CALL(sched_getaffinity),
    SHMRPC_SYSTEM_CALL(sched_getscheduler),
    SHMRPC_SYSTEM_CALL(sched_setaffinity),
    SHMRPC_SYSTEM_CALL(sched_yield),
    SHMRPC_SYSTEM_CALL(setpriority),
    SHMRPC_SYSTEM_CALL(setsockopt),
    SHMRPC_SYSTEM_CALL(shutdown),
    SHMRPC_SYSTEM_CALL(socket),
    SHMRPC_SYSTEM_CALL(statx),
    SHMRPC_SYSTEM_CALL(sysinfo),
    SHMRPC_SYSTEM_CALL(unlinkat),
};
#undef SHMRPC_SYSTEM_CALL

// From now on the kernel answers this call of the process with `error`. False when there is no seccomp.
inline bool Refuse(unsigned number, int error) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {sizeof filter / sizeof filter[0], filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_REFUSED_CALLS_H_
