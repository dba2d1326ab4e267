#ifndef SHMRPC_TESTS_SOAK_SUMMARY_H_
#define SHMRPC_TESTS_SOAK_SUMMARY_H_

#include <string>

#include "tests/soak/board.h"
#include "tests/soak/supervisor.h"

namespace shmrpc::soak {

// What a soak did and found: lines for people, and one JSON object on one line, both with a newline at the end.
std::string SummaryText(const SoakOptions& options, const SoakResult& result, const Board& board);
std::string SummaryJson(const SoakOptions& options, const SoakResult& result, const Board& board);

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_SUMMARY_H_
