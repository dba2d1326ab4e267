#ifndef SHMRPC_TESTING_H_
#define SHMRPC_TESTING_H_

// What tests of code that calls streaming methods need besides the generated mock of the stub: the streams themselves,
// without a channel. For programs that have GoogleTest's gMock; the library's other headers do not include this one.
//
//   auto points = std::make_unique<shmrpc::testing::MockClientReader<Point>>();
//   EXPECT_CALL(*points, Read(_)).WillOnce(DoAll(SetArgPointee<0>(point), Return(true))).WillOnce(Return(false));
//   EXPECT_CALL(*points, Finish()).WillOnce(Return(absl::OkStatus()));
//
//   // The form that waits.
//   EXPECT_CALL(stub, ListPoints(_, _))
//       .WillOnce(Return(ByMove(std::make_unique<shmrpc::ClientReader<Point>>(std::move(points)))));
//
//   // Or the coroutine form: the same mock, whose functions are called where the coroutine awaits them.
//   EXPECT_CALL(stub.co(), ListPoints(_, _)).WillOnce([&](auto&&...) {
//     return shmrpc::CoClientReader<Point>(std::move(points));
//   });
//
// For a coroutine that uses a CoClientWriter the reply is given to its constructor, and for a caller that waits the
// action of the stub's mock fills it in.

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/client_coroutine.h"
#include "shmrpc/client_stream.h"

namespace shmrpc::testing {

// Behind a ClientReader<R> or CoClientReader<R>.
template <typename R>
class MockClientReader : public ClientStream {
 public:
  MOCK_METHOD(bool, Read, (R * message));
  MOCK_METHOD(void, WaitForInitialMetadata, (), (override));
  MOCK_METHOD(absl::Status, Finish, (), (override));

 private:
  bool Read(google::protobuf::MessageLite* message) final { return Read(static_cast<R*>(message)); }
  bool Write(const google::protobuf::MessageLite&, bool) final { return false; }
  bool WritesDone() final { return false; }
};

// Behind a ClientWriter<W> or CoClientWriter<W, Reply>. `last`: it was WriteLast.
template <typename W>
class MockClientWriter : public ClientStream {
 public:
  MOCK_METHOD(bool, Write, (const W& message, bool last));
  MOCK_METHOD(bool, WritesDone, (), (override));
  MOCK_METHOD(void, WaitForInitialMetadata, (), (override));
  MOCK_METHOD(absl::Status, Finish, (), (override));

 private:
  bool Read(google::protobuf::MessageLite*) final { return false; }
  bool Write(const google::protobuf::MessageLite& message, bool last) final {
    return Write(static_cast<const W&>(message), last);
  }
};

// Behind a ClientReaderWriter<W, R> or CoClientReaderWriter<W, R>.
template <typename W, typename R>
class MockClientReaderWriter : public ClientStream {
 public:
  MOCK_METHOD(bool, Read, (R * message));
  MOCK_METHOD(bool, Write, (const W& message, bool last));
  MOCK_METHOD(bool, WritesDone, (), (override));
  MOCK_METHOD(void, WaitForInitialMetadata, (), (override));
  MOCK_METHOD(absl::Status, Finish, (), (override));

 private:
  bool Read(google::protobuf::MessageLite* message) final { return Read(static_cast<R*>(message)); }
  bool Write(const google::protobuf::MessageLite& message, bool last) final {
    return Write(static_cast<const W&>(message), last);
  }
};

}  // namespace shmrpc::testing

#endif  // SHMRPC_TESTING_H_
