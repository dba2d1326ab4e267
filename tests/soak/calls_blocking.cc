#include <memory>
#include <thread>

#include "tests/soak/calls.h"

namespace shmrpc::soak {
namespace {

// Writes the client's items until the call is over, the last of them together with the half-close now and then.
template <typename Stream>
void WriteAll(ClientCall* call, Stream* stream) {
  Item item;
  const uint32_t items = call->plan().items;
  const bool last_together = call->plan().id % 2 == 0;
  for (uint32_t i = 0; i < items; ++i) {
    call->MakeItem(i, &item);
    const bool last = last_together && i + 1 == items;
    if (!(last ? stream->WriteLast(item) : stream->Write(item))) return;
    if (last) return;
  }
  stream->WritesDone();
}

template <typename Stream>
void ReadAll(ClientCall* call, Stream* stream) {
  Item item;
  while (call->WantsItems() && stream->Read(&item)) call->TakeItem(item);
}

// Destroying the stream cancels the call; then there is no status.
template <typename Stream>
void Finish(ClientCall* call, bool abandon, std::unique_ptr<Stream> stream) {
  if (abandon) {
    call->NoteCancelled();
    stream = nullptr;
    call->Abandon();
  } else {
    call->End(stream->Finish());
  }
}

}  // namespace

void CallBlocking(ClientCall* call, bool abandon) {
  Soak::Stub& stub = call->channel().stub();
  switch (call->plan().kind) {
    case Kind::kUnary:
      return call->End(stub.Unary(call->context(), call->request(), call->reply()));
    case Kind::kUpload: {
      auto writer = stub.Upload(call->context(), call->reply());
      WriteAll(call, writer.get());
      return Finish(call, abandon, std::move(writer));
    }
    case Kind::kDownload: {
      auto reader = stub.Download(call->context(), call->request());
      ReadAll(call, reader.get());
      return Finish(call, abandon, std::move(reader));
    }
    case Kind::kChat:
      break;
  }
  auto stream = stub.Chat(call->context());
  std::thread writer([call, &stream] { WriteAll(call, stream.get()); });
  ReadAll(call, stream.get());
  // What it does not read must not keep the other side, and so the writer, waiting for ever.
  if (!call->WantsItems()) call->Cancel();
  writer.join();
  Finish(call, abandon, std::move(stream));
}

}  // namespace shmrpc::soak
