#include "fixture.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"

namespace shmrpc::conformance {

bool UnderSanitizer() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#else
  return false;
#endif
}

int Scaled(int count) { return UnderSanitizer() ? (count + 9) / 10 : count; }

std::string RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed * 1000003 + size);
  std::string bytes(size, '\0');
  size_t position = 0;
  for (; position + sizeof(uint64_t) <= size; position += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(&bytes[position], &word, sizeof(word));
  }
  for (; position < size; ++position) bytes[position] = static_cast<char>(random());
  return bytes;
}

void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

TemporaryDirectory::TemporaryDirectory() {
  path_ = absl::StrCat(std::filesystem::temp_directory_path().string(), "/shmrpc-conformance-XXXXXX");
  if (mkdtemp(path_.data()) == nullptr) {
    ADD_FAILURE() << "cannot make the directory " << path_ << ": " << strerror(errno);
  }
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

ConformanceTest::ConformanceTest() : listen_address_(NewListenAddress()) {
  // The cases say themselves which way to go.
  unsetenv("SHMRPC_TRANSPORT");
}

ConformanceTest::~ConformanceTest() {
  service_.Release();  // a failed test may have left calls behind, which would hold up the server's end
}

std::string ConformanceTest::NewListenAddress() const {
  static std::atomic<int> next_number{0};
  return absl::StrReplaceAll(
      GetParam().listen,
      {{"{directory}", directory_.path()}, {"{unique}", absl::StrCat("conformance-", getpid(), "-", next_number++)}});
}

ServerBuilder ConformanceTest::NewServerBuilder() {
  ServerBuilder builder(GetParam().transports());
  builder.Register(&service_);
  return builder;
}

void ConformanceTest::StartServer() { StartServer(NewServerBuilder(), listen_address_); }

void ConformanceTest::StartServer(ServerBuilder builder, std::string_view address) {
  absl::StatusOr<std::unique_ptr<Server>> server = builder.Listen(address).Start();
  if (!server.ok()) GTEST_FAIL() << "cannot start a server at " << address << ": " << server.status();
  server_ = *std::move(server);
}

std::string ConformanceTest::server_address() const {
  return server_ == nullptr ? listen_address_ : server_->addresses().front().ToString();
}

ChannelOptions ConformanceTest::NewChannelOptions() const {
  ChannelOptions options;
  options.transport = GetParam().preference;
  options.initial_backoff = absl::Milliseconds(10);
  options.max_backoff = absl::Milliseconds(100);
  return options;
}

std::shared_ptr<Channel> ConformanceTest::NewChannel(const ChannelOptions& options) const {
  return Channel::Create(server_address(), options, GetParam().transports());
}

std::shared_ptr<Channel> ConformanceTest::NewChannelTo(std::string_view address) const {
  return Channel::Create(address, NewChannelOptions(), GetParam().transports());
}

void ConformanceTest::ExpectEcho(const std::shared_ptr<Channel>& channel, const std::string& payload) {
  Echo::Stub stub(channel);
  EchoRequest request;
  request.set_payload(payload);
  const absl::StatusOr<EchoReply> reply = stub.Echo(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  // Not EXPECT_EQ, which would print both.
  EXPECT_TRUE(reply->payload() == payload)
      << "the payload of " << payload.size() << " bytes came back changed, as " << reply->payload().size() << " bytes";
}

void ConformanceTest::ExpectEchoWhenReady(const std::shared_ptr<Channel>& channel) {
  Echo::Stub stub(channel);
  ClientContext context;
  context.set_wait_for_ready(true);
  context.set_timeout(kHangGuard);
  EchoRequest request;
  request.set_payload("ready");
  EchoReply reply;
  absl::Status status = stub.Echo(&context, request, &reply);
  // Where nobody knows whether a lost call had begun, the caller has to decide whether it may be repeated.
  while (!GetParam().proves_not_processed && absl::IsUnavailable(status)) {
    ClientContext again;
    again.set_wait_for_ready(true);
    again.set_timeout(kHangGuard);
    status = stub.Echo(&again, request, &reply);
  }
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(reply.payload(), "ready");
}

}  // namespace shmrpc::conformance
