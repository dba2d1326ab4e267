#include "shmrpc/target.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/src/absl_strings.h"

namespace shmrpc {
namespace {

constexpr std::string_view kSchemes[] = {"dns", "ipv4", "ipv6", "unix", "unix-abstract", "inproc", "grpc", "grpc+unix"};
constexpr std::string_view kForms =
    "host:port, [ipv6]:port, dns:///host:port, ipv4:a.b.c.d:port, ipv6:[addr]:port, unix:path, unix-abstract:name, "
    "inproc:name, grpc:target";

// A path needs a terminating NUL in sun_path, an abstract name a leading one.
constexpr size_t kMaxUnixName = sizeof(sockaddr_un::sun_path) - 1;
constexpr size_t kMaxHostName = 253;  // RFC 1035, without the dot at the end
constexpr size_t kMaxHostLabel = 63;

absl::Status Malformed(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("address \"", absl::CHexEscape(ToAbsl(text)), "\": ", ToAbsl(why)));
}

bool IsIpv4(std::string_view host) {
  in_addr address;
  return inet_pton(AF_INET, std::string(host).c_str(), &address) == 1;
}

// With an optional zone, as in fe80::1%eth0.
bool IsIpv6(std::string_view host) {
  const size_t percent = host.find('%');
  if (percent != std::string_view::npos) {
    const std::string_view zone = host.substr(percent + 1);
    if (zone.empty() || !std::all_of(zone.begin(), zone.end(), [](char c) {
          return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_';
        })) {
      return false;
    }
    host = host.substr(0, percent);
  }
  if (host.find('\0') != std::string_view::npos) return false;
  in6_addr address;
  return inet_pton(AF_INET6, std::string(host).c_str(), &address) == 1;
}

// Why `host` is neither a name nor an IPv4 address; empty when it is one.
std::string WhatIsWrongWithHost(std::string_view host) {
  if (host.empty()) {
    return "the host is missing; a client names one, such as localhost:50051, and a server that wants to listen on "
           "all interfaces writes 0.0.0.0:50051 or [::]:50051";
  }
  if (host.find_first_not_of("0123456789.") == std::string_view::npos) {
    if (IsIpv4(host)) return "";
    return absl::StrCat("\"", ToAbsl(host), "\" is not an IPv4 address, which has four numbers from 0 to 255");
  }
  const std::string_view name = host.ends_with('.') ? host.substr(0, host.size() - 1) : host;
  if (name.size() > kMaxHostName) {
    return absl::StrCat("the host name has ", name.size(), " characters, the limit is ", kMaxHostName);
  }
  for (const absl::string_view label : absl::StrSplit(ToAbsl(name), '.')) {
    if (label.empty()) return absl::StrCat("the host name \"", absl::CHexEscape(ToAbsl(host)), "\" has an empty part");
    if (label.size() > kMaxHostLabel) {
      return absl::StrCat("a part of the host name has ", label.size(), " characters, the limit is ", kMaxHostLabel);
    }
    for (char c : label) {
      if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_') continue;
      return absl::StrCat("the host name contains '", absl::CHexEscape(absl::string_view(&c, 1)),
                          "'; host names are made of letters, digits, '-', '_' and '.'");
    }
  }
  return "";
}

enum class HostForm { kAny, kIpv4, kIpv6 };

// `rest` is "host:port"; `text` is the whole address, for errors.
absl::StatusOr<Target> ParseHostPort(std::string_view text, std::string_view rest, HostForm form) {
  std::string_view host;
  std::string_view port;
  const bool bracketed = rest.starts_with("[");
  if (bracketed) {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos) {
      return Malformed(text, "the bracket '[' is not closed; write [::1]:50051");
    }
    host = rest.substr(1, close - 1);
    if (!IsIpv6(host)) {
      return Malformed(text, absl::StrCat("\"", absl::CHexEscape(ToAbsl(host)),
                                          "\" in the brackets is not an IPv6 address; write for example [::1]:50051"));
    }
    rest = rest.substr(close + 1);
    if (rest.empty()) {
      return Malformed(text, absl::StrCat("the port is missing; write for example [", ToAbsl(host), "]:50051"));
    }
    if (rest[0] != ':') return Malformed(text, "only :port may follow the bracket ']', as in [::1]:50051");
    port = rest.substr(1);
  } else {
    const size_t colon = rest.find(':');
    if (colon == std::string_view::npos) {
      if (rest.empty()) return Malformed(text, absl::StrCat("the host and the port are missing; write host:port"));
      return Malformed(text, absl::StrCat("the port is missing; write for example ", absl::CHexEscape(ToAbsl(rest)),
                                          ":50051, or one of the forms ", ToAbsl(kForms)));
    }
    if (IsIpv6(rest)) {
      return Malformed(text, absl::StrCat("an IPv6 address needs brackets and a port; write for example [",
                                          ToAbsl(rest), "]:50051"));
    }
    host = rest.substr(0, colon);
    port = rest.substr(colon + 1);
    const size_t last_colon = rest.rfind(':');
    if (last_colon != colon && IsIpv6(rest.substr(0, last_colon))) {
      return Malformed(text, absl::StrCat("an IPv6 address needs brackets; write [", ToAbsl(rest.substr(0, last_colon)),
                                          "]:", absl::CHexEscape(ToAbsl(rest.substr(last_colon + 1)))));
    }
    const std::string wrong = WhatIsWrongWithHost(host);
    if (!wrong.empty()) return Malformed(text, wrong);
  }

