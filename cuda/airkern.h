/*
 * airkern.h: the C ABI of AirKern's native libraries, and the one declaration of every native function.
 *
 * Two libraries implement it: libairkern.so (CUDA, from cuda/) and libairkern_cpu.so (its CPU twin, from cpu/).
 * The TypeScript symbol table lib/ffi/abi.ts is GENERATED from this file (`deno task generate`), so every
 * prototype keeps to fixed-width integers, float, double, and pointers, one declaration a statement.
 *
 * Rules
 * - Every function that can fail returns an airk_status. The error's text is kept in the context:
 *   airk_error_message. It is never thread-local, since the caller may run each call on another thread.
 * - Both twins are asynchronous. A function that takes an airk_stream enqueues its work and returns; operations
 *   on one stream run in order. Whatever an operation reads or writes must stay valid until the stream has passed it.
 *   An error inside an enqueued operation is sticky: later operations on the context are skipped, and every
 *   synchronizing call returns that status until the context is destroyed.
 * - Only functions marked [waits] may block for long; the caller runs those off its event loop. Marking is read
 *   by the generator.
 * - Sizes, strides and offsets are 64-bit; *_bytes are bytes, all other counts are elements. Tensors are row-major,
 *   float32 unless said otherwise. airk_ptr is an address in device memory, 0 where a tensor is optional and absent.
 * - Handles are opaque. Who creates destroys: a stream or event before its context; destroying NULL is allowed.
 */
#ifndef AIRKERN_H
#define AIRKERN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define AIRK_API __declspec(dllexport)
#else
#define AIRK_API __attribute__((visibility("default")))
#endif

/* Raised whenever a prototype, an enum value or a weight layout below changes. Checked at load. */
#define AIRK_ABI_VERSION 6

typedef struct airk_context airk_context; /* one device, its memory and its error text */
typedef struct airk_stream airk_stream;   /* an in-order queue of operations */
typedef struct airk_event airk_event;     /* a point in a stream that can be waited for */
typedef uint64_t airk_ptr;                /* an address in device memory */

typedef int32_t airk_status;
enum {
  AIRK_OK = 0,
  AIRK_NOT_READY = 1,       /* airk_event_query: work before the event is still under way */
  AIRK_INVALID = 2,         /* an argument is outside what the function accepts */
  AIRK_OUT_OF_MEMORY = 3,   /* device or host memory cannot be had */
  AIRK_UNSUPPORTED = 4,     /* valid, but this library cannot do it */
  AIRK_NO_DEVICE = 5,       /* no device of that number, or no driver */
  AIRK_DEVICE_ERROR = 6,    /* the device failed; sticky */
  AIRK_CANCELLED = 7,       /* airk_context_cancel was called */
  AIRK_NOT_FINITE = 8       /* a weight to quantize is NaN or infinite */
};

/* Element types of activations, caches and unquantized weights. AIRK_Q8 is one of caches alone: see airk_kv_append. */
enum { AIRK_F32 = 0, AIRK_F16 = 1, AIRK_BF16 = 2, AIRK_Q8 = 3 };

