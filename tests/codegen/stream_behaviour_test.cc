// What generated code does for streaming methods: the tables of the three kinds of servers, every form of the stub
// against each of them, and mocks.

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "behaviour.shmrpc.mock.pb.h"
#include "behaviour.shmrpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/shmrpc.h"
#include "tests/codegen/echo_services.h"

namespace behaviour {
namespace {

using ::google::protobuf::MessageLite;
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsNull;

const shmrpc::ServiceMethod& MethodOf(const shmrpc::Service& service, std::string_view name) {
  for (const shmrpc::ServiceMethod& method : service.ShmrpcMethods()) {
    if (std::string_view(method.path).ends_with("/" + std::string(name))) return method;
  }
  ADD_FAILURE() << "no method " << name;
  return service.ShmrpcMethods()[0];
}

TEST(GeneratedTableTest, TellsKindsAndTypesInAllServices) {
  const SyncEcho sync;
  const CallbackEcho callback;
  const CoEcho coroutine;
  for (const shmrpc::Service* service : std::vector<const shmrpc::Service*>{&sync, &callback, &coroutine}) {
    EXPECT_EQ(service->ShmrpcServiceName(), "behaviour.Echo");
    EXPECT_EQ(service->ShmrpcMethods().size(), 6u);
    EXPECT_EQ(MethodOf(*service, "Say").kind, shmrpc::MethodKind::kUnary);
    EXPECT_EQ(MethodOf(*service, "Spell").kind, shmrpc::MethodKind::kServerStreaming);
    EXPECT_EQ(MethodOf(*service, "Join").kind, shmrpc::MethodKind::kClientStreaming);
    EXPECT_EQ(MethodOf(*service, "Talk").kind, shmrpc::MethodKind::kBidiStreaming);
    for (const shmrpc::ServiceMethod& method : service->ShmrpcMethods()) {
      EXPECT_EQ(&method.request_prototype(), &Request::default_instance());
      EXPECT_EQ(&method.reply_prototype(), &Reply::default_instance());
      EXPECT_EQ(method.invoke != nullptr, service == &sync);
      EXPECT_EQ(method.react != nullptr, service == &callback);
      EXPECT_EQ(method.co_invoke != nullptr, service == &coroutine);
    }
  }
}

// Gives the requests that a test has put in, and keeps the replies.
struct Script {
  bool Read(MessageLite* message) {
    if (requests.empty()) return false;
    *static_cast<Request*>(message) = MakeRequest(requests.front());
    requests.pop_front();
    return true;
  }
  void Write(const MessageLite& message) { replies.push_back(static_cast<const Reply&>(message).text()); }