  if (port.empty()) return Malformed(text, "the port after ':' is missing; it is a number from 0 to 65535");
  uint32_t number = 0;
  const bool digits = port.find_first_not_of("0123456789") == std::string_view::npos;
  if (!digits || !absl::SimpleAtoi(ToAbsl(port), &number) || number > 65535) {
    std::string why = absl::StrCat("the port \"", absl::CHexEscape(ToAbsl(port)), "\" is not a number from 0 to 65535");
    if (!digits && !bracketed) {
      absl::StrAppend(&why, "; if \"", ToAbsl(host), ":\" was meant as a scheme, it is not known; the forms are ",
                      ToAbsl(kForms));
    }
    return Malformed(text, why);
  }
  if (form == HostForm::kIpv4 && (bracketed || !IsIpv4(host))) {
    return Malformed(text, absl::StrCat("\"", absl::CHexEscape(ToAbsl(host)),
                                        "\" is not an IPv4 address; write ipv4:127.0.0.1:50051, or leave \"ipv4:\" "
                                        "out for a host name"));
  }
  if (form == HostForm::kIpv6 && !bracketed) {
    return Malformed(text, absl::StrCat("\"", absl::CHexEscape(ToAbsl(host)),
                                        "\" is not an IPv6 address in brackets; write ipv6:[::1]:50051"));
  }

  Target target;
  target.kind = Target::Kind::kHostPort;
  target.host = std::string(host);
  target.port = static_cast<uint16_t>(number);
  return target;
}

absl::StatusOr<Target> ParseDns(std::string_view text, std::string_view rest) {
  if (rest.starts_with("//")) {
    if (!rest.starts_with("///")) {
      return Malformed(text, "a DNS server of your choice (dns://server/...) is not supported; write dns:///host:port");
    }
    rest.remove_prefix(3);
  }
  return ParseHostPort(text, rest, HostForm::kAny);
}