/*
 * Weight formats. Files store the NAME ("f32" "f16" "bf16" "q8" "nf4" "q4o" "bnb4-64-bf16" ...); airk_format_id turns it into the
 * id used in calls. A weight extent is a run of whole rows of one matrix [rows, cols], laid out as sections in the order given,
 * each starting on a multiple of 64 bytes from the extent's start; blocks = ceil(cols / 32).
 *
 *  f32, f16, bf16   values [rows][cols]
 *
 *  q8     w = scale * code                                             8.5 bits a weight
 *         scale  bf16 [rows][blocks]
 *         code   i8   [rows][blocks * 32], zero beyond cols
 *
 *  nf4    w = NF4[code] * absmax, as bitsandbytes stores it (block 64, no double quantization); blocks run over the flat tensor
 *         and do not restart at a row, so an extent starts on a multiple of 64 elements of its tensor.   4.5 bits a weight
 *         absmax f32  [ceil(rows * cols / 64)]
 *         code   u8   [ceil(rows * cols / 2)], the HIGH nibble is the even element
 *
 *  q4o    w = row_scale * column_scale * (block_scale * code_table[code] + 128 * outlier)   about 4.3 bits a weight
 *         code_table    i8   [16] ascending, then 48 zero bytes
 *         column_scale  u8   [cols], meaning 2 ^ ((u - 128) / 16)
 *         row_scale     bf16 [rows]
 *         block_scale   i8   [rows][blocks]
 *         code          u8   [rows][blocks * 16]; in a block, byte j holds element j in its low nibble and element 16 + j in its high
 *                       nibble; elements beyond cols are read as multiplied by zero
 *         outlier_base  u32  [ceil(rows / 64)], index of the first outlier of each group of 64 rows
 *         outlier_start u16  [rows], index of the row's first outlier, relative to its group's base
 *         outlier_col   u16  [outliers], ascending within a row
 *         outlier       f16  [outliers]
 *
 * Packed formats, which others' checkpoints come in and which are kept as they are: read by every operation, made by no quantizer. Their names
 * have parameters, powers of two: G columns that share a scale, groups = ceil(cols / G), or "row" for all of them; and T = f32, f16 or bf16.
 * Products are rounded to float32 one by one. Codes of 4 bits lie as in q4o, of 8 bits as in q8, unless said otherwise; pad columns are any.
 *
 *  bnb4-B-T, bnb4-BxN-T   w = T(map[code] * absmax), bitsandbytes' 4 bits: blocks of B elements of the flat tensor, which do not restart at
 *         a row; an extent starts on a multiple of B (and B * N) elements. With N, absmax = nested_map[absmax code] * nested + offset.
 *         map           f32  [16]
 *         nested_map    f32  [256]                                          with N
 *         offset        f32  [1]                                            with N
 *         nested        f32  [ceil(blocks / N)], blocks = ceil(rows * cols / B)   with N
 *         absmax        u8   [blocks] with N, else f32
 *         code          u8   [ceil(rows * cols / 2)], the HIGH nibble is the even element
 *
 *  int4-G-T, int4-G-T-zero   w = scale * (code - zero), zero 8 where it is not stored: GPTQ, AWQ, compressed-tensors, Q4_0. With "-order" at
 *         the name's end, which of the groups a column belongs to is stored: GPTQ's act-order.
 *         scale         T    [rows][groups]
 *         zero          u8   [rows][groups]                                 with zero
 *         order         u16  [cols], below groups                           with order
 *         code          u8   [rows][blocks * 16]
 *
 *  int8-G-T, int8-G-T-zero, int8-G-scb   the same with i8 codes, zero i16 and 0 where it is not stored; scb: w = scale * code * (1 / 127), scale f32
 *
 *  fp8-RxG   w = scale * code, R rows share scales; an extent starts on a multiple of R rows
 *         scale         f32  [ceil(rows / R)][groups]
 *         code          e4m3 [rows][blocks * 32]
 *
 *  mxfp4  w = 2 ^ (scale - 127) * code: scale u8 [rows][blocks]; code e2m1, u8 [rows][blocks * 16]
 *
 *  nvfp4, nvfp4-product   w = scale / global * code, or scale * global * code, a scale for 16 columns
 *         global        f32  [1]
 *         scale         e4m3 [rows][blocks * 2]
 *         code          e2m1, u8 [rows][blocks * 16]
 *
 *  q4_k, q5_k, q6_k   GGUF's blocks of 256 columns (ggml-common.h): [rows][cols / 256] of 144, 176, 210 bytes; cols is a multiple of 256
 *
 *  iq4_nl   w = scale * value[code], ggml's 16 values: scale f16 [rows][blocks]; code u8 [rows][blocks * 16]
 *
 *  q4_1, q5_0, q5_1   GGUF's blocks of 32: w = scale * code + minimum, in q5_0 scale * (code - 16)
 *         scale         f16  [rows][blocks], in q4_1 and q5_1 [rows][blocks][2], each with its minimum
 *         high          u32  [rows][blocks], the fifth bits                 q5_0, q5_1
 *         code          u8   [rows][blocks * 16]
 *
 *  q2_k, q3_k, iq4_xs, tq2_0, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m   GGUF's blocks of 256, a block's scales apart from its
 *         codes; cols is a multiple of 256. In the order of the names:
 *         scale         u8   [rows][cols / 256] of 20 (scales, d, dmin), 14 (scales, d), 8, 2, 2, 10, 10, 2, 6, 2 (d first), 8 bytes
 *         high          u8   [rows][cols / 256] of 32 (third bits) in q3_k, 8 (qh) in iq2_s, 32 (signs and scales) in iq3_xxs, 40 (qh, signs) in
 *                            iq3_s, 16 (qh) in iq1_s and iq1_m; none in the others
 *         code          u8   [rows][cols / 256] of 64, 64, 128, 64, 64, 64, 64 (with signs), 64, 64, 32, 32 bytes
 */