  std::deque<std::string> requests;
  std::vector<std::string> replies;
};

class ScriptedStream final : public shmrpc::ServerStream, public Script {
 public:
  bool Read(MessageLite* message) override { return Script::Read(message); }
  bool Write(const MessageLite& message) override {
    Script::Write(message);
    return true;
  }
  void SendInitialMetadata() override {}
};

TEST(GeneratedTableTest, InvokesHandlersThatWait) {
  SyncEcho echo;
  const Request request = MakeRequest("ab");
  ScriptedStream spell;
  EXPECT_TRUE(MethodOf(echo, "Spell").invoke(&echo, nullptr, &request, nullptr, &spell).ok());
  EXPECT_THAT(spell.replies, ElementsAre("a", "b"));

  Reply reply;
  ScriptedStream join;
  join.requests = {"x", "y"};
  EXPECT_TRUE(MethodOf(echo, "Join").invoke(&echo, nullptr, nullptr, &reply, &join).ok());
  EXPECT_EQ(reply.text(), "xy");

  ScriptedStream talk;
  talk.requests = {"x", "y"};
  EXPECT_TRUE(MethodOf(echo, "Talk").invoke(&echo, nullptr, nullptr, nullptr, &talk).ok());
  EXPECT_THAT(talk.replies, ElementsAre("x", "y"));
}

class CoScriptedStream final : public shmrpc::CoServerStream, public Script {
 public:
  bool StartRead(MessageLite* message, bool* ok, std::coroutine_handle<>) override {
    *ok = Read(message);
    return false;
  }
  bool StartWrite(const MessageLite& message, bool* ok, std::coroutine_handle<>) override {
    Write(message);
    *ok = true;
    return false;
  }
  void SendInitialMetadata() override {}
};

TEST(GeneratedTableTest, InvokesCoroutines) {
  CoEcho echo;
  const Request request = MakeRequest("ab");
  Reply reply;
  EXPECT_TRUE(shmrpc::SyncWait(MethodOf(echo, "Say").co_invoke(&echo, nullptr, &request, &reply, nullptr)).ok());
  EXPECT_EQ(reply.text(), "say ab");

  CoScriptedStream spell;
  EXPECT_TRUE(shmrpc::SyncWait(MethodOf(echo, "Spell").co_invoke(&echo, nullptr, &request, nullptr, &spell)).ok());
  EXPECT_THAT(spell.replies, ElementsAre("a", "b"));

  reply.Clear();
  CoScriptedStream join;
  join.requests = {"x", "y"};
  EXPECT_TRUE(shmrpc::SyncWait(MethodOf(echo, "Join").co_invoke(&echo, nullptr, nullptr, &reply, &join)).ok());
  EXPECT_EQ(reply.text(), "xy");

  CoScriptedStream talk;
  talk.requests = {"x", "y"};
  EXPECT_TRUE(shmrpc::SyncWait(MethodOf(echo, "Talk").co_invoke(&echo, nullptr, nullptr, nullptr, &talk)).ok());
  EXPECT_THAT(talk.replies, ElementsAre("x", "y"));
}

TEST(GeneratedTableTest, DefaultsOfStreamingMethodsAreUnimplemented) {
  const Request request;
  Reply reply;
  OnlyStreaming::Service sync;
  EXPECT_EQ(sync.Spell(nullptr, &request, nullptr).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(sync.Join(nullptr, nullptr, &reply).code(), absl::StatusCode::kUnimplemented);
  const absl::Status status = sync.Talk(nullptr, nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/behaviour.OnlyStreaming/Talk"));

  OnlyStreaming::CoService coroutine;
  EXPECT_EQ(shmrpc::SyncWait(coroutine.Spell(nullptr, &request, nullptr)).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(shmrpc::SyncWait(coroutine.Join(nullptr, nullptr, &reply)).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(shmrpc::SyncWait(coroutine.Talk(nullptr, nullptr)), status);
}

// The stub against servers of all styles.

struct ServerStyle {
  const char* name;
  std::unique_ptr<shmrpc::Service> (*make_echo)();
  std::unique_ptr<shmrpc::Service> (*make_unimplemented)();
};

template <typename T>
std::unique_ptr<shmrpc::Service> Make() {
  return std::make_unique<T>();
}

const ServerStyle kServerStyles[] = {{"Sync", Make<SyncEcho>, Make<OnlyStreaming::Service>},
                                     {"Callback", Make<CallbackEcho>, Make<OnlyStreaming::CallbackService>},
                                     {"Coroutine", Make<CoEcho>, Make<OnlyStreaming::CoService>}};

class GeneratedStubTest : public ::testing::TestWithParam<ServerStyle> {
 protected:
  void SetUp() override {
    const std::string address = absl::StrCat("inproc:", testing::UnitTest::GetInstance()->current_test_info()->name());
    absl::StatusOr<std::unique_ptr<shmrpc::Server>> server =
        shmrpc::ServerBuilder().Listen(address).Register(echo_.get()).Register(unimplemented_.get()).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const std::shared_ptr<shmrpc::Channel> channel = shmrpc::Channel::Create(address);
    stub_ = std::make_unique<Echo::Stub>(channel);
    unimplemented_stub_ = std::make_unique<OnlyStreaming::Stub>(channel);
  }

  const std::unique_ptr<shmrpc::Service> echo_ = GetParam().make_echo();
  const std::unique_ptr<shmrpc::Service> unimplemented_ = GetParam().make_unimplemented();
  std::unique_ptr<shmrpc::Server> server_;
  std::unique_ptr<Echo::Stub> stub_;
  std::unique_ptr<OnlyStreaming::Stub> unimplemented_stub_;
};

INSTANTIATE_TEST_SUITE_P(Servers, GeneratedStubTest, ::testing::ValuesIn(kServerStyles),
                         [](const ::testing::TestParamInfo<ServerStyle>& info) { return info.param.name; });

TEST_P(GeneratedStubTest, CallsThatWait) {
  const absl::StatusOr<Reply> said = stub_->Say(MakeRequest("x"));
  ASSERT_TRUE(said.ok()) << said.status();
  EXPECT_EQ(said->text(), "say x");
  EXPECT_EQ(stub_->Say(Request()).status(), absl::InvalidArgumentError("nothing to say"));
  EXPECT_EQ(stub_->Forgotten(Request()).status().code(), absl::StatusCode::kUnimplemented);

  shmrpc::ClientContext spell_context;
  const std::unique_ptr<shmrpc::ClientReader<Reply>> spell = stub_->Spell(&spell_context, MakeRequest("ab"));
  Reply reply;
  EXPECT_TRUE(spell->Read(&reply));
  EXPECT_EQ(reply.text(), "a");
  EXPECT_TRUE(spell->Read(&reply));
  EXPECT_EQ(reply.text(), "b");
  EXPECT_FALSE(spell->Read(&reply));
  EXPECT_EQ(spell->Finish(), absl::OkStatus());

  shmrpc::ClientContext join_context;
  Reply joined;
  const std::unique_ptr<shmrpc::ClientWriter<Request>> join = stub_->Join(&join_context, &joined);
  EXPECT_TRUE(join->Write(MakeRequest("x")));
  EXPECT_TRUE(join->WriteLast(MakeRequest("y")));
  EXPECT_EQ(join->Finish(), absl::OkStatus());
  EXPECT_EQ(joined.text(), "xy");

  shmrpc::ClientContext talk_context;
  const std::unique_ptr<shmrpc::ClientReaderWriter<Request, Reply>> talk = stub_->Talk(&talk_context);
  for (const char* text : {"x", "y"}) {
    EXPECT_TRUE(talk->Write(MakeRequest(text)));
    EXPECT_TRUE(talk->Read(&reply));
    EXPECT_EQ(reply.text(), text);
  }
  EXPECT_TRUE(talk->WritesDone());
  EXPECT_FALSE(talk->Read(&reply));
  EXPECT_EQ(talk->Finish(), absl::OkStatus());
}

// What the reactors below share: they live in the test, which waits for OnDone.
template <typename Base>
class WaitingReactor : public Base {
 public:
  void OnDone(const absl::Status& status) override {
    status_ = status;
    done_.Notify();
  }
  absl::Status Wait() {
    done_.WaitForNotification();
    return status_;
  }

 private:
  absl::Notification done_;
  absl::Status status_;
};

class Reader final : public WaitingReactor<shmrpc::ClientReadReactor<Reply>> {
 public:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    text += reply.text();
    StartRead(&reply);
  }

  Reply reply;
  std::string text;
};

class Writer final : public WaitingReactor<shmrpc::ClientWriteReactor<Request>> {
 public:
  void OnWriteDone(bool ok) override {
    if (ok && request.text() == "x") Last();
  }
  void Last() {
    request = MakeRequest("y");
    StartWriteLast(&request);
  }

  Request request = MakeRequest("x");
};

// Writes the next message when the previous one has been written and its answer has been read: either may be told
// first.
class Talker final : public WaitingReactor<shmrpc::ClientBidiReactor<Request, Reply>> {
 public:
  void OnWriteDone(bool ok) override {
    if (ok) Next();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    text += reply.text();
    Next();
    StartRead(&reply);
  }

  Request request = MakeRequest("x");
  Reply reply;
  std::string text;

 private:
  void Next() {
    if (++answers_ % 2 != 0) return;
    if (answers_ == 4) return StartWritesDone();
    request = MakeRequest("y");
    StartWrite(&request);
  }

  int answers_ = 0;
};

TEST_P(GeneratedStubTest, CallsWithReactors) {
  const Request request = MakeRequest("ab");
  shmrpc::ClientContext spell_context;
  Reader reader;
  stub_->async().Spell(&spell_context, &request, &reader);
  reader.StartRead(&reader.reply);
  reader.StartCall();
  EXPECT_EQ(reader.Wait(), absl::OkStatus());
  EXPECT_EQ(reader.text, "ab");

  shmrpc::ClientContext join_context;
  Reply joined;
  Writer writer;
  stub_->async().Join(&join_context, &joined, &writer);
  writer.StartWrite(&writer.request);
  writer.StartCall();
  EXPECT_EQ(writer.Wait(), absl::OkStatus());
  EXPECT_EQ(joined.text(), "xy");

  shmrpc::ClientContext talk_context;
  Talker talker;
  stub_->async().Talk(&talk_context, &talker);
  talker.StartRead(&talker.reply);
  talker.StartWrite(&talker.request);
  talker.StartCall();
  EXPECT_EQ(talker.Wait(), absl::OkStatus());
  EXPECT_EQ(talker.text, "xy");
}

// Returns what the calls have returned, or the first error.
shmrpc::Task<absl::StatusOr<std::string>> CallWithCoroutines(Echo::StubInterface* stub) {
  const Request request = MakeRequest("ab");
  const absl::StatusOr<Reply> said = co_await stub->co().Say(request);
  if (!said.ok()) co_return said.status();
  std::string text = said->text();

  shmrpc::ClientContext say_context;
  const absl::StatusOr<Reply> said_again = co_await stub->co().class_(&say_context, request);
  if (!said_again.ok()) co_return said_again.status();
  absl::StrAppend(&text, ", ", said_again->text());

  shmrpc::ClientContext spell_context;
  shmrpc::CoClientReader<Reply> spell = stub->co().Spell(&spell_context, request);
  while (std::optional<Reply> reply = co_await spell.Read()) absl::StrAppend(&text, ", ", reply->text());
  const absl::Status spell_status = co_await spell.Finish();
  if (!spell_status.ok()) co_return spell_status;

  shmrpc::ClientContext join_context;
  shmrpc::CoClientWriter<Request, Reply> join = stub->co().Join(&join_context);
  const bool written = co_await join.Write(request);
  if (!written) co_return absl::UnknownError("cannot write");
  const bool writes_done = co_await join.WritesDone();
  if (!writes_done) co_return absl::UnknownError("cannot half-close");
  const absl::StatusOr<Reply> joined = co_await join.Finish();
  if (!joined.ok()) co_return joined.status();
  absl::StrAppend(&text, ", ", joined->text());

  shmrpc::ClientContext talk_context;
  shmrpc::CoClientReaderWriter<Request, Reply> talk = stub->co().Talk(&talk_context);
  const bool sent = co_await talk.Write(request);
  if (!sent) co_return absl::UnknownError("cannot write");
  const std::optional<Reply> answer = co_await talk.Read();
  if (!answer.has_value()) co_return absl::UnknownError("cannot read");
  absl::StrAppend(&text, ", ", answer->text());
  const absl::Status talk_status = co_await talk.Finish();
  if (!talk_status.ok()) co_return talk_status;
  co_return text;
}

TEST_P(GeneratedStubTest, CallsOfCoroutines) {
  const absl::StatusOr<std::string> text = shmrpc::SyncWait(CallWithCoroutines(stub_.get()));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "say ab, class ab, a, b, ab, ab");
}

TEST_P(GeneratedStubTest, WhatIsNotOverriddenIsUnimplemented) {
  shmrpc::ClientContext spell_context;
  EXPECT_EQ(unimplemented_stub_->Spell(&spell_context, Request())->Finish().code(), absl::StatusCode::kUnimplemented);
  shmrpc::ClientContext join_context;
  Reply reply;
  EXPECT_EQ(unimplemented_stub_->Join(&join_context, &reply)->Finish().code(), absl::StatusCode::kUnimplemented);
  shmrpc::ClientContext talk_context;
  const absl::Status status = unimplemented_stub_->Talk(&talk_context)->Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/behaviour.OnlyStreaming/Talk"));
}

// Mocks.

// A stream without a server: Read gives the replies of the test, Write keeps the requests.
class FakeStream final : public shmrpc::ClientStream {
 public:
  FakeStream(std::deque<std::string> replies, std::vector<std::string>* requests, absl::Status status)
      : replies_(std::move(replies)), requests_(requests), status_(std::move(status)) {}

  bool Read(MessageLite* message) override {
    if (replies_.empty()) return false;
    *static_cast<Reply*>(message) = MakeReply(replies_.front());
    replies_.pop_front();
    return true;
  }
  bool Write(const MessageLite& message, bool last) override {
    requests_->push_back(static_cast<const Request&>(message).text());
    return true;
  }
  bool WritesDone() override { return true; }
  void WaitForInitialMetadata() override {}
  absl::Status Finish() override { return status_; }

 private:
  std::deque<std::string> replies_;
  std::vector<std::string>* const requests_;
  const absl::Status status_;
};

TEST(GeneratedMockTest, StreamingMethodsThatWait) {
  MockEchoStub mock;
  EXPECT_CALL(mock, Spell(IsNull(), _)).WillOnce([](shmrpc::ClientContext*, const Request& request) {
    return std::make_unique<shmrpc::ClientReader<Reply>>(std::make_unique<FakeStream>(
        std::deque<std::string>{request.text(), "2"}, nullptr, absl::UnavailableError("gone")));
  });
  std::vector<std::string> joined;
  EXPECT_CALL(mock, Join(IsNull(), _)).WillOnce([&](shmrpc::ClientContext*, Reply* reply) {
    *reply = MakeReply("all");
    return std::make_unique<shmrpc::ClientWriter<Request>>(
        std::make_unique<FakeStream>(std::deque<std::string>(), &joined, absl::OkStatus()));
  });
  std::vector<std::string> said;
  EXPECT_CALL(mock, Talk(IsNull())).WillOnce([&](shmrpc::ClientContext*) {
    return std::make_unique<shmrpc::ClientReaderWriter<Request, Reply>>(
        std::make_unique<FakeStream>(std::deque<std::string>{"answer"}, &said, absl::OkStatus()));
  });

  Echo::StubInterface& stub = mock;
  Reply reply;
  const std::unique_ptr<shmrpc::ClientReader<Reply>> spell = stub.Spell(nullptr, MakeRequest("1"));
  EXPECT_TRUE(spell->Read(&reply));
  EXPECT_EQ(reply.text(), "1");
  EXPECT_TRUE(spell->Read(&reply));
  EXPECT_FALSE(spell->Read(&reply));
  EXPECT_EQ(spell->Finish(), absl::UnavailableError("gone"));

  const std::unique_ptr<shmrpc::ClientWriter<Request>> join = stub.Join(nullptr, &reply);
  EXPECT_TRUE(join->WriteLast(MakeRequest("part")));
  EXPECT_EQ(join->Finish(), absl::OkStatus());
  EXPECT_EQ(reply.text(), "all");
  EXPECT_THAT(joined, ElementsAre("part"));

  const std::unique_ptr<shmrpc::ClientReaderWriter<Request, Reply>> talk = stub.Talk(nullptr);
  EXPECT_TRUE(talk->Write(MakeRequest("question")));
  EXPECT_TRUE(talk->Read(&reply));
  EXPECT_EQ(reply.text(), "answer");
  EXPECT_THAT(said, ElementsAre("question"));
}

TEST(GeneratedMockTest, UnaryMethodsForCoroutines) {
  MockEchoStub mock;
  EXPECT_CALL(mock.co(), Say(IsNull(), _))
      .WillOnce([](shmrpc::ClientContext*, const Request& request) {
        return shmrpc::CoUnaryCall<Reply>(MakeReply(request.text()));
      })
      .WillOnce([](shmrpc::ClientContext*, const Request&) {
        return shmrpc::CoUnaryCall<Reply>(absl::UnavailableError("gone"));
      });
  const auto say = [](Echo::StubInterface* stub) -> shmrpc::Task<std::string> {
    const Request request = MakeRequest("x");
    const absl::StatusOr<Reply> first = co_await stub->co().Say(request);
    const absl::StatusOr<Reply> second = co_await stub->co().Say(nullptr, request);
    if (!first.ok()) co_return first.status().ToString();
    co_return absl::StrCat(first->text(), ", ", second.status().ToString());
  };
  EXPECT_EQ(shmrpc::SyncWait(say(&mock)), "x, UNAVAILABLE: gone");
}

TEST(GeneratedMockTest, StreamingMethodsWithReactors) {
  MockEchoStub mock;
  Reader reader;
  Writer writer;
  Talker talker;
  const Request request;
  Reply reply;
  EXPECT_CALL(mock.async(), Spell(_, &request, &reader));
  EXPECT_CALL(mock.async(), Join(_, &reply, &writer));
  EXPECT_CALL(mock.async(), Talk(_, &talker));
  Echo::StubInterface& stub = mock;
  stub.async().Spell(nullptr, &request, &reader);
  stub.async().Join(nullptr, &reply, &writer);
  stub.async().Talk(nullptr, &talker);
}

}  // namespace
}  // namespace behaviour
