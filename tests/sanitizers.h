#ifndef SHMRPC_TESTS_SANITIZERS_H_
#define SHMRPC_TESTS_SANITIZERS_H_

// SHMRPC_TSAN: 1 in builds with ThreadSanitizer, which are many times slower, else 0. SHMRPC_ASAN: the same of
// AddressSanitizer.

#if defined(__SANITIZE_THREAD__)
#define SHMRPC_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHMRPC_TSAN 1
#endif
#endif
#ifndef SHMRPC_TSAN
#define SHMRPC_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SHMRPC_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHMRPC_ASAN 1
#endif
#endif
#ifndef SHMRPC_ASAN
#define SHMRPC_ASAN 0
#endif

#endif  // SHMRPC_TESTS_SANITIZERS_H_