/* ---- library ---- */

/* Returns AIRK_ABI_VERSION as the library was built. */
AIRK_API uint32_t airk_abi_version(void);

/* Writes the number of devices this library can use; 0 with AIRK_NO_DEVICE where there is no driver. The CPU twin has one. */
AIRK_API airk_status airk_device_count(int32_t *count);

/* Writes the id of the weight format with this NUL-terminated name; AIRK_UNSUPPORTED where there is none. */
AIRK_API airk_status airk_format_id(const char *name, int32_t *format);

/* Writes the length in bytes of an extent of this format, not padded at its end. `outliers` must be 0 but for q4o. */
AIRK_API airk_status airk_extent_bytes(int32_t format, uint64_t rows, uint64_t cols, uint64_t outliers, uint64_t *bytes);

/* ---- context ---- */

/*
 * Creates a context on a device. `threads` = worker threads of the CPU twin, and of the quantizers in both libraries; 0 for one a core.
 * `options`: NUL-terminated "key=value" pairs separated by commas, or "". The CPU twin knows isa=portable|avx2|avx512|amx
 * (the best instruction set to use; default the best that the processor has). Unknown keys are AIRK_INVALID.
 * On failure *context is NULL and `message` (of `message_capacity` bytes) holds the reason.
 */
AIRK_API airk_status airk_context_create(int32_t device, int32_t threads, const char *options, airk_context **context, char *message, uint64_t message_capacity);

/* Waits for the context's streams, then frees whatever it still owns. */
AIRK_API void airk_context_destroy(airk_context *context);

/* Copies the text of the latest error, NUL-terminated and cut to capacity. Empty where there was none. */
AIRK_API airk_status airk_error_message(airk_context *context, char *message, uint64_t capacity);

/* Copies a JSON object that describes the device: kind, name, isa, threads, unifiedMemory (true: a host buffer's address is its device address);
   with CUDA also driver, the CUDA version that the driver is for. */
AIRK_API airk_status airk_device_description(airk_context *context, char *json, uint64_t capacity);

/* Writes free and total device memory in bytes. */
AIRK_API airk_status airk_memory_info(airk_context *context, uint64_t *free_bytes, uint64_t *total_bytes);

/* Sets (1) or clears (0) the cancel flag: enqueued operations are skipped and quantizers return AIRK_CANCELLED soon. Not sticky once cleared. */
AIRK_API airk_status airk_context_cancel(airk_context *context, int32_t cancelled);

/* ---- memory ---- */

/* Reserves device memory, 4096-aligned. Freed by airk_device_free or with the context. */
AIRK_API airk_status airk_device_alloc(airk_context *context, uint64_t bytes, airk_ptr *address);
AIRK_API airk_status airk_device_free(airk_context *context, airk_ptr address);

