// The small numbers of a long block of GGUF's all at once, a byte each, for loops that decode whole blocks; one at a time they are in gguf_blocks.h.
#pragma once

#include <cstring>

#include "gguf_blocks.h"

namespace airk {

// Four bytes as one word, in the order of the machine: the operations below move no bit from one byte to another.
AIRK_INLINE uint32_t load_bytes(const uint8_t *from) {
  uint32_t word;
  std::memcpy(&word, from, 4);
  return word;
}
AIRK_INLINE void store_bytes(uint8_t *to, uint32_t word) { std::memcpy(to, &word, 4); }

// scale, minimum [8], 0 .. 63, of the 12 bytes that q4_k and q5_k keep them in.
AIRK_INLINE void k_scales(const uint8_t *packed, uint8_t *scale, uint8_t *minimum) {
  const uint32_t a = load_bytes(packed), b = load_bytes(packed + 4), c = load_bytes(packed + 8);
  store_bytes(scale, a & 0x3f3f3f3fu);
  store_bytes(scale + 4, (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u));
  store_bytes(minimum, b & 0x3f3f3f3fu);
  store_bytes(minimum + 4, (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u));
}

// scale [16], 0 .. 63 and so 32 more than it means, of the first 12 bytes of q3_k's head.
AIRK_INLINE void q3_k_scales(const uint8_t *head, uint8_t *scale) {
  const uint32_t a = load_bytes(head), b = load_bytes(head + 4), high = load_bytes(head + 8);
  store_bytes(scale, (a & 0x0f0f0f0fu) | (high << 4 & 0x30303030u));
  store_bytes(scale + 4, (b & 0x0f0f0f0fu) | (high << 2 & 0x30303030u));
  store_bytes(scale + 8, (a >> 4 & 0x0f0f0f0fu) | (high & 0x30303030u));
  store_bytes(scale + 12, (b >> 4 & 0x0f0f0f0fu) | (high >> 2 & 0x30303030u));
}

// scale [8], 0 .. 63 and so 32 more than it means, of iq4_xs's head.
AIRK_INLINE void iq4_xs_scales(const uint8_t *head, uint8_t *scale) {
  const unsigned high = load_u16(head + 2);
  for (unsigned i = 0; i < 8; i += 2) {
    const unsigned low = head[4 + i / 2];
    scale[i] = static_cast<uint8_t>((low & 15) | (high >> (2 * i) & 3) << 4);
    scale[i + 1] = static_cast<uint8_t>(low >> 4 | (high >> (2 * i + 2) & 3) << 4);
  }
}

}  // namespace airk