// As gRPC reads the path of a URI: % and two hexadecimal digits are a byte, and any other % is itself.
std::string PercentDecode(absl::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 1])) &&
        absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 2]))) {
      decoded += absl::HexStringToBytes(text.substr(i + 1, 2));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

// What PercentDecode, and a list of addresses, would otherwise take for something else.
std::string PercentEncode(absl::string_view name) { return absl::StrReplaceAll(name, {{"%", "%25"}, {",", "%2C"}}); }

absl::StatusOr<Target> ParseName(Target::Kind kind, absl::string_view text, absl::string_view scheme,
                                 absl::string_view written) {
  const std::string name = kind == Target::Kind::kInproc ? std::string(written) : PercentDecode(written);
  if (name.empty()) {
    return Malformed(text, absl::StrCat("the ", kind == Target::Kind::kUnix ? "path" : "name", " after \"",
                                        ToAbsl(scheme), ":\" is missing"));
  }
  if (name.find('\0') != std::string_view::npos) return Malformed(text, "a NUL byte is not allowed in a name");
  if (kind != Target::Kind::kInproc && name.size() > kMaxUnixName) {
    return Malformed(text, absl::StrCat("the ", kind == Target::Kind::kUnix ? "path" : "name", " has ", name.size(),
                                        " bytes, the kernel's limit for a Unix socket is ", kMaxUnixName,
                                        kind == Target::Kind::kUnix ? "; use a shorter or a relative path" : ""));
  }
  Target target;
  target.kind = kind;
  target.name = name;
  return target;
}

absl::StatusOr<Target> ParseUnix(std::string_view text, std::string_view rest) {
  std::string_view path = rest;
  if (path.starts_with("//")) path.remove_prefix(2);
  if (path.size() < rest.size() && !path.starts_with('/')) {
    return Malformed(text,
                     absl::StrCat("after \"unix://\" comes an absolute path, as in unix:///run/server.sock; for a "
                                  "relative path write unix:",
                                  absl::CHexEscape(ToAbsl(path))));
  }
  return ParseName(Target::Kind::kUnix, text, "unix", path);
}

// Whether it is a good one, the gRPC library says.
absl::StatusOr<Target> ParseGrpc(std::string_view text, std::string_view grpc_target) {
  if (grpc_target.empty()) {
    return Malformed(text, "what follows \"grpc:\" is missing; write for example grpc:localhost:50051");
  }
  if (grpc_target.find_first_not_of("0123456789") == std::string_view::npos) {
    return Malformed(text, absl::StrCat("the host is missing; write for example grpc:localhost:", ToAbsl(grpc_target),
                                        ", or, if the host's name is grpc, dns:grpc:", ToAbsl(grpc_target)));
  }
  if (grpc_target.find('\0') != std::string_view::npos) return Malformed(text, "a NUL byte is not allowed in a target");
  Target target;
  target.kind = Target::Kind::kGrpc;
  target.name = std::string(grpc_target);
  return target;
}

bool IsForGrpc(std::string_view text) { return text.starts_with("grpc:") || text.starts_with("grpc+unix:"); }

bool HasKnownScheme(std::string_view text) {
  const size_t colon = text.find(':');
  return colon != std::string_view::npos &&
         std::find(std::begin(kSchemes), std::end(kSchemes), text.substr(0, colon)) != std::end(kSchemes);
}

// The addresses of a list. One for the gRPC library goes on until another one begins with a scheme.
std::vector<std::string_view> SplitList(std::string_view text) {
  std::vector<std::string_view> elements;
  for (const absl::string_view piece : absl::StrSplit(ToAbsl(text), ',')) {
    const std::string_view element = ToStd(piece);
    if (!elements.empty() && IsForGrpc(elements.back()) && !HasKnownScheme(element)) {
      const char* const begin = elements.back().data();
      elements.back() = std::string_view(begin, static_cast<size_t>(element.data() + element.size() - begin));
    } else {
      elements.push_back(element);
    }
  }
  return elements;
}

// `inherited`: what an earlier address of a list says of this one, if it names no scheme itself.
absl::StatusOr<Target> ParseText(std::string_view text, HostForm inherited) {
  if (text.empty()) return Malformed(text, absl::StrCat("it is empty; the forms are ", ToAbsl(kForms)));
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos) {
    const std::string_view scheme = text.substr(0, colon);
    const std::string_view rest = text.substr(colon + 1);
    if (scheme == "dns") return ParseDns(text, rest);
    if (scheme == "ipv4") return ParseHostPort(text, rest, HostForm::kIpv4);
    if (scheme == "ipv6") return ParseHostPort(text, rest, HostForm::kIpv6);
    if (scheme == "unix") return ParseUnix(text, rest);
    if (scheme == "unix-abstract") return ParseName(Target::Kind::kUnixAbstract, text, scheme, rest);
    if (scheme == "grpc") return ParseGrpc(text, rest);
    if (scheme == "grpc+unix") {
      if (rest.empty()) return Malformed(text, "the path after \"grpc+unix:\" is missing");
      return ParseGrpc(text, absl::StrCat("unix:", ToAbsl(rest)));
    }
    if (scheme == "inproc") return ParseName(Target::Kind::kInproc, text, scheme, rest);
    if (rest.starts_with("//")) {
      return Malformed(text, absl::StrCat("the scheme \"", absl::CHexEscape(ToAbsl(scheme)),
                                          "\" is not known; the forms are ", ToAbsl(kForms)));
    }
  }
  return ParseHostPort(text, text, inherited);
}