/* [waits] Reserves host memory that devices copy from at full speed (page-locked for CUDA, huge pages for the CPU twin), 4096-aligned, zero-filled
   and touched, which takes a second for some GiB. On a unifiedMemory device its address is a device address too. */
AIRK_API airk_status airk_host_alloc(airk_context *context, uint64_t bytes, void **address);
AIRK_API airk_status airk_host_free(airk_context *context, void *address);

/* Copies between memories, in stream order. Host sides come from airk_host_alloc. */
AIRK_API airk_status airk_copy_to_device(airk_stream *stream, airk_ptr to, const void *from, uint64_t bytes);
AIRK_API airk_status airk_copy_to_host(airk_stream *stream, void *to, airk_ptr from, uint64_t bytes);
AIRK_API airk_status airk_copy_on_device(airk_stream *stream, airk_ptr to, airk_ptr from, uint64_t bytes);
AIRK_API airk_status airk_fill(airk_stream *stream, airk_ptr to, uint8_t value, uint64_t bytes);

/* ---- streams and events ---- */

AIRK_API airk_status airk_stream_create(airk_context *context, airk_stream **stream);
AIRK_API void airk_stream_destroy(airk_stream *stream);
/*
 * Gives a stream on which nothing was enqueued yet `bytes` of device memory, 256-aligned, for what operations keep between their kernels. They take no
 * other from then on: AIRK_OUT_OF_MEMORY where it is too little. Without it the library reserves what is needed as it comes. The memory stays the
 * caller's and must outlive the stream. AIRK_UNSUPPORTED on the CPU twin, whose operations use host memory of the library.
 */
AIRK_API airk_status airk_stream_set_scratch(airk_stream *stream, airk_ptr memory, uint64_t bytes);
/* [waits] Returns when all work enqueued before is done, with the first error among it. */
AIRK_API airk_status airk_stream_synchronize(airk_stream *stream);
/* Makes work enqueued on `stream` from now on wait for `event` as last recorded; no effect if it never was. */
AIRK_API airk_status airk_stream_wait_event(airk_stream *stream, airk_event *event);

AIRK_API airk_status airk_event_create(airk_context *context, airk_event **event);
AIRK_API void airk_event_destroy(airk_event *event);
AIRK_API airk_status airk_event_record(airk_event *event, airk_stream *stream);
/* AIRK_OK when the work before the latest record is done (or it never was recorded), else AIRK_NOT_READY or the sticky error. */
AIRK_API airk_status airk_event_query(airk_event *event);
/* [waits] Returns when the work before the latest record is done. */
AIRK_API airk_status airk_event_synchronize(airk_event *event);
/* Writes the milliseconds from one recorded, reached event to another. */
AIRK_API airk_status airk_event_elapsed(airk_event *start, airk_event *stop, float *ms);

/* ---- operations: activations are float32 ---- */

/* y [tokens, cols] = rows ids[t] of the weight extent; ids: i32 [tokens], each in [0, rows). */
AIRK_API airk_status airk_embedding(airk_stream *stream, airk_ptr y, int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols, uint64_t outliers, airk_ptr ids, uint64_t tokens);

/* y [rows, cols] f32 = every weight of the extent. */
AIRK_API airk_status airk_dequantize(airk_stream *stream, airk_ptr y, int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols, uint64_t outliers);

/*
 * y[t * y_stride + r] = sum over c of x[t * x_stride + c] * weight[r, c]  (+ bias[r])   for t < tokens, r < rows, c < cols.
 * bias: f32 [rows] or 0. continues: 1 where the operation before on this stream multiplied the same x by an earlier extent of the same matrix, so
 * that what was prepared from x (and the column scale, which a matrix's extents share) may be used again; else 0. precision 0 (exact): float32 products and sums; 1 (fast): activations may be rounded inside the kernel
 * (8-bit, 16-bit or bfloat16 operands) where that is quicker. y must not overlap x.
 */
