#ifndef SHMRPC_TESTS_INTEROP_CASES_H_
#define SHMRPC_TESTS_INTEROP_CASES_H_

// What the clients of the matrix have in common: the cases' names and numbers, and the main function of a peer.

#include <cstdint>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace shmrpc::interop {

inline constexpr int kLargeRequestBytes = 271828;
inline constexpr int kLargeResponseBytes = 314159;
inline constexpr int kRequestSizes[] = {27182, 8, 1828, 45904};
inline constexpr int kResponseSizes[] = {31415, 9, 2653, 58979};
inline constexpr int kSoakCalls = 1000;
inline constexpr int kConcurrentCalls = 1000;

inline const char kEchoInitialKey[] = "x-grpc-test-echo-initial";
inline const char kEchoInitialValue[] = "test_initial_metadata_value";
inline const char kEchoTrailingKey[] = "x-grpc-test-echo-trailing-bin";
inline const std::string kEchoTrailingValue = "\xab\xab\xab";
inline const std::string kStatusMessage = "test status message";
inline const std::string kSpecialMessage =
    "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n";

// A case fails by throwing; what() says what was expected and what came.
#define INTEROP_CHECK(condition, details)                  \
  do {                                                     \
    if (!(condition)) {                                    \
      std::ostringstream text;                             \
      text << #condition << " does not hold: " << details; \
      throw std::runtime_error(text.str());                \
    }                                                      \
  } while (false)

using Cases = std::map<std::string, std::function<void()>>;

// The cases of a C++ client: a class with a method for each.
template <typename Client>
Cases CasesOf(const std::shared_ptr<Client>& client) {
  const auto bind = [client](void (Client::*run)()) { return [client, run] { ((*client).*run)(); }; };
  return {
      {"empty_unary", bind(&Client::EmptyUnary)},
      {"large_unary", bind(&Client::LargeUnary)},
      {"client_streaming", bind(&Client::ClientStreaming)},
      {"server_streaming", bind(&Client::ServerStreaming)},
      {"ping_pong", bind(&Client::PingPong)},
      {"empty_stream", bind(&Client::EmptyStream)},
      {"custom_metadata", bind(&Client::CustomMetadata)},
      {"status_code_and_message", bind(&Client::StatusCodeAndMessage)},
      {"special_status_message", bind(&Client::SpecialStatusMessage)},
      {"unimplemented_method", bind(&Client::UnimplementedMethod)},
      {"unimplemented_service", bind(&Client::UnimplementedServiceCalled)},
      {"cancel_after_begin", bind(&Client::CancelAfterBegin)},
      {"cancel_after_first_response", bind(&Client::CancelAfterFirstResponse)},
      {"timeout_on_sleeping_server", bind(&Client::TimeoutOnSleepingServer)},
      {"concurrent_large_unary", bind(&Client::ConcurrentLargeUnary)},
      {"rpc_soak", bind(&Client::RpcSoak)},
      {"channel_soak", bind(&Client::ChannelSoak)},
      {"gzip", bind(&Client::Gzip)},
  };
}

// Runs the cases that are named; one line each on standard output: "NAME ok" or "NAME failed: why". 0 when all passed.
inline int RunCases(const Cases& cases, const std::vector<std::string>& names) {
  int failed = 0;
  for (const std::string& name : names) {
    std::string why;
    const auto found = cases.find(name);
    if (found == cases.end()) {
      why = "there is no such case";
    } else {
      try {
        found->second();
      } catch (const std::exception& error) {
        why = error.what();
      }
    }
    for (char& character : why) {
      if (character == '\n') character = ' ';
    }
    failed += why.empty() ? 0 : 1;
    std::cout << name << (why.empty() ? " ok" : " failed: ") << why << std::endl;
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace shmrpc::interop

#endif  // SHMRPC_TESTS_INTEROP_CASES_H_
