#include "kernels.h"

namespace airk {

#if defined(__x86_64__)

const Kernels *kernels_of(Isa isa) {
  if (isa >= Isa::avx512) return kernels_avx512();
  return isa == Isa::avx2 ? kernels_avx2() : kernels_portable();
}

const FastKernels *fast_kernels_of(Isa isa, Format format, uint64_t tokens) {
  if (format != Format::q8 && format != Format::q4o) return nullptr;
  // One tile product serves eight tokens, at the cost of about two by vectors.
  if (isa == Isa::amx && tokens > 2) return fast_kernels_amx();
  if (isa >= Isa::avx512) return fast_kernels_avx512();
  return isa == Isa::avx2 ? fast_kernels_avx2() : nullptr;
}

const TileKernel *fast_tiles_of(Isa isa, bool few_tokens) { return isa == Isa::amx ? bf16_tiles_amx(few_tokens) : nullptr; }

const IntegerTiles *integer_tiles_of(Isa isa, Format format, bool few_tokens) {
  return isa == Isa::avx512 && (format == Format::q8 || format == Format::q4o) ? integer_tiles_avx512(few_tokens) : nullptr;
}

#else

const Kernels *kernels_of(Isa) { return kernels_portable(); }
const FastKernels *fast_kernels_of(Isa, Format, uint64_t) { return nullptr; }
const TileKernel *fast_tiles_of(Isa, bool) { return nullptr; }
const IntegerTiles *integer_tiles_of(Isa, Format, bool) { return nullptr; }

#endif

const SearchKernels *search_kernels_of(Isa isa) { return &kernels_of(isa)->search; }

}  // namespace airk
