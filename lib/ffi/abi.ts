// GENERATED from cuda/airkern.h by scripts/generate_abi.ts. Do not edit: run `deno task generate`.
// deno-fmt-ignore-file

export const AIRK_ABI_VERSION = 6;
export const AIRK_OK = 0;
export const AIRK_NOT_READY = 1;
export const AIRK_INVALID = 2;
export const AIRK_OUT_OF_MEMORY = 3;
export const AIRK_UNSUPPORTED = 4;
export const AIRK_NO_DEVICE = 5;
export const AIRK_DEVICE_ERROR = 6;
export const AIRK_CANCELLED = 7;
export const AIRK_NOT_FINITE = 8;
export const AIRK_F32 = 0;
export const AIRK_F16 = 1;
export const AIRK_BF16 = 2;
export const AIRK_Q8 = 3;
export const AIRK_SILU = 0;
export const AIRK_GELU = 1;
export const AIRK_GELU_TANH = 2;
export const AIRK_RELU = 3;
export const AIRK_RELU2 = 4;
export const AIRK_SIGMOID = 5;
export const AIRK_TANH = 6;
export const AIRK_SWIGLU_OAI = 7;

export const SYMBOLS = {
  airk_abi_version: { parameters: [], result: "u32" },
  airk_device_count: { parameters: ["buffer"], result: "i32" },
  airk_format_id: { parameters: ["buffer", "buffer"], result: "i32" },
  airk_extent_bytes: { parameters: ["i32", "u64", "u64", "u64", "buffer"], result: "i32" },
  airk_context_create: { parameters: ["i32", "i32", "buffer", "buffer", "buffer", "u64"], result: "i32" },
  airk_context_destroy: { parameters: ["pointer"], result: "void" },
  airk_error_message: { parameters: ["pointer", "buffer", "u64"], result: "i32" },
  airk_device_description: { parameters: ["pointer", "buffer", "u64"], result: "i32" },
  airk_memory_info: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  airk_context_cancel: { parameters: ["pointer", "i32"], result: "i32" },
  airk_device_alloc: { parameters: ["pointer", "u64", "buffer"], result: "i32" },
  airk_device_free: { parameters: ["pointer", "u64"], result: "i32" },
  airk_host_alloc: { parameters: ["pointer", "u64", "buffer"], result: "i32", nonblocking: true },
  airk_host_free: { parameters: ["pointer", "pointer"], result: "i32" },
  airk_copy_to_device: { parameters: ["pointer", "u64", "pointer", "u64"], result: "i32" },
  airk_copy_to_host: { parameters: ["pointer", "pointer", "u64", "u64"], result: "i32" },
  airk_copy_on_device: { parameters: ["pointer", "u64", "u64", "u64"], result: "i32" },
  airk_fill: { parameters: ["pointer", "u64", "u8", "u64"], result: "i32" },
  airk_stream_create: { parameters: ["pointer", "buffer"], result: "i32" },
  airk_stream_destroy: { parameters: ["pointer"], result: "void" },
  airk_stream_set_scratch: { parameters: ["pointer", "u64", "u64"], result: "i32" },
  airk_stream_synchronize: { parameters: ["pointer"], result: "i32", nonblocking: true },
  airk_stream_wait_event: { parameters: ["pointer", "pointer"], result: "i32" },
  airk_event_create: { parameters: ["pointer", "buffer"], result: "i32" },
  airk_event_destroy: { parameters: ["pointer"], result: "void" },
  airk_event_record: { parameters: ["pointer", "pointer"], result: "i32" },
  airk_event_query: { parameters: ["pointer"], result: "i32" },
  airk_event_synchronize: { parameters: ["pointer"], result: "i32", nonblocking: true },
  airk_event_elapsed: { parameters: ["pointer", "pointer", "buffer"], result: "i32" },
  airk_embedding: { parameters: ["pointer", "u64", "i32", "u64", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_dequantize: { parameters: ["pointer", "u64", "i32", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_matmul: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "i32", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32"], result: "i32" },
  airk_matmul_grouped: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32"], result: "i32" },
  airk_rmsnorm: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "f32"], result: "i32" },
  airk_layernorm: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "f32"], result: "i32" },
  airk_rope: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32"], result: "i32" },
  airk_kv_append: { parameters: ["pointer", "u64", "u64", "i32", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_attention: { parameters: ["pointer", "u64", "u64", "u64", "u64", "i32", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "f32", "f32", "i32"], result: "i32" },
  airk_l2norm: { parameters: ["pointer", "u64", "u64", "u64", "u64", "f32"], result: "i32" },
  airk_log_decay: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_causal_conv1d: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32"], result: "i32" },
  airk_gated_delta_rule: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "f32", "u64", "i32", "i32"], result: "i32" },
  airk_gated: { parameters: ["pointer", "u64", "u64", "u64", "u64", "i32"], result: "i32" },
  airk_add: { parameters: ["pointer", "u64", "u64", "u64", "f32"], result: "i32" },
  airk_scale: { parameters: ["pointer", "u64", "u64", "u64", "f32", "f32"], result: "i32" },
  airk_clamp: { parameters: ["pointer", "u64", "u64", "u64", "f32"], result: "i32" },
  airk_xielu: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_copy_2d: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_gather_rows: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_scatter_add: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_argmax: { parameters: ["pointer", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_top_k: { parameters: ["pointer", "u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  airk_quantizer_parameter_bytes: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  airk_quantizer_train: { parameters: ["pointer", "i32", "buffer", "i32", "u64", "u64", "buffer", "u64"], result: "i32", nonblocking: true },
  airk_quantized_bytes_bound: { parameters: ["i32", "u64", "u64", "buffer"], result: "i32" },
  airk_quantize: { parameters: ["pointer", "i32", "buffer", "i32", "u64", "u64", "buffer", "u64", "buffer", "u64", "buffer", "buffer", "buffer"], result: "i32", nonblocking: true },
  airk_measure_read: { parameters: ["pointer", "u64", "u64", "i32", "buffer"], result: "i32", nonblocking: true },
  airk_measure_peak: { parameters: ["pointer", "i32", "buffer"], result: "i32", nonblocking: true },
} as const;