AIRK_API airk_status airk_matmul(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t tokens, int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols, uint64_t outliers, airk_ptr bias, int32_t continues, int32_t precision);

/*
 * The same where a matrix is the blocks of a block diagonal, one below the other: its rows g * group_rows .. (g + 1) * group_rows - 1 multiply
 * group g of x, which begins at x + t * x_stride + g * x_group_stride. The extent's row r is row first_row + r of the matrix:
 * y[t * y_stride + r] = sum over c of x[t * x_stride + (first_row + r) / group_rows * x_group_stride + c] * weight[r, c]  (+ bias[r]).
 * x_stride covers all groups that the extent's rows read.
 */
AIRK_API airk_status airk_matmul_grouped(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t x_group_stride, uint64_t tokens, int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols, uint64_t outliers, airk_ptr bias, uint64_t first_row, uint64_t group_rows, int32_t precision);

/* y [rows, cols] = x / sqrt(mean(x^2) + eps) * weight; weight: f32 [cols], or 0 for ones. y may be x. */
AIRK_API airk_status airk_rmsnorm(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, uint64_t rows, uint64_t cols, float eps);

/*
 * y [rows, cols] = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, where the variance divides by cols.
 * weight: f32 [weight_rows, cols], or 0 for ones; bias: f32 [weight_rows, cols], or 0 for zeros; row r takes their row r % weight_rows, so that
 * heads may have weights of their own. y may be x.
 */
AIRK_API airk_status airk_layernorm(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, airk_ptr bias, uint64_t weight_rows, uint64_t rows, uint64_t cols, float eps);

/*
 * Rotates, in place, elements first .. first + rotary_dim - 1 of every head of x. Head h of token t begins at x + t * x_stride + h * head_dim,
 * so that heads may stand in rows that are wider; first + rotary_dim <= head_dim, x_stride >= heads * head_dim where tokens > 1.
 * cos, sin: f32 [tokens, rotary_dim / 2]. Pair i turns by (cos[i], sin[i]) of its token: (a, b) becomes (a cos - b sin, b cos + a sin).
 * interleaved 0: a, b are elements first + i and first + i + rotary_dim / 2; 1: first + 2 i and first + 2 i + 1.
 */
AIRK_API airk_status airk_rope(airk_stream *stream, airk_ptr x, uint64_t x_stride, airk_ptr cos, airk_ptr sin, uint64_t tokens, uint64_t heads, uint64_t head_dim, uint64_t first, uint64_t rotary_dim, int32_t interleaved);

/*
 * The KV cache of one layer is a pool of pages of page_tokens tokens. Token slot s lies in page s / page_tokens at s % page_tokens.
 * cache_type AIRK_F32 or AIRK_F16: k_cache [pages, kv_heads, page_tokens, head_dim], v_cache [pages, kv_heads, page_tokens, value_dim].
 * cache_type AIRK_Q8: element = scale * code, one scale for each 32 elements of a row. With blocks = ceil(row elements / 32), a page is
 *   code   i8   [kv_heads, page_tokens, blocks * 32], zero beyond the row's elements
 *   scale  f16  [kv_heads, page_tokens, blocks], the block's largest magnitude / 127; NaN for a block that holds NaN or infinity, or
 *               whose scale float16 cannot hold, so that all of it reads as NaN
 * Writes k [tokens, kv_heads, head_dim] and v [tokens, kv_heads, value_dim] to slots: i32 [tokens]. v_cache and v are 0 together: there are
 * no values of their own (airk_attention).
 */
AIRK_API airk_status airk_kv_append(airk_stream *stream, airk_ptr k_cache, airk_ptr v_cache, int32_t cache_type, airk_ptr k, airk_ptr v, airk_ptr slots, uint64_t tokens, uint64_t kv_heads, uint64_t head_dim, uint64_t value_dim, uint64_t page_tokens);

