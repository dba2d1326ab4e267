#ifndef SHMRPC_TESTS_SOAK_RANDOM_H_
#define SHMRPC_TESTS_SOAK_RANDOM_H_

#include <cmath>
#include <cstdint>

namespace shmrpc::soak {

// The mixing step of splitmix64: neighbouring inputs give outputs that have nothing to do with each other.
inline uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// Random numbers that are the same for the same seed on every machine. Not synchronised.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(Mix(seed + 1)) {}

  uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15); }
  // From 0 up to, and without, `limit`, which is positive.
  uint64_t Below(uint64_t limit) { return Next() % limit; }
  // From 0 up to, and without, 1.
  double Fraction() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  // From `low`, which is positive, up to `high`, each order of magnitude as likely as the others.
  double LogUniform(double low, double high) { return low * std::pow(high / low, Fraction()); }

 private:
  uint64_t state_;
};

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_RANDOM_H_
