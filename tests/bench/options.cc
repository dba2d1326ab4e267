#include "tests/bench/options.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/bench/payload.h"
#include "tests/bench/process.h"

namespace shmrpc::bench {
namespace {

constexpr int64_t kMaxPayloadBytes = int64_t{1} << 30;

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

absl::Status ParseMillis(absl::string_view option, int millis, absl::Duration* duration) {
  constexpr int kMaxMillis = 60'000;
  if (millis < 0 || millis > kMaxMillis) {
    return absl::InvalidArgumentError(
        absl::StrCat(option, ": ", millis, " is not a whole number from 0 to ", kMaxMillis));
  }
  *duration = absl::Milliseconds(millis);
  return absl::OkStatus();
}

absl::Status ParseModes(const std::vector<std::string>& texts, std::vector<std::string>* modes) {
  constexpr absl::string_view kChoices = "choose of: adaptive, latency, efficient";
  if (texts.empty()) return absl::InvalidArgumentError(absl::StrCat("--modes is empty; ", kChoices));
  for (const std::string& mode : texts) {
    if (mode != "adaptive" && mode != "latency" && mode != "efficient") {
      return absl::InvalidArgumentError(absl::StrCat("--modes: unknown \"", mode, "\"; ", kChoices));
    }
    modes->push_back(mode);
  }
  return absl::OkStatus();
}

absl::Status ParsePins(const std::vector<std::string>& texts, std::vector<std::optional<Pin>>* pins) {
  constexpr absl::string_view kChoices = "choose of: auto, apart, shared, single, none";
  if (texts.empty()) return absl::InvalidArgumentError(absl::StrCat("--pin is empty; ", kChoices));
  for (const std::string& text : texts) {
    std::optional<Pin> pin;
    for (const Pin known : {Pin::kApart, Pin::kShared, Pin::kSingle, Pin::kNone}) {
      if (text == PinName(known)) pin = known;
    }
    if (!pin && text != "auto") {
      return absl::InvalidArgumentError(absl::StrCat("--pin: unknown \"", text, "\"; ", kChoices));
    }
    pins->push_back(pin);
  }
  return absl::OkStatus();
}

absl::Status ParseCpus(const std::vector<std::string>& texts, std::vector<int>* cpus) {
  const std::vector<int> allowed = AllowedCpus();
  if (texts.empty()) {
    *cpus = allowed;
    if (cpus->empty()) return absl::InternalError("cannot find out which CPUs are allowed; name them with --cpus");
    return absl::OkStatus();
  }
  for (const std::string& text : texts) {
    int cpu = -1;
    if (!absl::SimpleAtoi(text, &cpu) || std::find(allowed.begin(), allowed.end(), cpu) == allowed.end()) {
      return absl::InvalidArgumentError(absl::StrCat("--cpus: \"", text, "\" is not a CPU that this process may use; ",
                                                     "these are: ", absl::StrJoin(allowed, ", ")));
    }
    cpus->push_back(cpu);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Options> ParseOptions(const OptionTexts& texts) {
  Options options;
  absl::Status status = FindAll("--cases", texts.cases, AllCases(), &options.cases);
  status.Update(FindAll("--peers", texts.peers, AllPeers(), &options.peers));
  status.Update(ParseNumbers("--payloads", texts.payloads, kMinPayloadBytes, kMaxPayloadBytes, &options.payloads));
  status.Update(ParseModes(texts.modes, &options.modes));
  const auto parse_amounts = [&](Axis axis, const std::vector<std::string>& amounts, int64_t max) {
    status.Update(ParseNumbers(absl::StrCat("--", AxisName(axis)), amounts, 1, max, &options.amounts[axis]));
  };
  parse_amounts(Axis::kConcurrency, texts.concurrency, 10'000);
  parse_amounts(Axis::kThreads, texts.threads, 1'000);
  parse_amounts(Axis::kClients, texts.clients, 1'000);
  parse_amounts(Axis::kConnections, texts.connections, 100'000);
  parse_amounts(Axis::kSleeping, texts.sleeping, 1'000);
  parse_amounts(Axis::kRate, texts.rate, 1'000'000);
  parse_amounts(Axis::kBurst, texts.burst, 1'000'000);
  status.Update(ParseMillis("--sleep_ms", texts.sleep_ms, &options.sleep));
  status.Update(ParseMillis("--pause_ms", texts.pause_ms, &options.pause));
  status.Update(ParsePins(texts.pin, &options.pins));
  status.Update(ParseCpus(texts.cpus, &options.cpus));
  if (!status.ok()) return status;

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
  const bool pipelines = std::any_of(options.cases.begin(), options.cases.end(),
                                     [](const CaseInfo* info) { return info->axis == Axis::kConcurrency; });
  const std::vector<int>& concurrency = options.amounts[Axis::kConcurrency];
  if (pipelines && std::all_of(concurrency.begin(), concurrency.end(), [](int n) { return n == 1; })) {
    return absl::InvalidArgumentError("--concurrency: the case pipelined needs a number above 1, for instance 64");
  }
  return options;
}

std::vector<Contest> PlanContests(const Options& options, std::vector<std::string>* notes) {
  std::vector<Contest> contests;
  for (const CaseInfo* load : options.cases) {
    std::vector<int> amounts = {1};
    if (load->axis != Axis::kNone) amounts = options.amounts.at(load->axis);
    if (load->axis == Axis::kConcurrency) amounts.erase(std::remove(amounts.begin(), amounts.end(), 1), amounts.end());
    std::vector<const PeerInfo*> able;
    for (const PeerInfo* peer : options.peers) {
      if ((load->needs & ~peer->abilities) != 0) {
        notes->push_back(absl::StrCat(peer->name, " cannot do what ", load->name, " needs: left out of it"));
      } else {
        able.push_back(peer);
      }
    }
    for (const size_t payload_bytes : options.payloads) {
      std::vector<const PeerInfo*> contenders;
      for (const PeerInfo* peer : able) {
        if (peer->only_payload_bytes != 0 && peer->only_payload_bytes != payload_bytes) {
          notes->push_back(absl::StrCat(peer->name, " carries ", peer->only_payload_bytes,
                                        " bytes and nothing else: left out at ", payload_bytes, " bytes"));
        } else {
          contenders.push_back(peer);
        }
      }
      if (contenders.empty()) continue;
      for (const int amount : amounts) {
        for (const std::optional<Pin>& wanted_pin : options.pins) {
          const Pin pin = wanted_pin.value_or(load->crowded ? Pin::kNone : Pin::kApart);
          Contest contest{
              .load = load, .payload_bytes = payload_bytes, .amount = amount, .pin = pin, .contestants = {}};
          for (const PeerInfo* peer : contenders) {
            if (peer == options.against) contest.against = static_cast<int>(contest.contestants.size());
            for (const std::string& mode : peer->has_modes ? options.modes : std::vector<std::string>{"-"}) {
              contest.contestants.push_back(
                  {.load = load,
                   .peer = peer,
                   .wait_mode = mode,
                   .payload_bytes = payload_bytes,
                   .shape = {.amount = amount, .sleep = options.sleep, .pause = options.pause},
                   .pin = pin,
                   .cpus = options.cpus,
                   .duration = options.duration});
            }
          }
          contests.push_back(std::move(contest));
        }
      }
    }
  }
  return contests;
}

}  // namespace shmrpc::bench
