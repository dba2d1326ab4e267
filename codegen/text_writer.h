#ifndef SHMRPC_CODEGEN_TEXT_WRITER_H_
#define SHMRPC_CODEGEN_TEXT_WRITER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace shmrpc::codegen {

// Builds indented text from templates. Not thread-safe.
class TextWriter {
 public:
  using Variables = absl::flat_hash_map<std::string, std::string>;

  // Appends `text` with each $name$ replaced by its variable and each line that is not empty indented. A newline at
  // the very beginning is dropped, so that a raw string literal may begin on a line of its own. A name that is not in
  // `variables` is a mistake of the caller and ends the program.
  void Print(absl::string_view text, const Variables& variables = {});

  // Appends each line after "//".
  void PrintComment(const std::vector<std::string>& lines);

  // Appends `head` + the items with commas between them + `tail`, indented: in one line of 120 columns when that fits,
  // else with the items on lines of their own, four columns deeper.
  void PrintList(absl::string_view head, const std::vector<std::string>& items, absl::string_view tail);

  // The same, but the lines of items begin below the first item, which stands right after `head`.
  void PrintAlignedList(absl::string_view head, const std::vector<std::string>& items, absl::string_view tail);

  // As PrintList for a function: "result name(parameters)tail". The result gets its own line when the name does not fit
  // beside it.
  void PrintFunction(absl::string_view result, absl::string_view name, const std::vector<std::string>& parameters,
                     absl::string_view tail);

  void Indent() { indent_ += 2; }
  void Outdent() { indent_ -= 2; }

  std::string Take() && { return std::move(text_); }

 private:
  // Appends `line` + the items + `tail`, in lines as long as fit. Those after the first are indented as deep as `line`.
  void Fill(std::string line, const std::vector<std::string>& items, absl::string_view tail);

  std::string text_;
  size_t indent_ = 0;
};

}  // namespace shmrpc::codegen

#endif  // SHMRPC_CODEGEN_TEXT_WRITER_H_
