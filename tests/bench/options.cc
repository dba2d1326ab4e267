#include "tests/bench/options.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace shmrpc::bench {
namespace {

constexpr int64_t kMinPayloadBytes = 8;  // the number of the call, see cases.cc
constexpr int64_t kMaxPayloadBytes = int64_t{1} << 30;
constexpr int64_t kMaxConcurrency = 10'000;

template <typename Info>
std::string Names(const std::vector<Info>& infos) {
  return absl::StrJoin(infos, ", ", [](std::string* out, const Info& info) { out->append(info.name); });
}

template <typename Info>
absl::Status FindAll(absl::string_view option, const std::vector<std::string>& names, const std::vector<Info>& known,
                     std::vector<const Info*>* found) {
  if (names.empty()) return absl::InvalidArgumentError(absl::StrCat(option, " is empty; choose of: ", Names(known)));
  for (const std::string& name : names) {
    const auto it = std::find_if(known.begin(), known.end(), [&](const Info& info) { return info.name == name; });
    if (it == known.end()) {
      return absl::InvalidArgumentError(absl::StrCat(option, ": unknown \"", name, "\"; choose of: ", Names(known)));
    }
    if (std::find(found->begin(), found->end(), &*it) == found->end()) found->push_back(&*it);
  }
  return absl::OkStatus();
}

template <typename Number>
absl::Status ParseNumbers(absl::string_view option, const std::vector<std::string>& texts, int64_t min, int64_t max,
                          std::vector<Number>* numbers) {
  if (texts.empty()) return absl::InvalidArgumentError(absl::StrCat(option, " is empty"));
  for (const std::string& text : texts) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(text, &number) || number < min || number > max) {
      return absl::InvalidArgumentError(
          absl::StrCat(option, ": \"", text, "\" is not a whole number from ", min, " to ", max));
    }
    numbers->push_back(static_cast<Number>(number));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Options> ParseOptions(const OptionTexts& texts) {
  Options options;
  absl::Status status = FindAll("--cases", texts.cases, AllCases(), &options.cases);
  status.Update(FindAll("--peers", texts.peers, AllPeers(), &options.peers));
  status.Update(ParseNumbers("--payloads", texts.payloads, kMinPayloadBytes, kMaxPayloadBytes, &options.payloads));
  status.Update(ParseNumbers("--concurrency", texts.concurrency, 1, kMaxConcurrency, &options.concurrency));
  if (!status.ok()) return status;

  if (texts.modes.empty())
    return absl::InvalidArgumentError("--modes is empty; choose of: adaptive, latency, efficient");
  for (const std::string& mode : texts.modes) {
    if (mode != "adaptive" && mode != "latency" && mode != "efficient") {
      return absl::InvalidArgumentError(
          absl::StrCat("--modes: unknown \"", mode, "\"; choose of: adaptive, latency, efficient"));
    }
    options.modes.push_back(mode);
  }
  if (texts.rounds < 1) {
    return absl::InvalidArgumentError(absl::StrCat("--rounds: ", texts.rounds, " is not a whole number from 1 up"));
  }
  options.rounds = texts.rounds;
  if (!(texts.seconds > 0 && texts.seconds <= 3600)) {
    return absl::InvalidArgumentError(absl::StrCat("--seconds: ", texts.seconds, " is not above 0 and up to 3600"));
  }
  options.duration = absl::Seconds(texts.seconds);
  if (!texts.against.empty()) {
    status = FindAll("--against", {texts.against}, AllPeers(), &options.peers);
    if (!status.ok()) return status;
    options.against = FindPeer(texts.against);
  }
  const bool pipelines =
      std::any_of(options.cases.begin(), options.cases.end(), [](const CaseInfo* info) { return info->pipelines; });
  if (pipelines && std::all_of(options.concurrency.begin(), options.concurrency.end(), [](int n) { return n == 1; })) {
    return absl::InvalidArgumentError("--concurrency: the case pipelined needs a number above 1, for instance 64");
  }
  return options;
}

std::vector<Contest> PlanContests(const Options& options, std::vector<std::string>* notes) {
  std::vector<Contest> contests;
  for (const CaseInfo* load : options.cases) {
    std::vector<int> concurrency = {1};
    if (load->pipelines) {
      concurrency = options.concurrency;
      concurrency.erase(std::remove(concurrency.begin(), concurrency.end(), 1), concurrency.end());
    }
    std::vector<const PeerInfo*> able;
    for (const PeerInfo* peer : options.peers) {
      if (load->pipelines && !peer->can_pipeline) {
        notes->push_back(absl::StrCat(peer->name, " has one call in flight at most: left out of ", load->name));
      } else {
        able.push_back(peer);
      }
    }
    for (const size_t payload_bytes : options.payloads) {
      for (const int calls : concurrency) {
        Contest contest{.load = load, .payload_bytes = payload_bytes, .concurrency = calls, .contestants = {}};
        for (const PeerInfo* peer : able) {
          if (peer->only_payload_bytes != 0 && peer->only_payload_bytes != payload_bytes) {
            notes->push_back(absl::StrCat(peer->name, " carries ", peer->only_payload_bytes,
                                          " bytes and nothing else: left out at ", payload_bytes, " bytes"));
            continue;
          }
          if (peer == options.against) contest.against = static_cast<int>(contest.contestants.size());
          for (const std::string& mode : peer->has_modes ? options.modes : std::vector<std::string>{"-"}) {
            contest.contestants.push_back({.load = load,
                                           .peer = peer,
                                           .wait_mode = mode,
                                           .payload_bytes = payload_bytes,
                                           .concurrency = calls,
                                           .duration = options.duration});
          }
        }
        if (!contest.contestants.empty()) contests.push_back(std::move(contest));
      }
    }
  }
  return contests;
}

}  // namespace shmrpc::bench
