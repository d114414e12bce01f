// The kernels of attention_kernel.h over any Simd. Include after one of simd_*.h.
//
// Online softmax after FlashAttention-2 (Dao 2023): keys come in blocks, converted to float32 once for all rows of a block of
// queries. Both products, queries by keys and weights by values, run through one register-tiled kernel; for the first the keys are
// transposed on their way in. Every sum is taken in the order of its index, so its bits do not depend on the tile it falls into.
#pragma once

#include "attention_kernel.h"
#include "simd_activations.h"

namespace airk {
namespace {

using S = Simd;

constexpr float kMinusInfinity = -__builtin_inff();

// c [kRows][kVectors * width] (+)= a [kRows][depth] * b [depth][kVectors * width], with strides in floats.
template <int kRows, int kVectors, bool kAdd>
void multiply_tile(float *c, uint64_t c_stride, const float *a, uint64_t a_stride, const float *b, uint64_t b_stride, uint64_t depth) {
  S::Reg sums[kRows][kVectors];
  for (int r = 0; r < kRows; r++) {
    for (int v = 0; v < kVectors; v++) sums[r][v] = kAdd ? S::load(c + r * c_stride + v * S::kWidth) : S::set(0);
  }
  for (uint64_t d = 0; d < depth; d++) {
    S::Reg row[kVectors];
    for (int v = 0; v < kVectors; v++) row[v] = S::load(b + d * b_stride + v * S::kWidth);
    for (int r = 0; r < kRows; r++) {
      const S::Reg factor = S::set(a[r * a_stride + d]);
      for (int v = 0; v < kVectors; v++) sums[r][v] = S::fma(factor, row[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; r++) {
    for (int v = 0; v < kVectors; v++) S::store(c + r * c_stride + v * S::kWidth, sums[r][v]);
  }
}

template <int kVectors, bool kAdd>
void multiply_rows(int rows, float *c, uint64_t c_stride, const float *a, uint64_t a_stride, const float *b, uint64_t b_stride,
                   uint64_t depth) {
  switch (rows) {
    case 1: return multiply_tile<1, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    case 2: return multiply_tile<2, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    case 3: return multiply_tile<3, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    case 4: return multiply_tile<4, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    case 5: return multiply_tile<5, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    default: return multiply_tile<S::kTileRows, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
  }
}

// One band of rows, in tiles of kVectors as long as they fit, then narrower ones.
template <int kVectors, bool kAdd>
void multiply_band(int rows, uint64_t columns, float *c, uint64_t c_stride, const float *a, uint64_t a_stride, const float *b,
                   uint64_t b_stride, uint64_t depth) {
  constexpr uint64_t kColumns = kVectors * S::kWidth;
  uint64_t j = 0;
  for (; j + kColumns <= columns; j += kColumns) {
    multiply_rows<kVectors, kAdd>(rows, c + j, c_stride, a, a_stride, b + j, b_stride, depth);
  }
  if constexpr (kVectors > 1) {
    if (j < columns) multiply_band<kVectors - 1, kAdd>(rows, columns - j, c + j, c_stride, a, a_stride, b + j, b_stride, depth);
  }
}

// columns: a multiple of the width.
template <bool kAdd>
void multiply(uint64_t rows, uint64_t columns, float *c, uint64_t c_stride, const float *a, uint64_t a_stride, const float *b,
              uint64_t b_stride, uint64_t depth) {
  for (uint64_t r = 0; r < rows; r += S::kTileRows) {
    const int band = static_cast<int>(rows - r < S::kTileRows ? rows - r : S::kTileRows);
    multiply_band<S::kTileVectors, kAdd>(band, columns, c + r * c_stride, c_stride, a + r * a_stride, a_stride, b, b_stride, depth);
  }
}

inline float exponential_of(float x) {
  float lanes[S::kWidth];
  S::store(lanes, exponential(S::set(x)));
  return lanes[0];
}

constexpr uint64_t kLineBytes = 64;

// A row of keys or values of each cache type. announce: has its `dim` elements brought in. load: elements d .. d + width - 1 of `dim`, zeros beyond; d is a multiple of the width.
template <class Element>
struct PlainRow {
  const Element *elements;
  static PlainRow of(const void *cache, const CacheShape &shape, uint64_t page, uint64_t head, uint64_t offset) {
    return {static_cast<const Element *>(cache) + shape.element_of(page, head, offset)};
  }
  static PlainRow zero(const float *zeros) { return {reinterpret_cast<const Element *>(zeros)}; }
  void announce(uint64_t dim) const {
    for (uint64_t d = 0; d < dim; d += kLineBytes / sizeof(Element)) __builtin_prefetch(elements + d, 0, 2);
  }
  S::Reg load(uint64_t d, uint64_t dim) const {
    return dim - d >= S::kWidth ? S::load(elements + d) : S::load_part(elements + d, static_cast<int>(dim - d));
  }
};

struct Q8Row {
  const int8_t *code;
  const uint16_t *scale;
  static Q8Row of(const void *cache, const CacheShape &shape, uint64_t page, uint64_t head, uint64_t offset) {
    const char *bytes = static_cast<const char *>(cache);
    return {reinterpret_cast<const int8_t *>(bytes + shape.code_of(page, head, offset)),
            reinterpret_cast<const uint16_t *>(bytes + shape.scale_of(page, head, offset))};
  }
  static Q8Row zero(const float *zeros) { return {reinterpret_cast<const int8_t *>(zeros), reinterpret_cast<const uint16_t *>(zeros)}; }
  void announce(uint64_t dim) const {
    for (uint64_t d = 0; d < dim; d += kLineBytes) __builtin_prefetch(code + d, 0, 2);
  }
  // A row is stored in whole blocks, and a vector lies within one.
  S::Reg load(uint64_t d, uint64_t) const { return S::mul(S::load(code + d), S::set(S::to_float(scale[d / kQ8Block]))); }
};

// The softmaxes of a block of rows: joining them and writing them out.
class SoftmaxRows {
 public:
  SoftmaxRows(const AttentionCall &call, const AttentionRows &rows)
      : call_(call), rows_(rows), count_(rows.end - rows.begin), group_(call.heads / call.kv_heads), key_dim_(call.head_dim),
        value_dim_(call.value_dim), key_padded_(padded_dim(call.head_dim)), padded_(padded_dim(call.value_dim)) {}

  // total = total merged with part. A row that sees nothing of the part is left as it is, to the bit.
  void merge(const AttentionPartial &total, const AttentionPartial &part) const {
    for (uint64_t r = 0; r < count_; r++) {
      if (part.largest[r] == kMinusInfinity && part.sum[r] == 0) continue;
      const float largest = part.largest[r] > total.largest[r] ? part.largest[r] : total.largest[r];
      rescale(total, r, exponential_of(total.largest[r] - largest));
      const float factor = exponential_of(part.largest[r] - largest);
      total.largest[r] = largest;
      total.sum[r] += part.sum[r] * factor;
      float *to = total.values + r * padded_;
      const float *from = part.values + r * padded_;
      for (uint64_t d = 0; d < padded_; d += S::kWidth) {
        S::store(to + d, S::fma(S::load(from + d), S::set(factor), S::load(to + d)));
      }
    }
  }

  // y = values / sum. Consumes `total`.
  void write(const AttentionPartial &total) const {
    for (uint64_t r = 0; r < count_; r++) {
      if (call_.sinks) add_sink(total, r);
      float *y = call_.y + head_of(r) * value_dim_;
      const float *values = total.values + r * padded_;
      const S::Reg sum = S::set(total.sum[r]);
      uint64_t d = 0;
      for (; d + S::kWidth <= value_dim_; d += S::kWidth) S::store(y + d, S::div(S::load(values + d), sum));
      for (; d < value_dim_; d++) y[d] = values[d] / total.sum[r];
    }
  }

 protected:
  void rescale(const AttentionPartial &part, uint64_t r, float factor) const {
    part.sum[r] *= factor;
    float *values = part.values + r * padded_;
    for (uint64_t d = 0; d < padded_; d += S::kWidth) S::store(values + d, S::mul(S::load(values + d), S::set(factor)));
  }

  // One more score, without a value.
  void add_sink(const AttentionPartial &total, uint64_t r) const {
    const float sink = call_.sinks[head_of(r) % call_.heads];
    if (sink > total.largest[r]) {
      rescale(total, r, exponential_of(total.largest[r] - sink));
      total.sum[r] += 1.0f;
    } else {
      total.sum[r] += exponential_of(sink - total.largest[r]);
    }
  }

  // Index of a row's token and head in q and y: [tokens, heads].
  uint64_t head_of(uint64_t r) const {
    const uint64_t row = rows_.begin + r, token = rows_.sequence.first_token + row / group_;
    return token * call_.heads + rows_.kv_head * group_ + row % group_;
  }

  const AttentionCall &call_;
  const AttentionRows &rows_;
  const uint64_t count_, group_, key_dim_, value_dim_, key_padded_, padded_;
};

// The work of one thread on one block of rows.
template <class Row>
class RowBlock : public SoftmaxRows {
 public:
  RowBlock(const AttentionCall &call, const AttentionRows &rows, float *scratch)
      : SoftmaxRows(call, rows), begin_(first_position(call, rows)), end_(end_position(call, rows)) {
    const auto take = [&scratch](uint64_t floats) {
      float *taken = scratch;
      scratch += floats;
      return taken;
    };
    queries_ = take(kRowBlock * key_padded_);
    own_.values = take(kRowBlock * padded_);
    total_.values = take(kRowBlock * padded_);
    keys_ = take(kKeyBlock * key_padded_);
    values_ = take(kKeyBlock * padded_);
    const uint64_t longer = key_padded_ > padded_ ? key_padded_ : padded_;
    zeros_ = take(longer);
    scores_ = take(kRowBlock * kKeyBlock);
    own_.largest = take(kRowBlock);
    own_.sum = take(kRowBlock);
    total_.largest = take(kRowBlock);
    total_.sum = take(kRowBlock);
    for (uint64_t i = 0; i < longer; i++) zeros_[i] = 0;
    load_queries();
  }

  // Chunks that any row sees something of: [first_chunk(), end_chunk()).
  uint64_t first_chunk() const { return begin_ / kChunkKeys; }
  uint64_t end_chunk() const { return (end_ + kChunkKeys - 1) / kChunkKeys; }

  const AttentionPartial &own() const { return own_; }
  const AttentionPartial &total() const { return total_; }

  // Fills `out` with the softmax over one chunk.
  void run_chunk(uint64_t chunk, const AttentionPartial &out) {
    for (uint64_t r = 0; r < count_; r++) {
      out.largest[r] = kMinusInfinity;
      out.sum[r] = 0;
    }
    for (uint64_t i = 0; i < count_ * padded_; i += S::kWidth) S::store(out.values + i, S::set(0));
    const uint64_t begin = chunk * kChunkKeys, most = begin + kChunkKeys, end = end_ < most ? end_ : most;
    for (uint64_t position = begin; position < end; position += kKeyBlock) {
      // Blocks of keys lie at fixed positions too, whatever is visible of them.
      if (position + kKeyBlock > begin_) run_keys(position, end - position < kKeyBlock ? end - position : kKeyBlock, out);
    }
  }

 private:
  // The scale is applied to the queries: one product a row instead of one a score.
  void load_queries() {
    const S::Reg scale = S::set(call_.scale);
    for (uint64_t r = 0; r < count_; r++) {
      const float *q = call_.q + head_of(r) * key_dim_;
      float *to = queries_ + r * key_padded_;
      uint64_t d = 0;
      for (; d + S::kWidth <= key_dim_; d += S::kWidth) S::store(to + d, S::mul(S::load(q + d), scale));
      for (; d < key_dim_; d++) to[d] = q[d] * call_.scale;
    }
  }

  // Whole vectors of keys.
  static uint64_t key_columns(uint64_t count) { return (count + S::kWidth - 1) / S::kWidth * S::kWidth; }

  // Brings keys in transposed, [head_dim][kKeyBlock], and values as they are, [kKeyBlock][padded value_dim]. Keys beyond `count`
  // are zero up to a whole vector, since the cache may hold anything there; so are those in pages that no row sees.
  void load_block(uint64_t position, uint64_t count) {
    const CacheShape key_shape = call_.keys(), value_shape = call_.values();
    Row key[kKeyBlock], value[kKeyBlock];
    for (uint64_t i = 0; i < kKeyBlock; i++) {
      key[i] = value[i] = Row::zero(zeros_);
      const uint64_t entry = (position + i) / call_.page_tokens, offset = (position + i) % call_.page_tokens;
      if (i >= count || entry < begin_ / call_.page_tokens) continue;
      const uint64_t page = static_cast<uint64_t>(call_.page_table[rows_.sequence.first_page_entry + entry]);
      key[i] = Row::of(call_.k_cache, key_shape, page, rows_.kv_head, offset);
      value[i] = call_.v_cache ? Row::of(call_.v_cache, value_shape, page, rows_.kv_head, offset) : key[i];
    }
    // Transposing walks through the keys in an order that the processor's own prefetchers do not follow.
    for (uint64_t i = 0; i < count; i++) key[i].announce(key_dim_);
    for (uint64_t i = 0; i < count; i++) value[i].announce(value_dim_);
    for (uint64_t first = 0; first < count; first += S::kWidth) {
      for (uint64_t d = 0; d < key_dim_; d += S::kWidth) {
        S::Reg tile[S::kWidth];
        for (int i = 0; i < S::kWidth; i++) tile[i] = key[first + i].load(d, key_dim_);
        S::transpose(tile);
        const uint64_t lines = key_dim_ - d < S::kWidth ? key_dim_ - d : S::kWidth;
        for (uint64_t i = 0; i < lines; i++) S::store(keys_ + (d + i) * kKeyBlock + first, tile[i]);
      }
    }
    for (uint64_t i = 0; i < count; i++) {
      uint64_t d = 0;
      for (; d < value_dim_; d += S::kWidth) S::store(values_ + i * padded_ + d, value[i].load(d, value_dim_));
      for (; d < padded_; d += S::kWidth) S::store(values_ + i * padded_ + d, S::set(0));
    }
  }

  // The soft cap and ALiBi's slope of a row's scores.
  void adjust(uint64_t r, uint64_t position) {
    float *scores = scores_ + r * kKeyBlock;
    if (call_.softcap != 0) {
      const S::Reg most = S::set(call_.softcap);
      for (int i = 0; i < kKeyBlock; i += S::kWidth) S::store(scores + i, soft_capped(S::load(scores + i), most));
    }
    if (call_.slopes) {
      const float slope = call_.slopes[head_of(r) % call_.heads];
      const uint64_t own = rows_.sequence.cached + (rows_.begin + r) / group_;
      const float distance = static_cast<float>(static_cast<int64_t>(position) - static_cast<int64_t>(own));
      for (int i = 0; i < kKeyBlock; i++) scores[i] += slope * (distance + static_cast<float>(i));
    }
  }

  // Hides from a row what it may not see of the block's keys, and those beyond `count`.
  void hide(uint64_t r, uint64_t position, uint64_t count) {
    float *scores = scores_ + r * kKeyBlock;
    const PassSequence &sequence = rows_.sequence;
    const uint64_t token = (rows_.begin + r) / group_;
    uint64_t seen = count;
    if (call_.mask) {
      const uint8_t *row = call_.mask + (sequence.first_token + token) * call_.tokens + sequence.first_token;
      for (uint64_t i = position < sequence.cached ? sequence.cached - position : 0; i < count; i++) {
        if (!row[position + i - sequence.cached]) scores[i] = kMinusInfinity;
      }
    } else {
      const uint64_t limit = sequence.cached + token + 1;
      if (limit < position + count) seen = limit > position ? limit - position : 0;
    }
    for (uint64_t i = seen; i < kKeyBlock; i++) scores[i] = kMinusInfinity;
    if (!call_.first_visible) return;
    const uint64_t first = static_cast<uint64_t>(call_.first_visible[sequence.first_token + token]);
    for (uint64_t i = 0; i < kKeyBlock && position + i < first; i++) scores[i] = kMinusInfinity;
  }

  // Adds one block of keys to the softmax of every row.
  void run_keys(uint64_t position, uint64_t count, const AttentionPartial &out) {
    load_block(position, count);
    multiply<false>(count_, key_columns(count), scores_, kKeyBlock, queries_, key_padded_, keys_, kKeyBlock, key_dim_);
    const bool adjusts = call_.softcap != 0 || call_.slopes;
    for (uint64_t r = 0; r < count_; r++) {
      float *scores = scores_ + r * kKeyBlock;
      if (adjusts) adjust(r, position);
      hide(r, position, count);
      S::Reg most = S::load(scores);
      for (int i = S::kWidth; i < kKeyBlock; i += S::kWidth) most = S::max(most, S::load(scores + i));
      const float block_largest = S::largest(most);
      const float largest = block_largest > out.largest[r] ? block_largest : out.largest[r];
      if (largest == kMinusInfinity) {
        // Nothing seen so far: the weights are zero, and the difference below would be NaN. Scores that are NaN stay visible.
        for (int i = 0; i < kKeyBlock; i++) {
          if (scores[i] != scores[i]) out.sum[r] = scores[i];
          scores[i] = 0;
        }
        continue;
      }
      S::Reg sum = S::set(0);
      const S::Reg base = S::set(largest);
      for (int i = 0; i < kKeyBlock; i += S::kWidth) {
        const S::Reg weight = exponential(S::sub(S::load(scores + i), base));
        S::store(scores + i, weight);
        sum = S::add(sum, weight);
      }
      if (largest != out.largest[r]) {
        rescale(out, r, exponential_of(out.largest[r] - largest));
        out.largest[r] = largest;
      }
      out.sum[r] += S::sum(sum);
    }
    multiply<true>(count_, padded_, out.values, padded_, scores_, kKeyBlock, values_, padded_, count);
  }

  // Positions that any row sees.
  const uint64_t begin_, end_;
  float *queries_, *keys_, *values_, *scores_, *zeros_;
  AttentionPartial own_, total_;
};

template <class Row>
void run_rows(const AttentionCall &call, const AttentionRows &rows, float *scratch) {
  RowBlock<Row> block(call, rows, scratch);
  block.run_chunk(block.first_chunk(), block.total());
  for (uint64_t chunk = block.first_chunk() + 1; chunk < block.end_chunk(); chunk++) {
    block.run_chunk(chunk, block.own());
    block.merge(block.total(), block.own());
  }
  block.write(block.total());
}

template <class Row>
void run_one_chunk(const AttentionCall &call, const AttentionRows &rows, uint64_t chunk, const AttentionPartial &out, float *scratch) {
  RowBlock<Row>(call, rows, scratch).run_chunk(chunk, out);
}

void merge_chunks(const AttentionCall &call, const AttentionRows &rows, const AttentionPartial *parts, uint64_t chunks) {
  const SoftmaxRows output(call, rows);
  for (uint64_t chunk = 1; chunk < chunks; chunk++) output.merge(parts[0], parts[chunk]);
  output.write(parts[0]);
}

template <class Row>
constexpr AttentionKernel kKernel = {run_rows<Row>, run_one_chunk<Row>, merge_chunks};

constexpr AttentionKernels kKernels = {kKernel<PlainRow<float>>, kKernel<PlainRow<uint16_t>>, kKernel<Q8Row>};

}  // namespace
}  // namespace airk
