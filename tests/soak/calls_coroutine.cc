#include <atomic>
#include <memory>
#include <utility>

#include "tests/soak/calls.h"

namespace shmrpc::soak {
namespace {

Task<void> Unary(ClientCall* call, conformance::Counter* ended) {
  absl::StatusOr<Reply> reply = co_await call->channel().stub().co().Unary(call->context(), call->request());
  if (reply.ok()) *call->reply() = *std::move(reply);
  call->End(reply.status());
  ended->Increment();
}

Task<void> Upload(ClientCall* call, conformance::Counter* ended) {
  auto writer = call->channel().stub().co().Upload(call->context());
  Item item;
  for (uint32_t i = 0; i < call->plan().items; ++i) {
    call->MakeItem(i, &item);
    if (!co_await writer.Write(item)) break;
  }
  absl::StatusOr<Reply> reply = co_await writer.Finish();
  if (reply.ok()) *call->reply() = *std::move(reply);
  call->End(reply.status());
  ended->Increment();
}

Task<void> Download(ClientCall* call, conformance::Counter* ended) {
  auto reader = call->channel().stub().co().Download(call->context(), call->request());
  while (call->WantsItems()) {
    const std::optional<Item> item = co_await reader.Read();
    if (!item.has_value()) break;
    call->TakeItem(*item);
  }
  call->End(co_await reader.Finish());
  ended->Increment();
}

// A chat's two coroutines; the last that is done finishes it.
struct ChatInProgress {
  ChatInProgress(ClientCall* call, conformance::Counter* ended)
      : call(call), ended(ended), stream(call->channel().stub().co().Chat(call->context())) {}

  ClientCall* const call;
  conformance::Counter* const ended;
  CoClientReaderWriter<Item, Item> stream;
  std::atomic<int> busy{2};
};

Task<void> LeaveChat(std::shared_ptr<ChatInProgress> chat) {
  if (chat->busy.fetch_sub(1) != 1) co_return;
  chat->call->End(co_await chat->stream.Finish());
  conformance::Counter* const ended = chat->ended;
  chat = nullptr;  // while the call is still there
  ended->Increment();
}

Task<void> WriteChat(std::shared_ptr<ChatInProgress> chat) {
  Item item;
  bool open = true;
  for (uint32_t i = 0; open && i < chat->call->plan().items; ++i) {
    chat->call->MakeItem(i, &item);
    open = co_await chat->stream.Write(item);
  }
  if (open) co_await chat->stream.WritesDone();
  co_await LeaveChat(std::move(chat));
}

Task<void> ReadChat(std::shared_ptr<ChatInProgress> chat) {
  while (chat->call->WantsItems()) {
    const std::optional<Item> item = co_await chat->stream.Read();
    if (!item.has_value()) break;
    chat->call->TakeItem(*item);
  }
  // Otherwise what it does not read could keep the writer waiting.
  if (!chat->call->WantsItems()) chat->call->Cancel();
  co_await LeaveChat(std::move(chat));
}

}  // namespace

void StartCoroutine(ClientCall* call, conformance::Counter* ended) {
  switch (call->plan().kind) {
    case Kind::kUnary:
      return Spawn(Unary(call, ended));
    case Kind::kUpload:
      return Spawn(Upload(call, ended));
    case Kind::kDownload:
      return Spawn(Download(call, ended));
    case Kind::kChat:
      break;
  }
  auto chat = std::make_shared<ChatInProgress>(call, ended);
  Spawn(WriteChat(chat));
  Spawn(ReadChat(std::move(chat)));
}

}  // namespace shmrpc::soak
