#include "transports/tcp/socket_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/thread.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/errno_name.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::tcp {
namespace {

using framed::ErrnoText;
using framed::UniqueFd;

constexpr size_t kUnixNameOffset = offsetof(sockaddr_un, sun_path);
// A path needs a NUL behind it, an abstract name one before it.
constexpr size_t kMaxUnixNameBytes = sizeof(sockaddr_un::sun_path) - 1;

constexpr size_t kGroupsAtFirst = 32;  // most users are in fewer

absl::Status CheckUnixName(std::string_view kind, std::string_view name) {
  if (name.empty()) return absl::InvalidArgumentError(absl::StrCat("the ", ToAbsl(kind), " of a Unix socket is empty"));
  if (name.size() > kMaxUnixNameBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the ", ToAbsl(kind), " \"", ToAbsl(name), "\" has ", name.size(),
                                                   " bytes, the kernel's limit for Unix sockets is ", kMaxUnixNameBytes,
                                                   ": use a shorter one"));
  }
  return absl::OkStatus();
}

// One look-up, shared by the thread that waits for it and the thread that runs it; the latter may come back long after
// the former gave up.
struct Lookup {
  std::string host;
  uint16_t port = 0;
  UniqueFd done;  // eventfd, readable when the result is there

  Mutex mutex;
  int error ABSL_GUARDED_BY(mutex) = 0;         // getaddrinfo's
  int system_error ABSL_GUARDED_BY(mutex) = 0;  // errno, when `error` is EAI_SYSTEM
  std::vector<SocketAddress> addresses ABSL_GUARDED_BY(mutex);
};

void RunLookup(Lookup* lookup) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(lookup->host.c_str(), std::to_string(lookup->port).c_str(), &hints, &list);
  const int system_error = errno;
  {
    MutexLock lock(&lookup->mutex);
    lookup->error = error;
    lookup->system_error = system_error;
    if (error == 0) {
      for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
        const SocketAddress address(entry->ai_addr, entry->ai_addrlen);
        std::vector<SocketAddress>& addresses = lookup->addresses;
        if (address.is_ip() && std::find(addresses.begin(), addresses.end(), address) == addresses.end()) {
          addresses.push_back(address);
        }
      }
    }
  }
  if (list != nullptr) freeaddrinfo(list);
  const uint64_t one = 1;
  // An eventfd at 0 takes a 1 in any case.
  [[maybe_unused]] const ssize_t written = write(lookup->done.get(), &one, sizeof(one));
}

absl::StatusOr<std::vector<SocketAddress>> LookUp(const Target& target, SteadyTime deadline, int interrupt_fd) {
  auto lookup = std::make_shared<Lookup>();
  lookup->host = target.host;
  lookup->port = target.port;
  lookup->done.Reset(eventfd(0, EFD_CLOEXEC));
  if (!lookup->done.valid()) {
    return absl::UnavailableError(
        absl::StrCat("could not look up the host name \"", target.host, "\": eventfd refused: ", ErrnoText(errno)));
  }
  absl::StatusOr<std::thread> thread = internal::StartThread("shmrpc-resolve", [lookup] { RunLookup(lookup.get()); });
  if (!thread.ok()) {
    return absl::UnavailableError(
        absl::StrCat("could not look up the host name \"", target.host, "\": ", thread.status().message()));
  }
  thread->detach();

  pollfd fds[2] = {{lookup->done.get(), POLLIN, 0}, {interrupt_fd, POLLIN, 0}};
  while (true) {
    const int ready = poll(fds, 2, PollTimeout(deadline));
    if (ready < 0 && errno != EINTR) {
      return absl::InternalError(absl::StrCat("poll failed: ", ErrnoText(errno)));
    }
    if (ready > 0 && fds[1].revents != 0) {
      return absl::CancelledError(absl::StrCat("interrupted while looking up the host name \"", target.host, "\""));
    }
    if (ready > 0) break;
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the host name \"", target.host, "\" could not be looked up in time: is the name server reachable?"));
    }
  }

  MutexLock lock(&lookup->mutex);
  if (lookup->error != 0 || lookup->addresses.empty()) {
    const std::string reason = lookup->error == 0            ? "it has no IPv4 or IPv6 address"
                               : lookup->error == EAI_SYSTEM ? ErrnoText(lookup->system_error)
                                                             : gai_strerror(lookup->error);
    return absl::UnavailableError(absl::StrCat("could not look up the host name \"", target.host, "\" (", reason,
                                               "): is it spelt right, and does this host know it?"));
  }
  return lookup->addresses;
}

}  // namespace

