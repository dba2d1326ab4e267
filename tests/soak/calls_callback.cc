#include <utility>

#include "tests/soak/calls.h"

namespace shmrpc::soak {
namespace {

// The reactors delete themselves.
class Upload final : public ClientWriteReactor<Item> {
 public:
  Upload(ClientCall* call, conformance::Counter* ended) : call_(call), ended_(ended) {
    call_->channel().stub().async().Upload(call_->context(), call_->reply(), this);
    Next();
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (ok) Next();
  }
  void OnDone(const absl::Status& status) override {
    call_->End(status);
    ended_->Increment();
    delete this;
  }

 private:
  void Next() {
    if (written_ == call_->plan().items) return StartWritesDone();
    call_->MakeItem(written_++, &item_);
    StartWrite(&item_);
  }

  ClientCall* const call_;
  conformance::Counter* const ended_;
  uint32_t written_ = 0;
  Item item_;
};

class Download final : public ClientReadReactor<Item> {
 public:
  Download(ClientCall* call, conformance::Counter* ended) : call_(call), ended_(ended) {
    call_->channel().stub().async().Download(call_->context(), &call_->request(), this);
    StartRead(&item_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    call_->TakeItem(item_);
    // The status comes after the last item: a reactor that wants no more has to cancel.
    if (!call_->WantsItems()) return call_->Cancel();
    StartRead(&item_);
  }
  void OnDone(const absl::Status& status) override {
    call_->End(status);
    ended_->Increment();
    delete this;
  }

 private:
  ClientCall* const call_;
  conformance::Counter* const ended_;
  Item item_;
};

// Writes and reads independently of each other.
class Chat final : public ClientBidiReactor<Item, Item> {
 public:
  Chat(ClientCall* call, conformance::Counter* ended) : call_(call), ended_(ended) {
    call_->channel().stub().async().Chat(call_->context(), this);
    Next();
    StartRead(&read_);
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (ok && written_ < call_->plan().items) Next();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    call_->TakeItem(read_);
    if (!call_->WantsItems()) return call_->Cancel();
    StartRead(&read_);
  }
  void OnDone(const absl::Status& status) override {
    call_->End(status);
    ended_->Increment();
    delete this;
  }

 private:
  void Next() {
    const uint32_t items = call_->plan().items;
    if (written_ == items) return StartWritesDone();
    call_->MakeItem(written_++, &write_);
    if (written_ == items) return StartWriteLast(&write_);
    StartWrite(&write_);
  }

  ClientCall* const call_;
  conformance::Counter* const ended_;
  uint32_t written_ = 0;
  Item write_;
  Item read_;
};

}  // namespace

void StartCallback(ClientCall* call, conformance::Counter* ended) {
  switch (call->plan().kind) {
    case Kind::kUnary:
      call->channel().stub().async().Unary(call->context(), &call->request(), call->reply(),
                                           [call, ended](absl::Status status) {
                                             call->End(status);
                                             ended->Increment();
                                           });
      return;
    case Kind::kUpload:
      new Upload(call, ended);
      return;
    case Kind::kDownload:
      new Download(call, ended);
      return;
    case Kind::kChat:
      new Chat(call, ended);
      return;
  }
}

}  // namespace shmrpc::soak