/*
 * Grouped-query attention over the paged cache, for the tokens of one pass, which may belong to several sequences.
 * q [tokens, heads, head_dim]; y [tokens, heads, value_dim]. Head h reads key head h / (heads / kv_heads). head_dim <= 576, value_dim <= 512.
 * k_cache, v_cache, cache_type: as airk_kv_append wrote them. v_cache 0: the value is the first value_dim <= head_dim elements of the key.
 * sequences: i32 [sequence_count, 4] = first token in the pass, tokens in the pass, tokens cached before the pass, first entry in page_table.
 * page_table: i32, page numbers; position p of a sequence lies in page page_table[first entry + p / page_tokens].
 * The pass's own keys and values are in the cache already (airk_kv_append), at positions cached before .. cached before + tokens - 1; these are
 * the positions that all below counts in.
 * mask: 0 for causal order, else u8 [tokens, tokens] over the pass: token i sees token j of its own sequence where mask[i][j] != 0,
 * and always all that was cached before. A token must see at least itself.
 * first_visible: 0, or i32 [tokens]: a token sees nothing before this position of its sequence, whatever else would let it; at most the token's
 * own position. Windows and chunks are such data. Page table entries and pages wholly before what all tokens of the sequence see are not read.
 * score = q . k * scale; unless softcap is 0: score = softcap * tanh(score / softcap); where slopes (f32 [heads], ALiBi) is not 0:
 * score += slopes[h] * (key's position - token's position). Then softmax in float32 over what is seen, where sinks (f32 [heads]) is not 0 with
 * one more score, sinks[h], that takes its share but has no value.
 * context_tokens: the largest (cached before + tokens in the pass) of any sequence.
 * precision 0 (exact): float32 products and sums; 1 (fast): queries, keys, values and the softmax's weights may be rounded to float16 inside the
 * kernel where that is quicker.
 */
AIRK_API airk_status airk_attention(airk_stream *stream, airk_ptr y, airk_ptr q, airk_ptr k_cache, airk_ptr v_cache, int32_t cache_type, airk_ptr sequences, uint64_t sequence_count, airk_ptr page_table, airk_ptr mask, airk_ptr first_visible, airk_ptr sinks, airk_ptr slopes, uint64_t tokens, uint64_t heads, uint64_t kv_heads, uint64_t head_dim, uint64_t value_dim, uint64_t page_tokens, uint64_t context_tokens, float scale, float softcap, int32_t precision);

/* y [rows, cols] = x / sqrt(sum(x^2) + eps). y may be x. */
AIRK_API airk_status airk_l2norm(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t rows, uint64_t cols, float eps);

/* y [rows, cols] = -exp(a_log[c]) * log(1 + exp(x + bias[c])), the logarithm of a gate's decay; a_log, bias: f32 [cols]. y may be x. */
AIRK_API airk_status airk_log_decay(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr a_log, airk_ptr bias, uint64_t rows, uint64_t cols);

/*
 * Recurrent layers keep one state of fixed size a sequence. sequences: i32 [sequence_count, 4] as in airk_attention, whose fourth numbers are not
 * read; a sequence with nothing cached before the pass starts from zeros, whatever its state holds. state_slots: i32 [sequence_count, 2], in
 * [0, slots): which of the states it reads and which it writes, the same or another, so that the state of before can be kept; no two sequences
 * share one. Tokens of no sequence are left alone.
 *
 * Depthwise causal convolution over each sequence's tokens, after the inputs that came before:
 * y[t, c] = activation(bias[c] + sum over j < kernel of weight[c, j] * x[t - kernel + 1 + j, c]), where activation -1 is none.
 * x, y: [tokens, cols] (not overlapping); weight: f32 [cols, kernel]; bias: f32 [cols] or 0; 2 <= kernel <= 16.
 * state: f32 [slots, kernel - 1, cols], the last inputs of each sequence, oldest first: read, then written as they are after the pass.
 */
AIRK_API airk_status airk_causal_conv1d(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, airk_ptr bias, airk_ptr state, airk_ptr state_slots, uint64_t slots, airk_ptr sequences, uint64_t sequence_count, uint64_t tokens, uint64_t cols, uint64_t kernel, int32_t activation);

