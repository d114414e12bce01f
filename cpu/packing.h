// Formats that checkpoints come in already packed, kept as they are: bitsandbytes, GPTQ, AWQ, compressed-tensors, FP8, MXFP4, NVFP4 and
// GGUF (layouts: cuda/airkern.h). What differs within a family is in the format's name, and so in its id.
#pragma once

#include <cstdint>

#include "floats.h"

namespace airk {

enum class Family : int32_t { bnb4, int4, int8, fp8, mxfp4, nvfp4, q4_k, q5_k, q6_k, iq4_nl, q4_1, q5_0, q5_1, q2_k, q3_k, iq4_xs, tq2_0,
                              iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m };
constexpr int32_t family_count = 24;

// Types of Packing: AIRK_F32, AIRK_F16, AIRK_BF16, and for int8 the scale of LLM.int8: an f32 that means 127 times the step.
constexpr int32_t type_scb = 3;

// What a format's name says. Powers of two are given by their exponents.
struct Packing {
  Family family;
  // bnb4: elements of the flat tensor that share an absmax. int4, int8, fp8: columns that share a scale; group_row: the whole row.
  int32_t group_shift;
  // bnb4: absmax that share a nested absmax; not_nested: absmax is f32. fp8: rows that share a scale.
  int32_t second_shift;
  int32_t type;  // bnb4: that weights are rounded to. int4, int8: of the scales.
  bool zero;     // int4, int8: zero points are stored
  bool order;    // int4, int8: which group a column belongs to is stored too, as columns were not grouped in their order
  bool product;  // nvfp4: scales are multiplied by the global one, as ModelOpt has it, where compressed-tensors divides
};
constexpr int32_t group_row = -1, not_nested = -1;

constexpr uint64_t super_block = 256;  // columns of a block of q2_k to q6_k, tq2_0 and iq2_xxs to iq4_xs
constexpr uint64_t q4_k_bytes = 144, q5_k_bytes = 176, q6_k_bytes = 210;
constexpr uint64_t nvfp4_group = 16;

// Sections of an extent. What a family lacks must not be read.
struct PackedView {
  Packing packing;
  uint64_t groups;           // scales of a row
  const uint8_t *code;       // also the whole blocks of q4_k, q5_k, q6_k
  const uint8_t *scale;      // bnb4: absmax
  const uint8_t *zero;       // int4: u8, int8: i16
  const uint8_t *high;       // q5_0, q5_1: fifth bits, 4 bytes a block; q3_k: third bits; iq types: what is not in code
  const uint8_t *order;      // int4, int8: u16 [cols]
  const float *map;          // bnb4: [16]
  const float *nested_map;   // bnb4: [256]
  const float *nested;       // bnb4: nested absmax
  const float *constant;     // bnb4: nested offset; nvfp4: global scale
};

// Where sections start, in bytes from the extent's start; 0 where the family has none.
struct PackedLayout {
  uint64_t map, nested_map, constant, nested, scale, zero, high, order, code;
};

// Reads a name such as "bnb4-64x256-bf16". Returns false where it is none.
bool parse_packing(const char *name, Packing *packing);

// A packing as the bits of a format id above the lowest four, and back. Returns false for bits that no name has.
int32_t packing_bits(const Packing &packing);
bool packing_of(int32_t bits, Packing *packing);

const char *family_name(Family family);

}  // namespace airk