// One address of several. `previous`: the one before it, for what may have been meant.
absl::StatusOr<Target> ParseElement(std::string_view text, HostForm inherited, std::string_view previous) {
  if (text.empty())
    return Malformed(text, "between two commas, and before the first and after the last, is an address");
  if (absl::ascii_isspace(static_cast<unsigned char>(text.front())) ||
      absl::ascii_isspace(static_cast<unsigned char>(text.back()))) {
    return Malformed(text, "there is no white space beside a comma");
  }
  absl::StatusOr<Target> target = ParseText(text, inherited);
  if (target.ok()) {
    target->original = std::string(text);
    return target;
  }
  std::string why(target.status().message());
  const std::string_view scheme = previous.substr(0, previous.find(':'));
  if (!HasKnownScheme(text) && inherited != HostForm::kAny) {
    absl::StrAppend(&why,
                    "; the scheme of an address before it holds for this one, too: write dns:host:port to end that");
  } else if (!HasKnownScheme(text) && HasKnownScheme(previous) && scheme != "dns") {
    absl::StrAppend(&why, "; a comma separates addresses, each with its own \"", ToAbsl(scheme), ":\"");
  }
  return absl::InvalidArgumentError(why);
}

}  // namespace

absl::StatusOr<Target> Target::Parse(std::string_view text) {
  if (SplitList(text).size() > 1) {
    return Malformed(text,
                     "it is a list, which only a channel takes; Listen is called once for each address. "
                     "A name or path has no comma: that of a Unix socket is written %2C");
  }
  absl::StatusOr<Target> target = ParseText(text, HostForm::kAny);
  if (target.ok()) target->original = std::string(text);
  return target;
}

absl::StatusOr<std::vector<Target>> Target::ParseList(std::string_view text) {
  std::vector<Target> targets;
  const std::vector<std::string_view> elements = SplitList(text);
  if (elements.size() == 1) {
    absl::StatusOr<Target> target = Parse(text);
    if (!target.ok()) return target.status();
    targets.push_back(*std::move(target));
    return targets;
  }
  HostForm inherited = HostForm::kAny;
  for (size_t i = 0; i < elements.size(); ++i) {
    const std::string_view element = elements[i];
    absl::StatusOr<Target> target = ParseElement(element, inherited, i == 0 ? "" : elements[i - 1]);
    if (!target.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(target.status().message(), " (number ", i + 1, " of ",
                                                     elements.size(), " in \"", absl::CHexEscape(ToAbsl(text)), "\")"));
    }
    if (HasKnownScheme(element)) {
      inherited = element.starts_with("ipv4:")   ? HostForm::kIpv4
                  : element.starts_with("ipv6:") ? HostForm::kIpv6
                                                 : HostForm::kAny;
    }
    targets.push_back(*std::move(target));
  }
  return targets;
}

std::string Target::ToString() const {
  switch (kind) {
    case Kind::kHostPort:
      if (host.find(':') != std::string::npos) return absl::StrCat("[", host, "]:", port);
      // A host whose name is a scheme's would be read as that scheme.
      if (std::find(std::begin(kSchemes), std::end(kSchemes), host) != std::end(kSchemes)) {
        return absl::StrCat("dns:", host, ":", port);
      }
      return absl::StrCat(host, ":", port);
    case Kind::kUnix:
      return absl::StrCat(absl::StartsWith(name, "//") ? "unix://" : "unix:", PercentEncode(name));
    case Kind::kUnixAbstract:
      return absl::StrCat("unix-abstract:", PercentEncode(name));
    case Kind::kInproc:
      return absl::StrCat("inproc:", name);
    case Kind::kGrpc:
      return absl::StrCat("grpc:", name);
  }
  return original;
}

}  // namespace shmrpc
