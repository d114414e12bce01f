#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstring>

namespace airk {

namespace {

constexpr const char *kNames[] = {"portable", "avx2", "avx512", "amx"};

#if defined(__x86_64__)
struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d)) return {};
  return r;
}

bool all(unsigned word, std::initializer_list<int> bits) {
  for (int bit : bits) {
    if (!(word >> bit & 1)) return false;
  }
  return true;
}

// Which register states the operating system saves.
uint64_t saved_states() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux grants the 8 KiB of tile state only to processes that ask.
bool request_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

Isa detect_isa() {
#if defined(__x86_64__)
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);
  constexpr int kOsxsave = 27, kFma = 12, kF16c = 29, kAvx = 28, kAvx2 = 5;
  if (!all(one.c, {kOsxsave, kFma, kF16c, kAvx}) || !all(seven.b, {kAvx2})) return Isa::portable;
  const uint64_t saved = saved_states();
  constexpr uint64_t kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;
  if ((saved & kYmm) != kYmm) return Isa::portable;
  constexpr int kAvx512F = 16, kAvx512Dq = 17, kAvx512Bw = 30, kAvx512Vl = 31, kAvx512Vnni = 11;
  if ((saved & kZmm) != kZmm || !all(seven.b, {kAvx512F, kAvx512Dq, kAvx512Bw, kAvx512Vl}) || !all(seven.c, {kAvx512Vnni})) {
    return Isa::avx2;
  }
  constexpr int kAmxBf16 = 22, kAmxTile = 24, kAmxInt8 = 25, kAvx512Bf16 = 5;
  if ((saved & kTiles) != kTiles || !all(seven.d, {kAmxBf16, kAmxTile, kAmxInt8}) || !all(seven_one.a, {kAvx512Bf16}) ||
      !request_tiles()) {
    return Isa::avx512;
  }
  return Isa::amx;
#else
  return Isa::portable;
#endif
}

const char *isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

bool parse_isa(const std::string &name, Isa *isa) {
  for (int i = 0; i < 4; i++) {
    if (name == kNames[i]) {
      *isa = static_cast<Isa>(i);
      return true;
    }
  }
  return false;
}

std::string processor_name() {
#if defined(__x86_64__)
  char brand[49] = {};
  if (cpuid(0x80000000, 0).a >= 0x80000004) {
    for (unsigned i = 0; i < 3; i++) {
      const Registers part = cpuid(0x80000002 + i, 0);
      std::memcpy(brand + 16 * i, &part, 16);
    }
    std::string name(brand);
    name.erase(0, name.find_first_not_of(' ') == std::string::npos ? name.size() : name.find_first_not_of(' '));
    while (!name.empty() && name.back() == ' ') name.pop_back();
    if (!name.empty()) return name;
  }
#endif
  return "CPU";
}

}  // namespace airk
