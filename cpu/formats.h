// Weight formats: names, sizes, and views of the sections of an extent (layouts: cuda/airkern.h).
//
// Extents come from files that nobody vouches for. A view is made only where every section lies inside the bytes that the
// caller has; what the outlier sections say is checked where it is used.
#pragma once

#include <cstdint>

#include "floats.h"
#include "packing.h"
#include "runtime.h"

namespace airk {

// packed: one of the families of packing.h, which the id tells apart.
enum class Format : int32_t { f32, f16, bf16, q8, nf4, q4o, packed };
constexpr int32_t plain_format_count = 6;

constexpr uint64_t block_cols = 32;       // q8, q4o: columns that share a scale
constexpr uint64_t nf4_block = 64;        // elements of the flat tensor that share an absmax
constexpr uint64_t outlier_group = 64;    // q4o: rows that share an outlier_base
constexpr uint64_t max_q4o_cols = 65536;  // outlier_col is u16
constexpr float outlier_unit = 128.0f;

// The 16 values of NF4, as the bitsandbytes library defines them.
#define AIRK_NF4_VALUES                                                                                                                \
  {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,            \
   -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,               \
   0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f}
extern const float nf4_values[16];

// 2 ^ (i / 16). Written out, since exp2's last bit differs between machines. Macros, as host and device each need an array.
#define AIRK_POWERS_OF_A_SIXTEENTH                                                                                                     \
  {1.0f,        1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f, 1.29683955f, 1.35425555f,                            \
   1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f, 1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f}

// Where an extent's sections start, in bytes from the extent's start. Sections a format lacks are 0.
struct Layout {
  uint64_t values;  // f32, f16, bf16
  uint64_t scale;   // q8: scale; nf4: absmax; q4o: block_scale
  uint64_t code;    // q8, nf4, q4o
  uint64_t code_table, column_scale, row_scale, outlier_base, outlier_start, outlier_col, outlier;  // q4o
  uint64_t bytes;
};

// Returns false where the shape is not valid for the format or a size overflows, and for packed.
bool layout_of(Format format, uint64_t rows, uint64_t cols, uint64_t outliers, Layout *layout);
bool packed_layout_of(const Packing &packing, uint64_t rows, uint64_t cols, PackedLayout *layout, uint64_t *bytes);
PackedView packed_view_of(const Packing &packing, const PackedLayout &layout, uint64_t cols, const uint8_t *base);

struct DenseView {
  const uint8_t *values;  // [rows][cols], elements as the format says
};

struct Q8View {
  const uint16_t *scale;  // bf16 [rows][blocks]
  const int8_t *code;     // [rows][blocks * 32]
};

struct Nf4View {
  const float *absmax;  // [ceil(rows * cols / 64)]
  const uint8_t *code;  // [ceil(rows * cols / 2)]
};

struct Q4oView {
  const int8_t *code_table;     // [16]
  const uint8_t *column_scale;  // [cols]
  const uint16_t *row_scale;    // bf16 [rows]
  const int8_t *block_scale;    // [rows][blocks]
  const uint8_t *code;          // [rows][blocks * 16]
  const uint32_t *outlier_base;
  const uint16_t *outlier_start;
  const uint16_t *outlier_col;
  const uint16_t *outlier;  // f16
};

// An extent whose sections are known to lie within its bytes; the view that belongs to `format` is set.
struct Weight {
  Format format;
  uint64_t rows, cols, blocks, outliers;
  DenseView dense;
  Q8View q8;
  Nf4View nf4;
  Q4oView q4o;
  PackedView packed;
};

// Checks an extent's arguments and fills *weight; on failure the context has the reason, which names `op`.
airk_status view_weight(airk_context *context, const char *op, int32_t format, airk_ptr address, uint64_t weight_bytes, uint64_t rows,
                        uint64_t cols, uint64_t outliers, Weight *weight);

// Writes which of the outliers belong to a row. Returns false where the sections contradict themselves.
bool outliers_of_row(const Weight &weight, uint64_t row, uint64_t *begin, uint64_t *end);

// Fails because the outlier sections of the weight contradict themselves.
airk_status fail_outliers(airk_context *context, const char *op);

// 2 ^ ((u - 128) / 16), the same float on every machine.
float column_scale_value(uint8_t u);

// Returns the format with this id, checked.
bool format_of(int32_t id, Format *format);
const char *format_name(Format format);

}  // namespace airk
