#include "codegen/parameters.h"

#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace shmrpc::codegen {
namespace {

constexpr absl::string_view kKnown = "known parameters: mock=true|false";

}  // namespace

absl::StatusOr<Parameters> ParseParameters(absl::string_view text) {
  Parameters parameters;
  absl::flat_hash_set<absl::string_view> seen;
  for (const absl::string_view parameter : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    const std::pair<absl::string_view, absl::string_view> split = absl::StrSplit(parameter, absl::MaxSplits('=', 1));
    const absl::string_view name = absl::StripAsciiWhitespace(split.first);
    const absl::string_view value = absl::StripAsciiWhitespace(split.second);
    if (name != "mock") {
      return absl::InvalidArgumentError(absl::StrCat("unknown parameter \"", name, "\"; ", kKnown));
    }
    if (!seen.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat("parameter \"", name, "\" is given twice; ", kKnown));
    }
    if (value != "true" && value != "false") {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", name, "\" has the value \"", value, "\"; ", kKnown));
    }
    parameters.mock = value == "true";
  }
  return parameters;
}

}  // namespace shmrpc::codegen
