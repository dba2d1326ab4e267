#ifndef SHMRPC_TESTS_FAULT_FAILING_THREADS_H_
#define SHMRPC_TESTS_FAULT_FAILING_THREADS_H_

namespace shmrpc::conformance {

// From now on, of the threads that anything in this program starts, the `first`-th (1 is the next one) and the `count`
// that follow cannot be started (EAGAIN). Not under the sanitizers, which have to see threads begin themselves.
void FailThreads(int first, int count);

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_FAILING_THREADS_H_