SocketAddress::SocketAddress(const sockaddr* address, socklen_t length)
    : length_(std::min<socklen_t>(length, sizeof(storage_))) {
  std::memcpy(&storage_, address, length_);
}

std::optional<SocketAddress> SocketAddress::FromLiteral(std::string_view host, uint16_t port) {
  const size_t percent = host.find('%');
  const std::string number(host.substr(0, percent));
  if (number.find('\0') != std::string::npos) return std::nullopt;

  sockaddr_in v4 = {};
  if (percent == std::string_view::npos && inet_pton(AF_INET, number.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    return SocketAddress(reinterpret_cast<const sockaddr*>(&v4), sizeof(v4));
  }

  sockaddr_in6 v6 = {};
  if (inet_pton(AF_INET6, number.c_str(), &v6.sin6_addr) != 1) return std::nullopt;
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  if (percent == std::string_view::npos) return SocketAddress(reinterpret_cast<const sockaddr*>(&v6), sizeof(v6));

  // The zone is the name or the number of a network interface: the C library knows the rules.
  addrinfo hints = {};
  hints.ai_family = AF_INET6;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  if (getaddrinfo(std::string(host).c_str(), std::to_string(port).c_str(), &hints, &list) != 0) return std::nullopt;
  const SocketAddress address(list->ai_addr, list->ai_addrlen);
  freeaddrinfo(list);
  return address;
}

absl::StatusOr<SocketAddress> SocketAddress::FromUnixPath(std::string_view path) {
  if (absl::Status status = CheckUnixName("path", path); !status.ok()) return status;
  if (path.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("the path of a Unix socket contains a NUL byte");
  }
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return SocketAddress(reinterpret_cast<const sockaddr*>(&address), kUnixNameOffset + path.size() + 1);
}

absl::StatusOr<SocketAddress> SocketAddress::FromUnixAbstractName(std::string_view name) {
  if (absl::Status status = CheckUnixName("abstract name", name); !status.ok()) return status;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  return SocketAddress(reinterpret_cast<const sockaddr*>(&address), kUnixNameOffset + 1 + name.size());
}

SocketAddress SocketAddress::WithPort(uint16_t port) const {
  SocketAddress other = *this;
  if (family() == AF_INET) reinterpret_cast<sockaddr_in*>(&other.storage_)->sin_port = htons(port);
  if (family() == AF_INET6) reinterpret_cast<sockaddr_in6*>(&other.storage_)->sin6_port = htons(port);
  return other;
}

Target SocketAddress::ToTarget() const {
  Target target;
  char text[INET6_ADDRSTRLEN] = "";
  if (family() == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage_);
    target.host = inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    target.port = ntohs(v4->sin_port);
    target.original = absl::StrCat("ipv4:", target.ToString());
  } else if (const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage_);
             family() == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
    // An IPv4 client of a socket that listens on [::].
    target.host = inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], text, sizeof(text));
    target.port = ntohs(v6->sin6_port);
    target.original = absl::StrCat("ipv4:", target.ToString());
  } else if (family() == AF_INET6) {
    target.host = inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
    if (v6->sin6_scope_id != 0) {
      char interface[IF_NAMESIZE];
      const bool named = if_indextoname(v6->sin6_scope_id, interface) != nullptr;
      absl::StrAppend(&target.host, "%", named ? std::string(interface) : std::to_string(v6->sin6_scope_id));
    }
    target.port = ntohs(v6->sin6_port);
    target.original = absl::StrCat("ipv6:", target.ToString());
  } else if (family() == AF_UNIX) {
    const char* name = reinterpret_cast<const sockaddr_un*>(&storage_)->sun_path;
    const size_t size = length_ > kUnixNameOffset ? length_ - kUnixNameOffset : 0;
    const bool abstract = size > 0 && name[0] == '\0';
    target.kind = abstract ? Target::Kind::kUnixAbstract : Target::Kind::kUnix;
    target.name = abstract ? std::string(name + 1, size - 1) : std::string(name, strnlen(name, size));
    target.original = target.ToString();
  } else {
    target.original = "unknown";
  }
  return target;
}

