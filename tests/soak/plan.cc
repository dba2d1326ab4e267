#include "tests/soak/plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace shmrpc::soak {
namespace {

// 0, or of any order of magnitude. Most are small, so that there are many; one in a thousand is beyond the default
// limit of a message.
uint32_t DrawBytes(Random* random) {
  if (random->OneIn(16)) return 0;
  if (random->OneIn(1000)) return (16u << 20) + random->Below(4u << 20);
  return static_cast<uint32_t>(random->LogUniform(1, random->OneIn(5) ? 4 << 20 : 4096));
}

void DrawStream(Random* random, Plan* plan) {
  plan->items = random->OneIn(10) ? 0 : static_cast<uint32_t>(random->LogUniform(1, random->OneIn(10) ? 2000 : 50));
  // Together at most 16 MiB, but for a single item.
  const uint32_t most = std::max(1u, (16u << 20) / std::max(1u, plan->items));
  plan->item_bytes = std::min(DrawBytes(random), plan->items > 1 ? most : 20u << 20);
}

}  // namespace

absl::string_view KindName(Kind kind) {
  switch (kind) {
    case Kind::kUnary:
      return "unary";
    case Kind::kUpload:
      return "upload";
    case Kind::kDownload:
      return "download";
    case Kind::kChat:
      break;
  }
  return "chat";
}

absl::string_view StyleName(Style style) {
  switch (style) {
    case Style::kBlocking:
      return "blocking";
    case Style::kCallback:
      return "callback";
    case Style::kCoroutine:
      break;
  }
  return "coroutine";
}

Plan DrawPlan(Random* random) {
  Plan plan;
  plan.kind = random->OneIn(2) ? Kind::kUnary : static_cast<Kind>(1 + random->Below(kKinds - 1));
  plan.style = static_cast<Style>(random->Below(kStyles));
  const bool client_streams = plan.kind == Kind::kUpload || plan.kind == Kind::kChat;
  const bool server_streams = plan.kind == Kind::kDownload || plan.kind == Kind::kChat;
  if (plan.kind != Kind::kUnary) DrawStream(random, &plan);
  if (!client_streams) plan.request_bytes = DrawBytes(random);
  if (!server_streams) plan.reply_bytes = DrawBytes(random);
  if (random->OneIn(20)) plan.work_us = static_cast<uint32_t>(random->LogUniform(1, 5000));
  if (random->OneIn(50)) plan.end_code = static_cast<absl::StatusCode>(1 + random->Below(16));
  plan.metadata = random->OneIn(4);
  plan.wait_for_ready = random->OneIn(3);
  plan.refuse_size = !client_streams && plan.request_bytes > 1000 && random->OneIn(50);
  if (server_streams && plan.items > 1 && random->OneIn(20)) plan.read_items = random->Below(plan.items);
  if (random->OneIn(8)) {
    // Some are over before they begin, or in the middle; the others are far from passing.
    plan.timeout = random->OneIn(4)   ? absl::ZeroDuration()
                   : random->OneIn(2) ? absl::Microseconds(random->LogUniform(10, 20'000))
                                      : absl::Minutes(10);
  }
  if (random->OneIn(12)) plan.cancel_after = absl::Microseconds(random->LogUniform(1, 20'000));
  return plan;
}

int Together(const Plan& plan, Random* random) {
  if (plan.style == Style::kBlocking) return 1;
  const uint64_t bytes =
      uint64_t{plan.request_bytes} + plan.reply_bytes + uint64_t{plan.items} * (plan.item_bytes + 100);
  const uint64_t most = std::clamp<uint64_t>((4u << 20) / (bytes + 1), 1, plan.kind == Kind::kUnary ? 32 : 6);
  return static_cast<int>(1 + random->Below(most));
}

std::string Plan::ToString() const {
  std::string text = absl::StrCat("call ", id, " (", KindName(kind), ", ", StyleName(style));
  if (kind == Kind::kUnary || kind == Kind::kDownload) absl::StrAppend(&text, ", request of ", request_bytes, " bytes");
  if (kind == Kind::kUnary || kind == Kind::kUpload) absl::StrAppend(&text, ", reply of ", reply_bytes, " bytes");
  if (kind != Kind::kUnary) absl::StrAppend(&text, ", ", items, " items of up to ", item_bytes, " bytes");
  if (work_us > 0) absl::StrAppend(&text, ", works for ", work_us, " us");
  if (end_code != absl::StatusCode::kOk) absl::StrAppend(&text, ", is to end ", absl::StatusCodeToString(end_code));
  if (metadata) absl::StrAppend(&text, ", metadata");
  if (wait_for_ready) absl::StrAppend(&text, ", waits for a connection");
  if (refuse_size) absl::StrAppend(&text, ", too large for its context");
  if (read_items.has_value()) absl::StrAppend(&text, ", reads ", *read_items, " items");
  if (timeout.has_value()) absl::StrAppend(&text, ", timeout ", absl::FormatDuration(*timeout));
  if (cancel_after.has_value()) absl::StrAppend(&text, ", cancelled after ", absl::FormatDuration(*cancel_after));
  return text + ")";
}

}  // namespace shmrpc::soak