/*
 * The gated delta rule, token after token of each sequence (Yang et al. 2024, arXiv:2412.06464). With S the state of a value head, [key_dim,
 * value_dim], which reads key head h / (value_heads / key_heads), or h % key_heads where key heads take turns:
 *   S = exp(log_decay) S;   S = S + k (x) (beta (v - k S));   y = scale q S + skip[h] v.
 * Where `corrects` is 0, S = S + k (x) (beta v): gated linear attention, and so the state space of Mamba 2 (Dao and Gu 2024, arXiv:2405.21060).
 * skip: f32 [value_heads], or 0 for none.
 * q, k: head h of token t at q + t * q_stride + h * key_dim, and alike for k; v: [value_heads, value_dim] at v + t * v_stride.
 * y [tokens, value_heads, value_dim]; log_decay, beta: f32 [tokens, value_heads]. key_dim <= 256.
 * state: f32 [slots, value_heads, key_dim, value_dim].
 */
AIRK_API airk_status airk_gated_delta_rule(airk_stream *stream, airk_ptr y, airk_ptr q, uint64_t q_stride, airk_ptr k, uint64_t k_stride, airk_ptr v, uint64_t v_stride, airk_ptr log_decay, airk_ptr beta, airk_ptr state, airk_ptr state_slots, uint64_t slots, airk_ptr sequences, uint64_t sequence_count, uint64_t tokens, uint64_t key_heads, uint64_t value_heads, uint64_t key_dim, uint64_t value_dim, float scale, airk_ptr skip, int32_t corrects, int32_t key_heads_take_turns);

/*
 * Activations of airk_gated, where g is an element of gate and u the same of up (1 where up is 0):
 *   silu g sigmoid(g) u;  gelu g Phi(g) u, Phi the normal distribution;  gelu_tanh the same with
 *   Phi(g) = (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3))) / 2;  relu max(g, 0) u;  relu2 max(g, 0)^2 u;  sigmoid sigmoid(g) u;
 *   tanh tanh(g) u;  swiglu_oai (gpt-oss, needs up): h sigmoid(1.702 h) (v + 1), where h = min(g, 7) and v = u clamped to [-7, 7].
 */
enum {
  AIRK_SILU = 0,
  AIRK_GELU = 1,
  AIRK_GELU_TANH = 2,
  AIRK_RELU = 3,
  AIRK_RELU2 = 4,
  AIRK_SIGMOID = 5,
  AIRK_TANH = 6,
  AIRK_SWIGLU_OAI = 7
};

/* y[i] = activation(gate[i]) * up[i], or activation(gate[i]) where up is 0; count elements. y may be gate or up. Activation -1, gate[i] * up[i], needs up. */
AIRK_API airk_status airk_gated(airk_stream *stream, airk_ptr y, airk_ptr gate, airk_ptr up, uint64_t count, int32_t activation);

/* y[i] += factor * x[i], count elements; exactly y + x where factor is 1. x may be y. */
AIRK_API airk_status airk_add(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float factor);

/* y[i] = factor * x[i], then softcap * tanh(y[i] / softcap) unless softcap is 0; count elements. softcap >= 0. y may be x. */
AIRK_API airk_status airk_scale(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float factor, float softcap);

/* y[i] = x[i], or the nearest of -limit and limit where it lies beyond; count elements, limit > 0. y may be x. */
AIRK_API airk_status airk_clamp(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float limit);

/*
 * xIELU (Huang and Schlag 2024, arXiv:2411.13010): y[i] = log(1 + exp(alpha_p)) x^2 + beta x where x = x[i] > 0, else
 * (beta + log(1 + exp(alpha_n))) (exp(min(x, eps)) - 1 - x) + beta x. alpha_p, alpha_n, beta, eps: f32 [1], in device memory; count elements. y may be x.
 */
