#include "hostile_descriptors.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "native_ring.h"

namespace shmrpc::fault {
namespace {

using framed::UniqueFd;
using Make = std::function<std::vector<UniqueFd>()>;

Make One(std::function<UniqueFd()> make) {
  return [make] {
    std::vector<UniqueFd> fds;
    fds.push_back(make());
    EXPECT_TRUE(fds[0].valid());
    return fds;
  };
}

Make Memfd(uint64_t size, int seals) {
  return One([=] { return MakeMemfd(size, seals); });
}

Make Many(size_t count) {
  return [=] {
    std::vector<UniqueFd> fds;
    for (size_t i = 0; i < count; ++i) fds.push_back(MakeMemfd(kSegmentBytes, RequiredSeals()));
    return fds;
  };
}

Make Opened(const char* path, int flags) {
  return One([=] { return UniqueFd(open(path, flags | O_CLOEXEC)); });
}

UniqueFd DiskFile() {
  // Of the file system that the program is on: /tmp may be memory.
  std::string path =
      absl::StrCat(std::filesystem::read_symlink("/proc/self/exe").parent_path().string(), "/diskXXXXXX");
  UniqueFd file(mkostemp(path.data(), O_CLOEXEC));
  EXPECT_EQ(unlink(path.c_str()), 0);
  EXPECT_EQ(ftruncate(file.get(), kSegmentBytes), 0);
  return file;
}

UniqueFd Pipe() {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd write_end(ends[1]);
  return UniqueFd(ends[0]);
}

// In order, but that it can only be written.
UniqueFd WriteOnly() {
  const UniqueFd memory = MakeMemfd(kSegmentBytes, 0);
  UniqueFd again(open(absl::StrCat("/proc/self/fd/", memory.get()).c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS, RequiredSeals()), 0);
  return again;
}

}  // namespace

const std::vector<DescriptorAttack>& DescriptorAttacks() {
  static const auto* const attacks = [] {
    const Make good = Memfd(kSegmentBytes, RequiredSeals());
    auto* const list = new std::vector<DescriptorAttack>{
        {"UnsealedMemfd", Memfd(kSegmentBytes, 0), "seals"},
        {"MemfdThatMayShrink", Memfd(kSegmentBytes, RequiredSeals() & ~F_SEAL_SHRINK), "F_SEAL_SHRINK"},
        {"MemfdThatMayGrow", Memfd(kSegmentBytes, RequiredSeals() & ~F_SEAL_GROW), "F_SEAL_GROW"},
        {"MemfdThatOthersMayWrite", Memfd(kSegmentBytes, RequiredSeals() & ~F_SEAL_FUTURE_WRITE),
         "F_SEAL_FUTURE_WRITE"},
        {"MemfdWhoseSealsMayChange", Memfd(kSegmentBytes, RequiredSeals() & ~F_SEAL_SEAL), "F_SEAL_SEAL"},
        {"MemfdOfOnePage", Memfd(4096, RequiredSeals()), "4096 bytes"},
        {"MemfdOfNoBytes", Memfd(0, RequiredSeals()), "0 bytes"},
        {"MemfdOneByteShort", Memfd(kSegmentBytes - 1, RequiredSeals()), "266239 bytes"},
        {"MemfdOf1TiB", Memfd(uint64_t{1} << 40, RequiredSeals()), "1099511627776 bytes"},
        {"MemfdThatCannotBeRead", One(WriteOnly), "refused"},
        {"DiskFile", One(DiskFile), "refused"},
        {"Pipe", One(Pipe), "pipe"},
        {"DevZero", Opened("/dev/zero", O_RDWR), "device"},
        {"Directory", Opened("/", O_RDONLY | O_DIRECTORY), "directory"},
        {"ProcFile", Opened("/proc/self/maps", O_RDONLY), "refused"},
        {"Socket", One([] { return UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }), "socket"},
        {"EventFd", One([] { return UniqueFd(eventfd(0, EFD_CLOEXEC)); }), "refused"},
        {"NoDescriptor", [] { return std::vector<UniqueFd>(); }, "0 descriptors"},
        {"TwoDescriptors", Many(2), "more descriptors"},
        {"FiveDescriptors", Many(5), "more descriptors"},
        {"DescriptorsUpToTheKernelsLimit", Many(253), "more descriptors"},
        {"RingOfAnotherSize", good, "a ring of 131072 bytes", Hello::Offer{135168, 131072}},
        {"RingOf2To64Minus1Bytes", good, "a ring of 18446744073709551615 bytes",
         Hello::Offer{~uint64_t{0}, ~uint64_t{0}}},
        {"SegmentOf0Bytes", good, "", Hello::Offer{0, kRingBytes}},
        {"SegmentOf1TiBAnnounced", good, "", Hello::Offer{uint64_t{1} << 40, kRingBytes}},
    };
    for (DescriptorAttack& attack : *list) attack.too_many = attack.make().size() > 1;
    return list;
  }();
  return *attacks;
}

std::vector<int> Numbers(const std::vector<UniqueFd>& fds) {
  std::vector<int> numbers;
  for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
  return numbers;
}

}  // namespace shmrpc::fault
