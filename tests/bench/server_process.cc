#include "tests/bench/server_process.h"

#include <errno.h>
#include <unistd.h>

#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"

namespace shmrpc::bench {

absl::StatusOr<ServerProcess> ServerProcess::Start(const PeerInfo& peer, const PeerSetup& setup) {
  int ends[2];
  if (pipe(ends) < 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  Descriptor read_end(ends[0]);
  Descriptor write_end(ends[1]);
  // The answer's first byte tells an address ('=') from an error ('!').
  absl::StatusOr<ChildProcess> child = ChildProcess::Fork([&] {
    read_end.Close();
    const std::unique_ptr<ServerSide> server = peer.make_server(setup);
    const absl::StatusOr<std::string> address = server->Start();
    const std::string answer =
        address.ok() ? absl::StrCat("=", *address) : absl::StrCat("!", address.status().ToString());
    if (write(write_end.get(), answer.data(), answer.size()) < 0) return;
    write_end.Close();
    if (!address.ok()) return;
    const absl::Status status = server->Serve();
    if (!status.ok()) std::cerr << "shmrpc_bench: the server of " << peer.name << " ended: " << status << "\n";
  });
  if (!child.ok()) return child.status();
  write_end.Close();

  std::string answer;
  char buffer[1024];
  for (ssize_t n; (n = read(read_end.get(), buffer, sizeof(buffer))) != 0;) {
    if (n < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "cannot read from the server process");
    if (n > 0) answer.append(buffer, n);
  }
  if (answer.empty()) return absl::InternalError("the server process died before it was ready");
  if (answer[0] == '!') return absl::UnavailableError(absl::StrCat("the server did not start: ", answer.substr(1)));
  return ServerProcess(*std::move(child), answer.substr(1));
}

}  // namespace shmrpc::bench
