#include "runtime/src/message_pool.h"

#include <string>
#include <thread>
#include <vector>

#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"

namespace shmrpc::internal {
namespace {

using ::google::protobuf::StringValue;

const google::protobuf::MessageLite& Prototype() { return StringValue::default_instance(); }

constexpr ServiceMethod kMethod = {
    .path = "/a.Service/Method",
    .kind = MethodKind::kUnary,
    .request_prototype = &Prototype,
    .reply_prototype = &Prototype,
};

StringValue* AsString(google::protobuf::MessageLite* message) { return static_cast<StringValue*>(message); }

TEST(MessagePoolTest, KeepsMemoryButNoContents) {
  MessagePool pool(&kMethod);
  const void* request;
  const char* bytes;
  {
    MessagePool::Lease messages(&pool);
    request = messages.request();
    AsString(messages.request())->mutable_value()->assign(1000, 'x');
    AsString(messages.reply())->set_value("secret");
    bytes = AsString(messages.request())->value().data();
    messages.NoteSize(1000);
  }
  MessagePool::Lease messages(&pool);
  EXPECT_EQ(messages.request(), request);
  EXPECT_EQ(AsString(messages.request())->value(), "");
  EXPECT_EQ(AsString(messages.reply())->value(), "");
  AsString(messages.request())->mutable_value()->assign(1000, 'y');
  EXPECT_EQ(AsString(messages.request())->value().data(), bytes);
}

TEST(MessagePoolTest, DoesNotKeepLargeMessages) {
  MessagePool pool(&kMethod);
  {
    MessagePool::Lease messages(&pool);
    AsString(messages.reply())->mutable_value()->reserve(100'000);
    messages.NoteSize(1);
    messages.NoteSize(100'000);
    messages.NoteSize(1);
  }
  MessagePool::Lease messages(&pool);
  EXPECT_LT(AsString(messages.reply())->mutable_value()->capacity(), 100'000u);
}

TEST(MessagePoolTest, KeepsNothingForEver) {
  MessagePool pool(&kMethod);
  {
    MessagePool::Lease messages(&pool);
    AsString(messages.reply())->mutable_value()->reserve(100'000);
  }
  // What was there when the size was not told goes in the end.
  size_t capacity = 100'000;
  for (int i = 0; i < 20'000 && capacity >= 100'000; ++i) {
    MessagePool::Lease messages(&pool);
    capacity = AsString(messages.reply())->mutable_value()->capacity();
  }
  EXPECT_LT(capacity, 100'000u);
}

TEST(MessagePoolTest, CallsWithinCallsHaveMessagesOfTheirOwn) {
  MessagePool pool(&kMethod);
  MessagePool::Lease outer(&pool);
  AsString(outer.request())->set_value("outer");
  {
    MessagePool::Lease inner(&pool);
    EXPECT_NE(inner.request(), outer.request());
    EXPECT_EQ(AsString(inner.request())->value(), "");
    MessagePool::Lease innermost(&pool);
    EXPECT_NE(innermost.request(), inner.request());
  }
  EXPECT_EQ(AsString(outer.request())->value(), "outer");
}

TEST(MessagePoolTest, ManyThreadsTakeAndGive) {
  MessagePool pool(&kMethod);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&pool, i] {
      const std::string mine(100, static_cast<char>('a' + i));
      for (int j = 0; j < 5000; ++j) {
        MessagePool::Lease messages(&pool);
        ASSERT_EQ(AsString(messages.request())->value(), "");
        AsString(messages.request())->set_value(mine);
        ASSERT_EQ(AsString(messages.request())->value(), mine);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace shmrpc::internal
