#include "codegen/comments.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace shmrpc::codegen {

std::vector<std::string> CommentLines(absl::string_view comment) {
  std::vector<std::string> lines;
  // A carriage return ends a line for some compilers, even alone; that of "\r\n" leaves an empty line behind.
  for (absl::string_view line : absl::StrSplit(comment, '\n')) {
    line = absl::StripTrailingAsciiWhitespace(line);
    for (absl::string_view part : absl::StrSplit(line, absl::ByAnyChar("\r\f\v"))) {
      part = absl::StripTrailingAsciiWhitespace(part);
      // A comment /* like this */ has no space after what begins its lines.
      std::string text = absl::StrCat(part.empty() || part.front() == ' ' ? "" : " ", part);
      if (absl::EndsWith(text, "\\")) absl::StrAppend(&text, " //");
      lines.push_back(std::move(text));
    }
  }
  while (!lines.empty() && lines.back().empty()) lines.pop_back();
  while (!lines.empty() && lines.front().empty()) lines.erase(lines.begin());
  return lines;
}

}  // namespace shmrpc::codegen