std::string SocketAddress::ToString() const { return ToTarget().original; }

absl::StatusOr<std::vector<SocketAddress>> Resolve(const Target& target, SteadyTime deadline, int interrupt_fd) {
  absl::StatusOr<SocketAddress> name;
  switch (target.kind) {
    case Target::Kind::kHostPort: {
      if (const std::optional<SocketAddress> literal = SocketAddress::FromLiteral(target.host, target.port)) {
        return std::vector<SocketAddress>{*literal};
      }
      if (absl::EqualsIgnoreCase(target.host, "localhost") || absl::EqualsIgnoreCase(target.host, "localhost.")) {
        return std::vector<SocketAddress>{*SocketAddress::FromLiteral("127.0.0.1", target.port),
                                          *SocketAddress::FromLiteral("::1", target.port)};
      }
      if (target.host.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("address \"", target.original, "\": the host is missing"));
      }
      return LookUp(target, deadline, interrupt_fd);
    }
    case Target::Kind::kUnix:
      name = SocketAddress::FromUnixPath(target.name);
      break;
    case Target::Kind::kUnixAbstract:
      name = SocketAddress::FromUnixAbstractName(target.name);
      break;
    case Target::Kind::kInproc:
      return absl::InvalidArgumentError(
          absl::StrCat("address \"", target.ToString(), "\" is within this process: there is no socket for it"));
    case Target::Kind::kGrpc:
      return absl::InvalidArgumentError(
          absl::StrCat("address \"", target.ToString(), "\" is for the gRPC library to look up"));
  }
  if (!name.ok()) return name.status();
  return std::vector<SocketAddress>{*name};
}

std::string PeerAddress(int fd) {
  sockaddr_storage storage = {};
  socklen_t length = sizeof(storage);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return "unknown";
  return SocketAddress(reinterpret_cast<const sockaddr*>(&storage), length).ToString();
}

std::string LocalAddress(int fd) {
  sockaddr_storage storage = {};
  socklen_t length = sizeof(storage);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return "unknown";
  return SocketAddress(reinterpret_cast<const sockaddr*>(&storage), length).ToString();
}

namespace {

// Of one end; empty when it is not TCP's.
std::string EncodeEnd(const sockaddr_storage& end) {
  std::string bytes;
  if (end.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(end);
    bytes.assign(10, '\0');
    bytes.append(2, '\xff');
    bytes.append(reinterpret_cast<const char*>(&v4.sin_addr), sizeof v4.sin_addr);
    bytes.append(reinterpret_cast<const char*>(&v4.sin_port), sizeof v4.sin_port);
  } else if (end.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(end);
    bytes.append(reinterpret_cast<const char*>(&v6.sin6_addr), sizeof v6.sin6_addr);
    bytes.append(reinterpret_cast<const char*>(&v6.sin6_port), sizeof v6.sin6_port);
  }
  return bytes;
}

constexpr size_t kEncodedHostBytes = 16;

bool IsLoopback(std::string_view host) {
  in6_addr address;
  std::memcpy(&address, host.data(), sizeof address);
  return IN6_IS_ADDR_LOOPBACK(&address) || (IN6_IS_ADDR_V4MAPPED(&address) && address.s6_addr[12] == 127);
}

bool IsAnInterfaces(std::string_view host) {
  ifaddrs* interfaces = nullptr;
  if (getifaddrs(&interfaces) != 0) return false;
  bool found = false;
  for (const ifaddrs* each = interfaces; each != nullptr && !found; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    sockaddr_storage address = {};
    const int family = each->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    std::memcpy(&address, each->ifa_addr, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    // Every link may have a host of this address.
    if (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&reinterpret_cast<sockaddr_in6&>(address).sin6_addr)) continue;
    found = std::string_view(EncodeEnd(address)).substr(0, kEncodedHostBytes) == host;
  }
  freeifaddrs(interfaces);
  return found;
}

}  // namespace

