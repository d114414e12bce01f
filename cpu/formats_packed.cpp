// Names, ids and sizes of packed formats.
#include <cstdlib>
#include <cstring>

#include "formats.h"
#include "gguf_blocks.h"
#include "sections.h"

namespace airk {
namespace {

const char *const names[family_count] = {"bnb4", "int4", "int8", "fp8", "mxfp4", "nvfp4", "q4_k", "q5_k", "q6_k", "iq4_nl",
                                         "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "iq4_xs", "tq2_0",
                                         "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m"};

// Which parameters a family has, and their least and largest exponents.
struct Grammar {
  bool group, second, second_first, type, zero;
  int32_t group_least, group_most, second_most, types;
  bool may_be_row, may_lack_second;
};

constexpr Grammar none = {};
constexpr Grammar grammars[family_count] = {
    {true, true, false, true, false, 1, 12, 12, 3, false, true},
    {true, false, false, true, true, 5, 16, 0, 3, true, true},
    {true, false, false, true, true, 5, 16, 0, 4, true, true},
    {true, true, true, false, false, 5, 16, 7, 0, true, false},
    none, none, none, none, none, none, none, none, none, none,
    none, none, none, none, none, none, none, none, none, none};

// Consumes a decimal power of two.
bool read_power(const char **text, int32_t *shift) {
  char *end;
  if (**text < '1' || **text > '9') return false;
  const unsigned long value = std::strtoul(*text, &end, 10);
  if (value > (1ul << 20) || (value & (value - 1)) != 0) return false;
  *text = end;
  *shift = __builtin_ctzl(value);
  return true;
}

bool read_word(const char **text, const char *word) {
  const std::size_t length = std::strlen(word);
  if (std::strncmp(*text, word, length) != 0) return false;
  *text += length;
  return true;
}

bool valid(const Packing &p) {
  const Grammar &g = grammars[static_cast<int>(p.family)];
  const bool row = p.group_shift == group_row;
  if (g.group ? (row ? !g.may_be_row : p.group_shift < g.group_least || p.group_shift > g.group_most) : p.group_shift != 0) return false;
  const bool lacks = p.second_shift == not_nested;
  if (g.second ? (lacks ? !g.may_lack_second : p.second_shift < 0 || p.second_shift > g.second_most) : !lacks) return false;
  if (p.product && p.family != Family::nvfp4) return false;
  return p.type >= 0 && p.type < (g.type ? g.types : 1) && (g.zero || !(p.zero || p.order)) && !(p.type == type_scb && (p.zero || p.order)) && !(row && p.order);
}

}  // namespace

const char *family_name(Family family) { return names[static_cast<int>(family)]; }

bool parse_packing(const char *name, Packing *packing) {
  for (int family = 0; family < family_count; family++) {
    const char *at = name;
    const Grammar &g = grammars[family];
    if (!read_word(&at, names[family])) continue;
    const bool product = static_cast<Family>(family) == Family::nvfp4 && read_word(&at, "-product");
    if (g.group ? *at != '-' : *at != 0) continue;
    Packing p = {static_cast<Family>(family), 0, not_nested, AIRK_F32, false, false, product};
    if (g.group) {
      at++;
      if (g.second_first && !(read_power(&at, &p.second_shift) && read_word(&at, "x"))) return false;
      if (g.may_be_row && read_word(&at, "row")) {
        p.group_shift = group_row;
      } else if (!read_power(&at, &p.group_shift)) {
        return false;
      }
      if (g.second && !g.second_first && read_word(&at, "x") && !read_power(&at, &p.second_shift)) return false;
    }
    if (g.type) {
      if (read_word(&at, "-f32")) p.type = AIRK_F32;
      else if (read_word(&at, "-f16")) p.type = AIRK_F16;
      else if (read_word(&at, "-bf16")) p.type = AIRK_BF16;
      else if (read_word(&at, "-scb")) p.type = type_scb;
      else return false;
    }
    if (g.zero) p.zero = read_word(&at, "-zero");
    if (g.zero) p.order = read_word(&at, "-order");
    *packing = p;
    return *at == 0 && valid(p);
  }
  return false;
}

int32_t packing_bits(const Packing &p) {
  return static_cast<int32_t>(p.family) | (p.group_shift + 1) << 6 | (p.second_shift + 1) << 11 | p.type << 16 | static_cast<int32_t>(p.zero) << 18 |
         static_cast<int32_t>(p.order) << 19 | static_cast<int32_t>(p.product) << 20;
}

bool packing_of(int32_t bits, Packing *packing) {
  if (bits < 0 || bits >= 1 << 21 || (bits & 63) >= family_count) return false;
  const auto flag = [bits](int at) { return (bits >> at & 1) != 0; };
  *packing = {static_cast<Family>(bits & 63), (bits >> 6 & 31) - 1, (bits >> 11 & 31) - 1, bits >> 16 & 3, flag(18), flag(19), flag(20)};
  return valid(*packing);
}

bool packed_layout_of(const Packing &p, uint64_t rows, uint64_t cols, PackedLayout *layout, uint64_t *bytes) {
  *layout = PackedLayout{};
  if (rows == 0 || cols == 0) return false;
  Sections sections;
  const uint64_t elements = sections.product(rows, cols), blocks = ceil_divide(cols, block_cols);
  const uint64_t row_blocks = sections.product(rows, blocks), groups = p.group_shift == group_row ? 1 : ceil_divide(cols, uint64_t{1} << p.group_shift);
  const uint64_t row_groups = sections.product(rows, groups), scale_bytes = p.type == AIRK_F16 || p.type == AIRK_BF16 ? 2 : 4;
  const auto whole_blocks = [&](uint64_t block_bytes) {
    layout->code = sections.add(sections.product(rows, cols / super_block), block_bytes);
    return cols % super_block == 0;
  };
  const auto long_blocks = [&](const LongGgufBytes &bytes) {
    const uint64_t long_count = sections.product(rows, cols / super_block);
    layout->scale = sections.add(long_count, bytes.head);
    if (bytes.high > 0) layout->high = sections.add(long_count, bytes.high);
    layout->code = sections.add(long_count, bytes.code);
    return cols % super_block == 0;
  };
  bool fits = true;
  switch (p.family) {
    case Family::bnb4: {
      const uint64_t absmax = ceil_divide(elements, uint64_t{1} << p.group_shift);
      layout->map = sections.add(16, 4);
      if (p.second_shift != not_nested) {
        layout->nested_map = sections.add(256, 4);
        layout->constant = sections.add(1, 4);
        layout->nested = sections.add(ceil_divide(absmax, uint64_t{1} << p.second_shift), 4);
      }
      layout->scale = sections.add(absmax, p.second_shift != not_nested ? 1 : 4);
      layout->code = sections.add(ceil_divide(elements, 2), 1);
      break;
    }
    case Family::int4:
    case Family::int8:
      layout->scale = sections.add(row_groups, scale_bytes);
      if (p.zero) layout->zero = sections.add(row_groups, p.family == Family::int4 ? 1 : 2);
      if (p.order) layout->order = sections.add(cols, 2);
      layout->code = sections.add(row_blocks, p.family == Family::int4 ? 16 : 32);
      break;
    case Family::fp8:
      layout->scale = sections.add(sections.product(ceil_divide(rows, uint64_t{1} << p.second_shift), groups), 4);
      layout->code = sections.add(row_blocks, 32);
      break;
    case Family::mxfp4:
      layout->scale = sections.add(row_blocks, 1);
      layout->code = sections.add(row_blocks, 16);
      break;
    case Family::nvfp4:
      layout->constant = sections.add(1, 4);
      layout->scale = sections.add(row_blocks, 2);
      layout->code = sections.add(row_blocks, 16);
      break;
    case Family::iq4_nl:
      layout->scale = sections.add(row_blocks, 2);
      layout->code = sections.add(row_blocks, 16);
      break;
    case Family::q4_1:
    case Family::q5_0:
    case Family::q5_1:
      layout->scale = sections.add(row_blocks, p.family == Family::q5_0 ? 2 : 4);
      if (p.family != Family::q4_1) layout->high = sections.add(row_blocks, 4);
      layout->code = sections.add(row_blocks, 16);
      break;
    case Family::q2_k:
    case Family::q3_k:
    case Family::iq4_xs:
    case Family::tq2_0:
    case Family::iq2_xxs:
    case Family::iq2_xs:
    case Family::iq2_s:
    case Family::iq3_xxs:
    case Family::iq3_s:
    case Family::iq1_s:
    case Family::iq1_m:
      fits = long_blocks(long_gguf_bytes(p.family));
      break;
    case Family::q4_k:
      fits = whole_blocks(q4_k_bytes);
      break;
    case Family::q5_k:
      fits = whole_blocks(q5_k_bytes);
      break;
    case Family::q6_k:
      fits = whole_blocks(q6_k_bytes);
      break;
  }
  *bytes = sections.end();
  return fits && !sections.overflow();
}

PackedView packed_view_of(const Packing &p, const PackedLayout &layout, uint64_t cols, const uint8_t *base) {
  const auto floats = [base](uint64_t offset) { return reinterpret_cast<const float *>(base + offset); };
  const uint64_t groups = p.group_shift == group_row ? 1 : ceil_divide(cols, uint64_t{1} << p.group_shift);
  return {p,
          groups,
          base + layout.code,
          base + layout.scale,
          base + layout.zero,
          base + layout.high,
          base + layout.order,
          floats(layout.map),
          floats(layout.nested_map),
          floats(layout.nested),
          floats(layout.constant)};
}

}  // namespace airk
