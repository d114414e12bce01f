// The kernels of attention_kernel.h over any Simd. Include after one of simd_*.h.
//
// Online softmax after FlashAttention-2 (Dao 2023): keys come in blocks, converted to float32 once for all rows of a block of
// queries. Both products, queries by keys and weights by values, run through one register-tiled kernel; for the first the keys are
// transposed on their way in. Up to four rows are computed straight from the cache instead, which then is read at the memory's rate.
// Every sum is taken in the order of its index, so its bits do not depend on the tile, or the way, it falls into.
#pragma once

#include <utility>

#include "attention_cached_row.h"
#include "attention_kernel.h"
#include "attention_products.h"
#include "simd_activations.h"

namespace airk {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

inline float exponential_of(float x) {
  float lanes[S::kWidth];
  S::store(lanes, exponential(S::set(x)));
  return lanes[0];
}

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
    next_->count = 0;
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
      if (position + kKeyBlock > begin_) run_keys(position, out);
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
      for (; d < key_padded_; d++) to[d] = 0;
    }
  }

  // Whole vectors of keys.
  static uint64_t key_columns(uint64_t count) { return (count + S::kWidth - 1) / S::kWidth * S::kWidth; }

  // Where the keys and values of a block lie. Those at `count` and beyond are rows of zeros, since the cache may hold anything there;
  // so are those in pages that no row sees.
  struct Located {
    Row key[kKeyBlock], value[kKeyBlock];
    uint64_t position, count;
  };

  void locate(uint64_t position, Located *block) const {
    const CacheShape key_shape = call_.keys(), value_shape = call_.values();
    const int32_t *table = call_.page_table + rows_.sequence.first_page_entry;
    block->position = position;
    block->count = end_ <= position ? 0 : end_ - position < kKeyBlock ? end_ - position : kKeyBlock;
    uint64_t entry = position / call_.page_tokens, offset = position % call_.page_tokens;
    const uint64_t first_entry = begin_ / call_.page_tokens;
    for (uint64_t i = 0; i < kKeyBlock; i++) {
      if (i >= block->count || entry < first_entry) {
        block->key[i] = block->value[i] = Row::zero(zeros_);
      } else {
        const uint64_t page = static_cast<uint64_t>(table[entry]);
        block->key[i] = Row::of(call_.k_cache, key_shape, page, rows_.kv_head, offset);
        block->value[i] = call_.v_cache ? Row::of(call_.v_cache, value_shape, page, rows_.kv_head, offset) : block->key[i];
      }
      if (++offset < call_.page_tokens) continue;
      offset = 0;
      entry++;
    }
  }

  // Makes located_ the block at `position`, and next_ the one behind it.
  void enter(uint64_t position) {
    if (next_->count != 0 && next_->position == position) {
      std::swap(located_, next_);
    } else {
      locate(position, located_);
      for (uint64_t i = 0; i < kAhead; i++) announce_key(*located_, i);
    }
    locate(position + kKeyBlock, next_);
  }

  // Rows that are asked for before they are used. The processor's own prefetchers do not follow the order that keys are walked
  // through, nor from page to page. Few, since the pages of one head lie at a power of two of each other and so share their places
  // in the processor's caches.
  static constexpr uint64_t kAhead = 16;

  AIRK_ALWAYS_INLINE void announce_key(const Located &block, uint64_t i) const {
    if (i < block.count) block.key[i].announce(key_dim_);
  }
  AIRK_ALWAYS_INLINE void announce_value(uint64_t i) const {
    if (i < located_->count) return located_->value[i].announce(value_dim_);
    announce_key(*next_, i - located_->count);
  }

  // A vector of each of kWidth keys, beginning with key `first`, transposed: tile[i] has element d + i of every key. Returns how many
  // elements there are.
  int load_tile(uint64_t first, uint64_t d, S::Reg *tile) const {
    // A few rows with every tile: asked for all at once, they would hold up the computation.
    const uint64_t tiles = key_padded_ / S::kWidth, rows = (S::kWidth + tiles - 1) / tiles, begin = d / S::kWidth * rows;
    for (uint64_t i = begin; i < begin + rows && i < S::kWidth; i++) {
      const uint64_t ahead = first + i + kAhead;
      if (ahead < located_->count) announce_key(*located_, ahead);
      else if (ahead < located_->count + kAhead) announce_value(ahead - located_->count);
    }
    const bool whole = key_dim_ - d >= S::kWidth;
    if (whole) {
      for (int i = 0; i < S::kWidth; i++) tile[i] = located_->key[first + i].load(d);
    } else {
      for (int i = 0; i < S::kWidth; i++) tile[i] = located_->key[first + i].load_last(d, key_dim_);
    }
    S::transpose(tile);
    return whole ? S::kWidth : static_cast<int>(key_dim_ - d);
  }

  // Brings keys in transposed, [head_dim][kKeyBlock], and values as they are, [kKeyBlock][padded value_dim].
  void load_block() {
    const uint64_t count = located_->count;
    for (uint64_t first = 0; first < count; first += S::kWidth) {
      for (uint64_t d = 0; d < key_dim_; d += S::kWidth) {
        S::Reg tile[S::kWidth];
        const int lines = load_tile(first, d, tile);
        for (int i = 0; i < lines; i++) S::store(keys_ + (d + i) * kKeyBlock + first, tile[i]);
      }
    }
    for (uint64_t i = 0; i < count; i++) {
      announce_value(i + kAhead);
      const Row &row = located_->value[i];
      float *to = values_ + i * padded_;
      uint64_t d = 0;
      for (; d + S::kWidth <= value_dim_; d += S::kWidth) S::store(to + d, row.load(d));
      if (d < value_dim_) S::store(to + d, row.load_last(d, value_dim_)), d += S::kWidth;
      for (; d < padded_; d += S::kWidth) S::store(to + d, S::set(0));
    }
  }

  // Scores of few rows, straight from the cache: what a block of many rows computes, in the same order, without writing keys down.
  template <int kRows>
  void score_rows() {
    for (uint64_t first = 0; first < located_->count; first += S::kWidth) {
      S::Reg sums[kRows];
      for (int r = 0; r < kRows; r++) sums[r] = S::set(0);
      for (uint64_t d = 0; d < key_dim_; d += S::kWidth) {
        S::Reg tile[S::kWidth];
        // Beyond the last element both are zero.
        load_tile(first, d, tile);
        for (int i = 0; i < S::kWidth; i++) {
          for (int r = 0; r < kRows; r++) sums[r] = S::fma(S::set(queries_[r * key_padded_ + d + i]), tile[i], sums[r]);
        }
      }
      for (int r = 0; r < kRows; r++) S::store(scores_ + r * kKeyBlock + first, sums[r]);
    }
  }

  // Adds the values of the block, weighted by `scores_`, to kVectors vectors of few rows, from element d on.
  template <int kRows, int kVectors, bool kLast>
  void add_vectors(uint64_t d, const AttentionPartial &out) const {
    S::Reg sums[kRows][kVectors];
    for (int r = 0; r < kRows; r++) {
      for (int v = 0; v < kVectors; v++) sums[r][v] = S::load(out.values + r * padded_ + d + v * S::kWidth);
    }
    for (uint64_t i = 0; i < located_->count; i++) {
      if (d == 0) announce_value(i + kAhead);
      const Row &row = located_->value[i];
      S::Reg value[kVectors];
      for (int v = 0; v < kVectors; v++) value[v] = kLast ? row.load_last(d, value_dim_) : row.load(d + v * S::kWidth);
      for (int r = 0; r < kRows; r++) {
        const S::Reg weight = S::set(scores_[r * kKeyBlock + i]);
        for (int v = 0; v < kVectors; v++) sums[r][v] = S::fma(weight, value[v], sums[r][v]);
      }
    }
    for (int r = 0; r < kRows; r++) {
      for (int v = 0; v < kVectors; v++) S::store(out.values + r * padded_ + d + v * S::kWidth, sums[r][v]);
    }
  }

  template <int kRows>
  void add_values(const AttentionPartial &out) const {
    constexpr int kVectors = S::kTileVectors;
    uint64_t d = 0;
    for (; d + kVectors * S::kWidth <= value_dim_; d += kVectors * S::kWidth) add_vectors<kRows, kVectors, false>(d, out);
    for (; d + S::kWidth <= value_dim_; d += S::kWidth) add_vectors<kRows, 1, false>(d, out);
    if (d < value_dim_) add_vectors<kRows, 1, true>(d, out);
  }

  // Scores of all rows over the block.
  void score() {
    switch (count_) {
      case 1: return score_rows<1>();
      case 2: return score_rows<2>();
      case 3: return score_rows<3>();
      case 4: return score_rows<4>();
      default:
        load_block();
        multiply<false>(count_, key_columns(located_->count), scores_, kKeyBlock, queries_, key_padded_, keys_, kKeyBlock, key_dim_);
    }
  }

  // Adds what the block's values give to all rows.
  void add(const AttentionPartial &out) const {
    switch (count_) {
      case 1: return add_values<1>(out);
      case 2: return add_values<2>(out);
      case 3: return add_values<3>(out);
      case 4: return add_values<4>(out);
      default: multiply<true>(count_, padded_, out.values, padded_, scores_, kKeyBlock, values_, padded_, located_->count);
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
  void run_keys(uint64_t position, const AttentionPartial &out) {
    enter(position);
    score();
    const bool adjusts = call_.softcap != 0 || call_.slopes;
    for (uint64_t r = 0; r < count_; r++) {
      float *scores = scores_ + r * kKeyBlock;
      if (adjusts) adjust(r, position);
      hide(r, position, located_->count);
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
    add(out);
  }

  // Positions that any row sees.
  const uint64_t begin_, end_;
  float *queries_, *keys_, *values_, *scores_, *zeros_;
  AttentionPartial own_, total_;
  Located blocks_[2], *located_ = &blocks_[0], *next_ = &blocks_[1];
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
