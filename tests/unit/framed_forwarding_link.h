#ifndef SHMRPC_TESTS_UNIT_FRAMED_FORWARDING_LINK_H_
#define SHMRPC_TESTS_UNIT_FRAMED_FORWARDING_LINK_H_

#include <memory>
#include <string>
#include <utility>

#include "transports/framed/link.h"

namespace shmrpc::framed {

// Another link, for tests that change or watch a part of it.
class ForwardingLink : public Link {
 public:
  explicit ForwardingLink(std::unique_ptr<Link> link) : link_(std::move(link)) {}

  const std::string& name() const override { return link_->name(); }
  uint8_t* Reserve(size_t size) override { return link_->Reserve(size); }
  void Commit(size_t size) override { link_->Commit(size); }
  void Flush(bool always_ring) override { link_->Flush(always_ring); }
  bool SendBufferFull() const override { return link_->SendBufferFull(); }
  bool HasRoom() const override { return link_->HasRoom(); }
  bool AskForRoom() override { return link_->AskForRoom(); }
  void RingIfPeerBehind() override { link_->RingIfPeerBehind(); }
  void FinishSending() override { link_->FinishSending(); }
  ReceiveResult Receive(Chunk* chunk) override { return link_->Receive(chunk); }
  bool HasFrame() override { return link_->HasFrame(); }
  bool PrepareToPark() override { return link_->PrepareToPark(); }
  void Unpark() override { link_->Unpark(); }
  void DrainWakeups(bool hung_up) override { link_->DrainWakeups(hung_up); }
  absl::Status end_status() const override { return link_->end_status(); }
  bool PeerBehind() const override { return link_->PeerBehind(); }
  int fd() const override { return link_->fd(); }
  bool HungUp() const override { return link_->HungUp(); }
  bool CheapToPoll() const override { return link_->CheapToPoll(); }
  void Shutdown() override { link_->Shutdown(); }

 private:
  const std::unique_ptr<Link> link_;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TESTS_UNIT_FRAMED_FORWARDING_LINK_H_
