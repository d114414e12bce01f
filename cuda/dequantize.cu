// airk_dequantize and airk_embedding: weights as float32.
#include "../cpu/arguments.h"
#include "context.h"
#include "weights.h"

namespace airk {

namespace {

constexpr int kThreads = 128;
constexpr unsigned kMostBlocks = 1u << 16;

// One block a row at a time. ids: which rows, or nullptr for all of them.
template <Format F>
__global__ void __launch_bounds__(kThreads) dequantize_rows(const Weight w, const int *ids, uint64_t count, float *y, DeviceError *error) {
  using D = Decoder<F>;
  __shared__ float table[D::kUsesTable ? kTableFloats : 1];
  const D decoder(w, table);
  __syncthreads();
  for (uint64_t index = blockIdx.x; index < count; index += gridDim.x) {
    uint64_t row = index;
    if (ids) {
      const int id = ids[index];
      if (id < 0 || static_cast<uint64_t>(id) >= w.rows) {
        if (threadIdx.x == 0) report(error, Complaint::embedding_id, static_cast<long long>(index), id, static_cast<long long>(w.rows));
        continue;
      }
      row = static_cast<uint64_t>(id);
    }
    float *out = y + index * w.cols;
    const float row_scale = row_scale_of(w, row);
    for (uint64_t unit = threadIdx.x; unit < w.blocks * 4; unit += kThreads) {
      const uint64_t block = unit / 4;
      const int i = static_cast<int>(unit % 4);
      const typename D::Raw raw = decoder.load(row, block, true);
      float v[kPartColumns];
      decoder.part(raw, i, v);
#pragma unroll
      for (int j = 0; j < kPartColumns; j++) {
        const uint64_t col = block * 32 + part_column(i, j);
        if (col >= w.cols) continue;
        const float core = v[j] * decoder.scale(raw);
        out[col] = F == Format::q4o ? row_scale * column_scale_of(w, col) * core : core;
      }
    }
    if (F != Format::q4o) continue;
    uint64_t begin, end;
    device_outliers(w, row, error, ids ? kEmbedding : kDequantize, &begin, &end);
    // Ascending columns are all different: no two threads write one element. Also waits for the elements written above.
    int wrong = 0;
    for (uint64_t i = begin + threadIdx.x; i < end; i += kThreads) {
      const unsigned col = w.q4o.outlier_col[i];
      wrong |= col >= w.cols || (i > begin && col <= w.q4o.outlier_col[i - 1]);
    }
    if (__syncthreads_or(wrong)) {
      if (threadIdx.x == 0) report(error, Complaint::outliers, static_cast<long long>(row), ids ? kEmbedding : kDequantize, 0);
      continue;
    }
    for (uint64_t i = begin + threadIdx.x; i < end; i += kThreads) {
      const uint64_t col = w.q4o.outlier_col[i];
      const uint64_t block = col / 32;
      const int in_block = static_cast<int>(col % 32);
      const unsigned byte = w.q4o.code[(row * w.blocks + block) * 16 + in_block % 16];
      const float code = w.q4o.code_table[in_block < 16 ? byte & 15 : byte >> 4];
      const float core = static_cast<float>(w.q4o.block_scale[row * w.blocks + block]) * code;
      out[col] = row_scale * column_scale_of(w, col) * (core + outlier_unit * device_f16(w.q4o.outlier[i]));
    }
    __syncthreads();
  }
}

airk_status enqueue_rows(airk_stream *stream, const char *op, const Weight &w, const int *ids, uint64_t count, float *y) {
  DeviceError *error = stream->context->device_error;
  const unsigned blocks = static_cast<unsigned>(std::min<uint64_t>(count, kMostBlocks));
  return enqueue_on(stream, op, [&](cudaStream_t handle) {
    return for_format(w.format, [&](auto format) {
      return launch(blocks, kThreads, 0, handle)(dequantize_rows<decltype(format)::value>, w, ids, count, y, error);
    });
  });
}

}  // namespace
}  // namespace airk

using namespace airk;

extern "C" airk_status airk_dequantize(airk_stream *stream, airk_ptr y, int32_t format, airk_ptr weight, uint64_t weight_bytes,
                                       uint64_t rows, uint64_t cols, uint64_t outliers) {
  if (stream == nullptr) return AIRK_INVALID;
  Weight w;
  airk_status status = view_weight(stream->context, "dequantize", format, weight, weight_bytes, rows, cols, outliers, &w);
  if (status == AIRK_OK) status = check_rows(stream->context, "dequantize", y, rows, cols);
  return status == AIRK_OK ? enqueue_rows(stream, "dequantize", w, nullptr, rows, at<float>(y)) : status;
}

extern "C" airk_status airk_embedding(airk_stream *stream, airk_ptr y, int32_t format, airk_ptr weight, uint64_t weight_bytes,
                                      uint64_t rows, uint64_t cols, uint64_t outliers, airk_ptr ids, uint64_t tokens) {
  if (stream == nullptr) return AIRK_INVALID;
  Weight w;
  airk_status status = view_weight(stream->context, "embedding", format, weight, weight_bytes, rows, cols, outliers, &w);
  if (status != AIRK_OK || tokens == 0) return status;
  status = check_rows(stream->context, "embedding", y, tokens, cols);
  if (status == AIRK_OK) status = check_ids(stream->context, "embedding", ids);
  return status == AIRK_OK ? enqueue_rows(stream, "embedding", w, at<const int>(ids), tokens, at<float>(y)) : status;
}