TcpEnds EndsOf(int fd) {
  TcpEnds ends;
  sockaddr_storage storage = {};
  socklen_t length = sizeof(storage);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return ends;
  ends.local = EncodeEnd(storage);
  storage = {};
  length = sizeof(storage);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  ends.peer = EncodeEnd(storage);
  return ends;
}

bool IsOnThisHost(const SocketAddress& address) {
  sockaddr_storage storage = {};
  std::memcpy(&storage, address.data(), address.length());
  const std::string end = EncodeEnd(storage);
  const std::string_view host = std::string_view(end).substr(0, kEncodedHostBytes);
  return !end.empty() && (IsLoopback(host) || IsAnInterfaces(host));
}

bool PeerIsOnThisHost(int fd) {
  const TcpEnds ends = EndsOf(fd);
  if (ends.peer.empty()) return false;
  const std::string_view host = std::string_view(ends.peer).substr(0, kEncodedHostBytes);
  return host == std::string_view(ends.local).substr(0, kEncodedHostBytes) || IsLoopback(host) || IsAnInterfaces(host);
}

std::string PeerHost(int fd) {
  sockaddr_storage storage = {};
  socklen_t length = sizeof(storage);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return std::string();
  if (storage.ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&reinterpret_cast<sockaddr_in6*>(&storage)->sin6_addr)) {
    in6_addr network = reinterpret_cast<sockaddr_in6*>(&storage)->sin6_addr;
    std::memset(&network.s6_addr[8], 0, 8);
    char text[INET6_ADDRSTRLEN] = "";
    return absl::StrCat(inet_ntop(AF_INET6, &network, text, sizeof(text)), "/64");
  }
  const SocketAddress address(reinterpret_cast<const sockaddr*>(&storage), length);
  return address.is_ip() ? address.ToTarget().host : std::string();
}

std::optional<PeerCredentials> GetPeerCredentials(int fd) {
  int family = 0;
  socklen_t length = sizeof(family);
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0 || family != AF_UNIX) return std::nullopt;
  ucred kernels = {};
  length = sizeof(kernels);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &kernels, &length) != 0) return std::nullopt;
  // The kernel's answer for a socket that is not connected.
  if (kernels.uid == static_cast<uid_t>(-1)) return std::nullopt;
  PeerCredentials credentials;
  credentials.uid = kernels.uid;
  credentials.gid = kernels.gid;
  if (kernels.pid > 0) credentials.pid = kernels.pid;
  credentials.groups.resize(kGroupsAtFirst);
  // The kernel says how much room it wants, and what it has to say does not change.
  for (int attempt = 0; attempt < 2; ++attempt) {
    length = static_cast<socklen_t>(credentials.groups.size() * sizeof(gid_t));
    const int result = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, credentials.groups.data(), &length);
    const bool too_small = result != 0 && errno == ERANGE;
    credentials.groups.resize(result == 0 || too_small ? length / sizeof(gid_t) : 0);
    if (!too_small) break;
  }
  return credentials;
}

int PollTimeout(SteadyTime deadline) {
  if (deadline == SteadyTime::InfiniteFuture()) return -1;
  const int64_t milliseconds = absl::ToInt64Milliseconds(absl::Ceil(deadline.Left(), absl::Milliseconds(1)));
  return static_cast<int>(std::clamp<int64_t>(milliseconds, 0, INT_MAX));
}

}  // namespace shmrpc::tcp
