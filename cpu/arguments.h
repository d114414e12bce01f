// What each operation asks of its arguments, for both libraries: one that is wrong is answered at the call.
// Nothing is asked where there is nothing to do; the operation returns before it checks.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"

namespace airk {

constexpr uint64_t kMostTopK = 1024;
constexpr uint64_t kMostPositions = 1ull << 31;
constexpr uint64_t kMostHeadDim = 1 << 16;
// What the kernels of both libraries have room for.
constexpr uint64_t kMostConvKernel = 16, kMostDeltaKey = 256;
constexpr uint64_t kMostAttentionKey = 576, kMostAttentionValue = 512;

inline airk_status check_rmsnorm(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, uint64_t rows, uint64_t cols, float eps)
                                 {
  return Check(stream, "rmsnorm")
      .tensor("y", y)
      .tensor("x", x)
      .optional("weight", weight)
      .at_least("cols", cols, 1)
      .shape("x", {rows, cols})
      .require(eps >= 0, "eps is %g, required is at least 0", static_cast<double>(eps))
      .status();
}

inline airk_status check_layernorm(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, airk_ptr bias,
                                   uint64_t weight_rows, uint64_t rows, uint64_t cols, float eps) {
  return Check(stream, "layernorm")
      .tensor("y", y)
      .tensor("x", x)
      .optional("weight", weight)
      .optional("bias", bias)
      .at_least("cols", cols, 1)
      .at_least("weight_rows", weight_rows, 1)
      .shape("weight", {weight_rows, cols})
      .shape("x", {rows, cols})
      .require(eps >= 0, "eps is %g, required is at least 0", static_cast<double>(eps))
      .status();
}

inline airk_status check_rope(airk_stream *stream, airk_ptr x, uint64_t x_stride, airk_ptr cos, airk_ptr sin, uint64_t tokens,
                              uint64_t heads, uint64_t head_dim, uint64_t first, uint64_t rotary_dim, int32_t interleaved) {
  return Check(stream, "rope")
      .tensor("x", x)
      .tensor("cos", cos)
      .tensor("sin", sin)
      .at_least("heads", heads, 1)
      .at_least("head_dim", head_dim, 1)
      .shape("a token of `x`", {heads, head_dim})
      .shape("x", {tokens, x_stride})
      .at_least("x_stride", x_stride, tokens > 1 ? heads * head_dim : 0)
      .at_least("rotary_dim", rotary_dim, 2)
      .at_most("rotary_dim", rotary_dim, head_dim)
      .at_most("first", first, head_dim - rotary_dim)
      .require(rotary_dim % 2 == 0, "rotary_dim is %llu, required is an even number",
               static_cast<unsigned long long>(rotary_dim))
      .require(interleaved == 0 || interleaved == 1, "interleaved is %d, required is 0 or 1", interleaved)
      .status();
}

inline bool is_cache_type(int32_t type) { return type == AIRK_F32 || type == AIRK_F16 || type == AIRK_Q8; }

inline airk_status check_kv_append(airk_stream *stream, airk_ptr k_cache, airk_ptr v_cache, int32_t cache_type, airk_ptr k, airk_ptr v,
                                   airk_ptr slots, uint64_t tokens, uint64_t kv_heads, uint64_t head_dim, uint64_t value_dim,
                                   uint64_t page_tokens) {
  const uint64_t element_bytes = cache_type == AIRK_F32 ? 4 : 2;
  return Check(stream, "kv_append")
      .require(is_cache_type(cache_type), "cache_type is %d, required is 0 (f32), 1 (f16) or 3 (q8)", cache_type)
      .tensor("k_cache", k_cache, element_bytes)
      .optional("v_cache", v_cache, element_bytes)
      .tensor("k", k)
      .optional("v", v)
      .require((v_cache == 0) == (v == 0), "`%s` is null and `%s` is not, required are both or neither", v == 0 ? "v" : "v_cache",
               v == 0 ? "v_cache" : "v")
      .tensor("slots", slots)
      .at_least("kv_heads", kv_heads, 1)
      .at_least("head_dim", head_dim, 1)
      .at_least("value_dim", value_dim, v == 0 ? 0 : 1)
      .at_most("head_dim", head_dim, kMostHeadDim)
      .at_most("value_dim", value_dim, kMostHeadDim)
      .at_least("page_tokens", page_tokens, 1)
      .shape("k", {tokens, kv_heads, head_dim})
      .shape("v", {tokens, kv_heads, value_dim})
      .shape("a page of `k_cache`", {kv_heads, page_tokens, head_dim + 32})
      .shape("a page of `v_cache`", {kv_heads, page_tokens, value_dim + 32})
      .status();
}

inline airk_status check_attention(airk_stream *stream, airk_ptr y, airk_ptr q, airk_ptr k_cache, airk_ptr v_cache, int32_t cache_type,
                                   airk_ptr sequences, uint64_t sequence_count, airk_ptr page_table, airk_ptr first_visible,
                                   airk_ptr sinks, airk_ptr slopes, uint64_t tokens, uint64_t heads, uint64_t kv_heads,
                                   uint64_t head_dim, uint64_t value_dim, uint64_t page_tokens, uint64_t context_tokens, float scale,
                                   float softcap, int32_t precision) {
  const uint64_t element_bytes = cache_type == AIRK_F32 ? 4 : 2;
  return Check(stream, "attention")
      .require(is_cache_type(cache_type), "cache_type is %d, required is 0 (f32), 1 (f16) or 3 (q8)", cache_type)
      .tensor("y", y)
      .tensor("q", q)
      .tensor("k_cache", k_cache, element_bytes)
      .optional("v_cache", v_cache, element_bytes)
      .tensor("sequences", sequences)
      .tensor("page_table", page_table)
      .optional("first_visible", first_visible)
      .optional("sinks", sinks)
      .optional("slopes", slopes)
      .at_least("heads", heads, 1)
      .at_least("kv_heads", kv_heads, 1)
      .at_least("head_dim", head_dim, 1)
      .at_least("value_dim", value_dim, 1)
      .at_least("page_tokens", page_tokens, 1)
      .at_least("context_tokens", context_tokens, 1)
      .at_most("context_tokens", context_tokens, kMostPositions)
      .at_most("tokens", tokens, kMostPositions)
      .at_most("head_dim", head_dim, kMostAttentionKey)
      .at_most("value_dim", value_dim, v_cache == 0 ? std::min(head_dim, kMostAttentionValue) : kMostAttentionValue)
      .shape("sequences", {sequence_count, 4})
      .shape("q", {tokens, heads, head_dim})
      .shape("a page of `k_cache`", {kv_heads, page_tokens, head_dim + 32})
      .shape("a page of `v_cache`", {kv_heads, page_tokens, value_dim + 32})
      .require(precision == 0 || precision == 1, "precision is %d, required is 0 or 1", precision)
      .require(std::isfinite(scale), "scale is %g, required is a finite number", static_cast<double>(scale))
      .require(softcap >= 0 && std::isfinite(softcap), "softcap is %g, required is a finite number of at least 0",
               static_cast<double>(softcap))
      .require(kv_heads == 0 || heads % kv_heads == 0, "heads is %llu, required is a multiple of kv_heads, %llu",
               static_cast<unsigned long long>(heads),
               static_cast<unsigned long long>(kv_heads))
      .status();
}

inline airk_status check_l2norm(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t rows, uint64_t cols, float eps) {
  return Check(stream, "l2norm")
      .tensor("y", y)
      .tensor("x", x)
      .at_least("cols", cols, 1)
      .shape("x", {rows, cols})
      .require(eps >= 0, "eps is %g, required is at least 0", static_cast<double>(eps))
      .status();
}

inline airk_status check_log_decay(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr a_log, airk_ptr bias, uint64_t rows,
                                   uint64_t cols) {
  return Check(stream, "log_decay")
      .tensor("y", y)
      .tensor("x", x)
      .tensor("a_log", a_log)
      .tensor("bias", bias)
      .at_least("cols", cols, 1)
      .shape("x", {rows, cols})
      .status();
}

inline airk_status check_causal_conv1d(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, airk_ptr bias, airk_ptr state,
                                       airk_ptr state_slots, uint64_t slots, airk_ptr sequences, uint64_t sequence_count, uint64_t tokens,
                                       uint64_t cols, uint64_t kernel, int32_t activation) {
  Check check(stream, "causal_conv1d");
  check.tensor("y", y)
      .tensor("x", x)
      .tensor("weight", weight)
      .optional("bias", bias)
      .tensor("state", state)
      .tensor("state_slots", state_slots)
      .tensor("sequences", sequences)
      .at_least("slots", slots, 1)
      .at_least("cols", cols, 1)
      .at_least("kernel", kernel, 2)
      .at_most("kernel", kernel, kMostConvKernel)
      .at_most("tokens", tokens, kMostPositions)
      .shape("sequences", {sequence_count, 4})
      .shape("x", {tokens, cols})
      .shape("weight", {cols, kernel})
      .shape("state", {slots, kernel, cols})
      .require(activation >= -1 && activation < AIRK_SWIGLU_OAI, "activation is %d, required is -1 to %d", activation, AIRK_SWIGLU_OAI - 1);
  if (check.failed()) return check.status();
  const uint64_t bytes = tokens * cols * sizeof(float);
  return check.require(x + bytes <= y || y + bytes <= x, "`y` overlaps `x`").status();
}

inline airk_status check_gated_delta_rule(airk_stream *stream, airk_ptr y, airk_ptr q, uint64_t q_stride, airk_ptr k, uint64_t k_stride,
                                          airk_ptr v, uint64_t v_stride, airk_ptr log_decay, airk_ptr beta, airk_ptr state,
                                          airk_ptr state_slots, uint64_t slots, airk_ptr sequences, uint64_t sequence_count,
                                          uint64_t tokens, uint64_t key_heads, uint64_t value_heads, uint64_t key_dim, uint64_t value_dim,
                                          float scale, airk_ptr skip, int32_t corrects) {
  return Check(stream, "gated_delta_rule")
      .tensor("y", y)
      .tensor("q", q)
      .tensor("k", k)
      .tensor("v", v)
      .tensor("log_decay", log_decay)
      .tensor("beta", beta)
      .optional("skip", skip)
      .tensor("state", state)
      .tensor("state_slots", state_slots)
      .tensor("sequences", sequences)
      .at_least("slots", slots, 1)
      .at_least("key_heads", key_heads, 1)
      .at_least("value_heads", value_heads, 1)
      .at_least("key_dim", key_dim, 1)
      .at_most("key_dim", key_dim, kMostDeltaKey)
      .at_least("value_dim", value_dim, 1)
      .at_most("tokens", tokens, kMostPositions)
      .shape("sequences", {sequence_count, 4})
      .shape("state", {slots, value_heads, key_dim, value_dim})
      .shape("a token of `q`", {key_heads, key_dim})
      .shape("y", {tokens, value_heads, value_dim})
      .shape("q", {tokens, q_stride})
      .shape("k", {tokens, k_stride})
      .shape("v", {tokens, v_stride})
      .at_least("q_stride", q_stride, tokens > 1 ? key_heads * key_dim : 0)
      .at_least("k_stride", k_stride, tokens > 1 ? key_heads * key_dim : 0)
      .at_least("v_stride", v_stride, tokens > 1 ? value_heads * value_dim : 0)
      .require(key_heads == 0 || value_heads % key_heads == 0, "value_heads is %llu, required is a multiple of key_heads, %llu",
               static_cast<unsigned long long>(value_heads), static_cast<unsigned long long>(key_heads))
      .require(std::isfinite(scale), "scale is %g, required is a finite number", static_cast<double>(scale))
      .require(corrects == 0 || corrects == 1, "corrects is %d, required is 0 or 1", corrects)
      .status();
}

inline airk_status check_gated(airk_stream *stream, airk_ptr y, airk_ptr gate, airk_ptr up, uint64_t count, int32_t activation) {
  return Check(stream, "gated")
      .tensor("y", y)
      .tensor("gate", gate)
      .optional("up", up)
      .shape("y", {count})
      .require(activation >= -1 && activation <= AIRK_SWIGLU_OAI, "activation is %d, required is -1 to %d", activation, AIRK_SWIGLU_OAI)
      .require(activation != -1 || up != 0, "`up` is null, activation -1 requires a tensor")
      .require(activation != AIRK_SWIGLU_OAI || up != 0, "`up` is null, activation %d (swiglu_oai) requires a tensor", activation)
      .status();
}

inline airk_status check_add(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count) {
  return Check(stream, "add").tensor("y", y).tensor("x", x).shape("y", {count}).status();
}

inline airk_status check_scale(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float softcap) {
  return Check(stream, "scale")
      .tensor("y", y)
      .tensor("x", x)
      .shape("y", {count})
      .require(softcap >= 0 && std::isfinite(softcap), "softcap is %g, required is a finite number of at least 0",
               static_cast<double>(softcap))
      .status();
}

inline airk_status check_clamp(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float limit) {
  return Check(stream, "clamp")
      .tensor("y", y)
      .tensor("x", x)
      .shape("y", {count})
      .require(limit > 0, "limit is %g, required is above 0", static_cast<double>(limit))
      .status();
}

inline airk_status check_xielu(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr alpha_p, airk_ptr alpha_n, airk_ptr beta,
                               airk_ptr eps, uint64_t count) {
  return Check(stream, "xielu")
      .tensor("y", y)
      .tensor("x", x)
      .tensor("alpha_p", alpha_p)
      .tensor("alpha_n", alpha_n)
      .tensor("beta", beta)
      .tensor("eps", eps)
      .shape("y", {count})
      .status();
}

inline airk_status check_copy_2d(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t rows,
                                 uint64_t cols) {
  Check check(stream, "copy_2d");
  check.tensor("y", y)
      .tensor("x", x)
      .shape("y", {rows, y_stride})
      .shape("x", {rows, x_stride})
      .shape("a row", {cols})
      .at_least("y_stride", y_stride, rows > 1 ? cols : 0)
      .at_least("x_stride", x_stride, rows > 1 ? cols : 0);
  if (check.failed()) return check.status();
  const auto end = [&](airk_ptr from, uint64_t stride) { return from + ((rows - 1) * stride + cols) * sizeof(float); };
  return check.require(end(x, x_stride) <= y || end(y, y_stride) <= x, "`y` overlaps `x`").status();
}

inline airk_status check_scatter_add(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr ids, airk_ptr weights, uint64_t count,
                                     uint64_t rows, uint64_t cols) {
  Check check(stream, "scatter_add");
  check.tensor("y", y)
      .tensor("x", x)
      .tensor("ids", ids)
      .optional("weights", weights)
      .at_least("rows", rows, 1)
      .at_least("cols", cols, 1)
      .shape("y", {rows, cols})
      .shape("x", {count, cols});
  if (check.failed()) return check.status();
  const uint64_t row_bytes = cols * sizeof(float);
  return check.require(x + count * row_bytes <= y || y + rows * row_bytes <= x, "`y` overlaps `x`").status();
}

inline airk_status check_gather_rows(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr ids, uint64_t count, uint64_t rows, uint64_t
                                     cols) {
  return Check(stream, "gather_rows")
      .tensor("y", y)
      .tensor("x", x)
      .tensor("ids", ids)
      .at_least("rows", rows, 1)
      .at_least("cols", cols, 1)
      .shape("x", {rows, cols})
      .shape("y", {count, cols})
      .status();
}

inline airk_status check_argmax(airk_stream *stream, airk_ptr index, airk_ptr x, uint64_t rows, uint64_t cols) {
  return Check(stream, "argmax")
      .tensor("index", index)
      .tensor("x", x)
      .at_least("cols", cols, 1)
      .at_most("cols", cols, std::numeric_limits<int32_t>::max())
      .shape("x", {rows, cols})
      .status();
}

inline airk_status check_top_k(airk_stream *stream, airk_ptr value, airk_ptr index, airk_ptr x, uint64_t rows, uint64_t cols, uint64_t
                               k) {
  return Check(stream, "top_k")
      .tensor("value", value)
      .tensor("index", index)
      .tensor("x", x)
      .at_least("cols", cols, 1)
      .at_most("cols", cols, std::numeric_limits<int32_t>::max())
      .at_least("k", k, 1)
      .at_most("k", k, std::min(cols, kMostTopK))
      .shape("x", {rows, cols})
      .shape("value", {rows, k})
      .status();
}

// The arguments of a product but for its weight, which view_weight checks.
inline airk_status check_matmul(airk_context *context, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t tokens,
                                uint64_t rows, uint64_t cols, airk_ptr bias, int32_t continues, int32_t precision) {
  if (precision != 0 && precision != 1) return fail(context, AIRK_INVALID, "Cannot matmul: precision %d, required 0 or 1", precision);
  if (continues != 0 && continues != 1) return fail(context, AIRK_INVALID, "Cannot matmul: continues %d, required 0 or 1", continues);
  if (tokens == 0) return AIRK_OK;
  if (tokens > 1 && (x_stride < cols || y_stride < rows)) {
    return fail(context, AIRK_INVALID, "Cannot matmul: strides %llu and %llu of x and y, required %llu and %llu",
                static_cast<unsigned long long>(x_stride), static_cast<unsigned long long>(y_stride),
                static_cast<unsigned long long>(cols), static_cast<unsigned long long>(rows));
  }
  uint64_t x_elements, y_elements, bytes;
  if (multiply_overflows(tokens - 1, x_stride, &x_elements) || multiply_overflows(tokens - 1, y_stride, &y_elements) ||
      multiply_overflows(x_elements + cols, 4, &bytes) || multiply_overflows(y_elements + rows, 4, &bytes)) {
    return fail(context, AIRK_INVALID, "Cannot matmul: the size of x or y overflows");
  }
  if (x == 0 || y == 0 || x % 4 != 0 || y % 4 != 0 || bias % 4 != 0) {
    return fail(context, AIRK_INVALID, "Cannot matmul: x, y and bias must be multiples of 4, x and y not null");
  }
  if (x < y + (y_elements + rows) * 4 && y < x + (x_elements + cols) * 4) return fail(context, AIRK_INVALID, "Cannot matmul: y overlaps x");
  return AIRK_OK;
}

// The same of a product by groups of rows.
inline airk_status check_matmul_grouped(airk_context *context, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride,
                                        uint64_t x_group_stride, uint64_t tokens, uint64_t rows, uint64_t cols, airk_ptr bias,
                                        uint64_t first_row, uint64_t group_rows, int32_t precision) {
  uint64_t end_row, x_cols = 0;
  const bool counts = group_rows != 0 && !__builtin_add_overflow(first_row, rows, &end_row) &&
                      !multiply_overflows((end_row - 1) / group_rows, x_group_stride, &x_cols) && !__builtin_add_overflow(x_cols, cols, &x_cols);
  if (!counts) {
    return fail(context, AIRK_INVALID, "Cannot matmul: group_rows is %llu, required is at least 1 and groups of x whose sizes do not overflow",
                static_cast<unsigned long long>(group_rows));
  }
  return check_matmul(context, y, y_stride, x, x_stride, tokens, rows, x_cols, bias, 0, precision);
}

// y: f32 [rows, cols], dequantized.
inline airk_status check_rows(airk_context *context, const char *op, airk_ptr y, uint64_t rows, uint64_t cols) {
  uint64_t elements, bytes;
  if (y == 0 || y % 4 != 0 || multiply_overflows(rows, cols, &elements) || multiply_overflows(elements, 4, &bytes)) {
    return fail(context, AIRK_INVALID, "Cannot %s: y is null, not a multiple of 4, or its size overflows", op);
  }
  return AIRK_OK;
}

inline airk_status check_ids(airk_context *context, const char *op, airk_ptr ids) {
  return ids != 0 && ids % 4 == 0 ? AIRK_OK : fail(context, AIRK_INVALID, "Cannot %s: ids is null or not a multiple of 4", op);
}

}  // namespace airk
