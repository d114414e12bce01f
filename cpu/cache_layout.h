// Where a row of keys or values lies in a page of the KV cache, for both libraries: airk_kv_append in cuda/airkern.h.
#pragma once

#include <cstdint>

#include "both.h"

namespace airk {

constexpr uint64_t kQ8Block = 32;  // elements of a row that share a scale

// What all rows of one cache share.
struct CacheShape {
  uint64_t kv_heads, page_tokens;
  uint64_t dim;  // elements of a row
  AIRK_BOTH_INLINE uint64_t blocks() const { return (dim + kQ8Block - 1) / kQ8Block; }
  AIRK_BOTH_INLINE uint64_t row_in_page(uint64_t head, uint64_t offset) const { return head * page_tokens + offset; }

  // Of f32 and f16, in elements.
  AIRK_BOTH_INLINE uint64_t element_of(uint64_t page, uint64_t head, uint64_t offset) const {
    return (page * kv_heads * page_tokens + row_in_page(head, offset)) * dim;
  }
  // Of q8, in bytes.
  AIRK_BOTH_INLINE uint64_t code_of(uint64_t page, uint64_t head, uint64_t offset) const {
    return page * page_bytes() + row_in_page(head, offset) * blocks() * kQ8Block;
  }
  AIRK_BOTH_INLINE uint64_t scale_of(uint64_t page, uint64_t head, uint64_t offset) const {
    return page * page_bytes() + kv_heads * page_tokens * blocks() * kQ8Block + row_in_page(head, offset) * blocks() * 2;
  }

 private:
  AIRK_BOTH_INLINE uint64_t page_bytes() const { return kv_heads * page_tokens * blocks() * (kQ8Block + 2); }
};

}  // namespace airk
