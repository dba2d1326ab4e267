// A camera makes frames at its own pace, on its own thread; each subscriber has a coroutine that waits for the next
// one, or for its client to go. No thread is kept by a subscriber that waits.

#include <atomic>
#include <iostream>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "frames.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

// Gives each frame to all who have subscribed.
class FrameSource {
 public:
  FrameSource() : thread_([this] { MakeFrames(); }) {}
  ~FrameSource() {
    over_ = true;
    thread_.join();
  }

  void Add(shmrpc::Queue<frames::Frame>* subscriber) {
    std::lock_guard<std::mutex> lock(mutex_);
    subscribers_.insert(subscriber);
  }
  void Remove(shmrpc::Queue<frames::Frame>* subscriber) {
    std::lock_guard<std::mutex> lock(mutex_);
    subscribers_.erase(subscriber);
  }

 private:
  void MakeFrames() {
    frames::Frame frame;
    for (int64_t number = 1; !over_; ++number) {
      frame.set_number(number);
      frame.set_pixels(std::string(100'000, static_cast<char>(number)));
      {
        // With the lock: no subscriber goes on inside, so none can wait for it.
        std::lock_guard<std::mutex> lock(mutex_);
        for (shmrpc::Queue<frames::Frame>* subscriber : subscribers_) subscriber->PushDroppingOldest(frame);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  std::mutex mutex_;
  std::set<shmrpc::Queue<frames::Frame>*> subscribers_;
  std::atomic<bool> over_{false};
  std::thread thread_;
};

class CameraImpl final : public frames::Camera::CoService {
 public:
  shmrpc::Task<absl::Status> Subscribe(shmrpc::ServerContext* context, const frames::SubscribeRequest*,
                                       shmrpc::CoServerWriter<frames::Frame>* writer) override {
    shmrpc::Queue<frames::Frame> queue(/*capacity=*/2);
    source_.Add(&queue);
    // Pop ends with the next frame, or when the call is cancelled, past its deadline, or its client is gone.
    while (std::optional<frames::Frame> frame = co_await queue.Pop(context->stop_token())) {
      if (!co_await writer->Write(*frame)) break;
    }
    source_.Remove(&queue);
    std::cout << "a subscriber has gone" << std::endl;
    co_return absl::OkStatus();
  }

 private:
  FrameSource source_;
};

int main() {
  CameraImpl camera;
  auto server = shmrpc::ServerBuilder().Listen("127.0.0.1:0").Register(&camera).Start();
  if (!server.ok()) {
    std::cerr << server.status() << std::endl;
    return 1;
  }
  frames::Camera::Stub stub(shmrpc::Channel::Create((*server)->addresses()[0].ToString()));
  shmrpc::ClientContext context;
  auto reader = stub.Subscribe(&context, frames::SubscribeRequest());
  frames::Frame frame;  // one for all frames: its memory is used again
  for (int i = 0; i < 5 && reader->Read(&frame); ++i) std::cout << "frame " << frame.number() << std::endl;
  context.TryCancel();
  std::cout << reader->Finish() << std::endl;
  (*server)->Shutdown(absl::Now() + absl::Seconds(5));
}
