#include "codegen/text_writer.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace shmrpc::codegen {
namespace {

constexpr size_t kColumns = 120;

std::string Substitute(absl::string_view line, const TextWriter::Variables& variables) {
  std::string result;
  bool is_name = false;  // every second piece stands between two '$'
  for (const absl::string_view piece : absl::StrSplit(line, '$')) {
    if (!is_name) {
      absl::StrAppend(&result, piece);
    } else if (const auto found = variables.find(piece); found != variables.end()) {
      absl::StrAppend(&result, found->second);
    } else {
      std::fprintf(stderr, "protoc-gen-shmrpc: a template names the unknown variable \"%s\"\n",
                   std::string(piece).c_str());
      std::abort();
    }
    is_name = !is_name;
  }
  return result;
}

}  // namespace

void TextWriter::Print(absl::string_view text, const Variables& variables) {
  text = absl::StripPrefix(text, "\n");
  text = absl::StripSuffix(text, "\n");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::string substituted = Substitute(line, variables);
    if (!substituted.empty()) absl::StrAppend(&text_, std::string(indent_, ' '), substituted);
    text_ += '\n';
  }
}

void TextWriter::PrintComment(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) absl::StrAppend(&text_, std::string(indent_, ' '), "//", line, "\n");
}

void TextWriter::PrintList(absl::string_view head, const std::vector<std::string>& items, absl::string_view tail) {
  const std::string one_line = absl::StrCat(std::string(indent_, ' '), head, absl::StrJoin(items, ", "), tail);
  if (items.empty() || one_line.size() <= kColumns) {
    absl::StrAppend(&text_, one_line, "\n");
    return;
  }
  absl::StrAppend(&text_, std::string(indent_, ' '), head, "\n");
  Fill(std::string(indent_ + 4, ' '), items, tail);
}

void TextWriter::PrintAlignedList(absl::string_view head, const std::vector<std::string>& items,
                                  absl::string_view tail) {
  Fill(absl::StrCat(std::string(indent_, ' '), head), items, tail);
}

void TextWriter::Fill(std::string line, const std::vector<std::string>& items, absl::string_view tail) {
  const size_t column = line.size();
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string item = absl::StrCat(items[i], i + 1 < items.size() ? "," : tail);
    const bool is_first = line.size() == column;
    if (!is_first && line.size() + 1 + item.size() > kColumns) {
      absl::StrAppend(&text_, line, "\n");
      line = std::string(column, ' ');
    }
    absl::StrAppend(&line, line.size() == column ? "" : " ", item);
  }
  absl::StrAppend(&text_, line, "\n");
}

void TextWriter::PrintFunction(absl::string_view result, absl::string_view name,
                               const std::vector<std::string>& parameters, absl::string_view tail) {
  std::string head = absl::StrCat(name, "(");
  if (indent_ + result.size() + 1 + head.size() > kColumns) {
    absl::StrAppend(&text_, std::string(indent_, ' '), result, "\n");
  } else {
    head = absl::StrCat(result, " ", head);
  }
  PrintList(head, parameters, absl::StrCat(")", tail));
}

}  // namespace shmrpc::codegen