AIRK_API airk_status airk_xielu(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr alpha_p, airk_ptr alpha_n, airk_ptr beta, airk_ptr eps, uint64_t count);

/* y[r * y_stride + c] = x[r * x_stride + c], r < rows, c < cols; strides are at least cols where rows > 1. y must not overlap x. */
AIRK_API airk_status airk_copy_2d(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t rows, uint64_t cols);

/* y [count, cols] = x[ids[i], :]; ids: i32 [count], each in [0, rows). */
AIRK_API airk_status airk_gather_rows(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr ids, uint64_t count, uint64_t rows, uint64_t cols);

/*
 * y[ids[i], :] += weights[i] * x[i, :], in ascending order of i where an id repeats, so that the sum has the same bits in every run.
 * y [rows, cols]; x [count, cols]; ids: i32 [count], each in [0, rows); weights: f32 [count], or 0 for ones. y must not overlap x.
 */
AIRK_API airk_status airk_scatter_add(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr ids, airk_ptr weights, uint64_t count, uint64_t rows, uint64_t cols);

/* index: i32 [rows] = position of each row's largest element, the first among equals; NaN counts as smallest. */
AIRK_API airk_status airk_argmax(airk_stream *stream, airk_ptr index, airk_ptr x, uint64_t rows, uint64_t cols);

/* value: f32 [rows, k], index: i32 [rows, k] = each row's k largest in descending order, ties by ascending index. 1 <= k <= min(cols, 1024). */
AIRK_API airk_status airk_top_k(airk_stream *stream, airk_ptr value, airk_ptr index, airk_ptr x, uint64_t rows, uint64_t cols, uint64_t k);

/* ---- quantizers: host memory in, host memory out ---- */

/* Writes the bytes of a format's parameters, which a whole tensor shares (q4o: 16 of code table + cols of column scale; else 0). */
AIRK_API airk_status airk_quantizer_parameter_bytes(int32_t format, uint64_t cols, uint64_t *bytes);

/*
 * [waits] Trains those parameters on a sample of the tensor's rows. source: `type` (AIRK_F32..) [rows, cols]. parameters: as above.
 * AIRK_NOT_FINITE on NaN or infinity.
 */
AIRK_API airk_status airk_quantizer_train(airk_context *context, int32_t format, const uint8_t *source, int32_t type, uint64_t rows, uint64_t cols, uint8_t *parameters, uint64_t parameter_bytes);

/* Writes the largest number of bytes that airk_quantize may need for an extent of this shape. */
AIRK_API airk_status airk_quantized_bytes_bound(int32_t format, uint64_t rows, uint64_t cols, uint64_t *bytes);

/*
 * [waits] Quantizes rows into one extent, on all of the context's threads. source: `type` [rows, cols].
 * Writes the extent, its bytes and its outliers; statistics: double [2] = sum of squared weights, sum of squared errors.
 * Format f32, f16 or bf16 converts (round to nearest even). AIRK_NOT_FINITE on NaN or infinity, also where a finite value overflows f16.
 */
AIRK_API airk_status airk_quantize(airk_context *context, int32_t format, const uint8_t *source, int32_t type, uint64_t rows, uint64_t cols, const uint8_t *parameters, uint64_t parameter_bytes, uint8_t *extent, uint64_t extent_capacity, uint64_t *extent_bytes, uint64_t *outliers, double *statistics);

/* ---- measuring ---- */

/* [waits] Reads `bytes` of host or device memory with all threads, `repeats` times, and writes the seconds of the fastest pass: the memory read ceiling. */
AIRK_API airk_status airk_measure_read(airk_context *context, airk_ptr address, uint64_t bytes, int32_t repeats, double *seconds);

/* [waits] Writes the peak multiply-add rate in FLOP/s of all threads for one operand kind: 0 float32, 1 the fast path of airk_matmul for many tokens. */
AIRK_API airk_status airk_measure_peak(airk_context *context, int32_t kind, double *flops_per_second);

#ifdef __cplusplus
}
#endif
#endif
