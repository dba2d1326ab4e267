// What a frame says beside its message, metadata above all. The first byte chooses the kind of frame.

#include <string>

#include "tests/fuzz/input.h"
#include "transports/framed/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shmrpc;
  using namespace shmrpc::framed;
  fuzz::Input input(data, size);
  const uint8_t kind = input.Take<uint8_t>();
  FrameHeader header;
  header.flags = input.Take<uint8_t>();
  header.code = input.Take<uint16_t>();
  header.call_id = 1;
  const absl::string_view body = input.TakeBytes(kMaxFrameBytes - kFrameHeaderBytes);
  header.length = static_cast<uint32_t>(kFrameHeaderBytes + body.size());
  std::string frame(reinterpret_cast<const char*>(&header), sizeof header);
  frame.append(body.data(), body.size());
  frame.shrink_to_fit();

  switch (kind % 6) {
    case 0: {
      RequestControl control;
      if (!DecodeRequestControl(frame, header, &control).ok()) return 0;
      fuzz::Check(control.message_offset >= kFrameHeaderBytes && control.message_offset <= frame.size());
      fuzz::Check(control.metadata.ByteSize() <= Metadata::kMaxByteSize + 64);
      return 0;
    }
    case 1: {
      ResponseControl control;
      if (!DecodeResponseControl(frame, header, &control).ok()) return 0;
      fuzz::Check(control.message_offset >= kFrameHeaderBytes && control.message_offset <= frame.size());
      fuzz::Check(control.initial_metadata.Validate().ok() && control.trailing_metadata.Validate().ok());
      fuzz::Check(static_cast<int>(control.status.raw_code()) <= 16);
      return 0;
    }
    case 2: {
      Metadata metadata;
      if (DecodeHeaders(frame, header, &metadata).ok()) fuzz::Check(metadata.Validate().ok());
      return 0;
    }
    case 3: {
      MessageControl control;
      if (!DecodeMessageControl(frame, header, /*from_client=*/(kind & 64) != 0, &control).ok()) return 0;
      fuzz::Check(control.message_offset >= kFrameHeaderBytes && control.message_offset <= frame.size());
      return 0;
    }
    case 4: {
      Credit credit;
      (void)DecodeCredit(frame, header, &credit);
      return 0;
    }
    default: {
      bool last;
      (void)DecodeGoAway(header, &last);
      return 0;
    }
  }
}
