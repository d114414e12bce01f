/**
 * InternLM: Llama, the first with biases of attention; the second under names of its own, with queries, keys and values in one matrix. The first two follow what their
 * published `modeling_internlm.py` and `modeling_internlm2.py` compute, InternLM 3 transformers' `internlm3`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture, REMOTE_CODE } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** `biases`: of q_proj, k_proj and v_proj, of o_proj, and of the feed-forward layer. */
function parseConfig(
  config: ConfigReader,
  modelType: string,
  biases: { qkv: boolean; output: boolean; mlp: boolean },
  missing: { contextTokens: number; numKvHeads?: number; headDim?: number; eps: number },
): ModelConfig {
  const shape = readShape(config, missing);
  const eps = config.positive("rms_norm_eps", missing.eps);
  const attention = plainAttention(shape.headDim, { qkvBias: biases.qkv, outputBias: biases.output });
  const feedForward = gatedMlp(shape.intermediateSize, {
    activation: readActivation(config, "hidden_act", "silu"),
    bias: biases.mlp,
  });
  return decoderConfig(modelType, shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function parseInternlm1(values: Record<string, unknown>): ModelConfig {
  const written = new ConfigReader(values, "config.json");
  refuseUnimplemented(written, ["bias"]);
  const bias = written.boolean("bias", true), rotary = written.object("rotary");
  // Later releases of the first have the rotation under a key of its own, with "origin" for what is not stretched.
  const scaling = rotary?.raw("type") === "dynamic" ? { type: "dynamic", factor: rotary.positive("scaling_factor", 1) } : null;
  for (const key of rotary?.keys() ?? []) {
    if (!["base", "type", "scaling_factor"].includes(key)) throw rotary!.refuse(key, "only base, type and scaling_factor");
  }
  if (rotary?.has("type") && !["dynamic", "origin"].includes(rotary.raw("type") as string)) {
    throw rotary.refuse("type", `"dynamic" or "origin"`);
  }
  const config = rotary ? written.with({ rope_scaling: scaling, rope_theta: rotary.positive("base", 10_000) }) : written;
  return parseConfig(config, "internlm", { qkv: bias, output: bias, mlp: false }, { contextTokens: 2048, eps: 1e-6 });
}

function parseInternlm2(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["bias"]);
  config.integer("pretraining_tp", 1);
  const bias = config.boolean("bias", true);
  return parseConfig(config, "internlm2", { qkv: bias, output: bias, mlp: false }, { contextTokens: 2048, eps: 1e-6 });
}

function parseInternlm3(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["bias", "qkv_bias", "attention_bias", "mlp_bias"]);
  // transformers writes other names for the same.
  const qkv = config.boolean(config.has("qkv_bias") ? "qkv_bias" : "attention_bias", false);
  const bias = config.boolean(config.has("bias") ? "bias" : "mlp_bias", false);
  return parseConfig(
    config,
    "internlm3",
    { qkv, output: bias, mlp: bias },
    { contextTokens: 32_768, numKvHeads: 2, headDim: 128, eps: 1e-5 },
  );
}

/** InternLM 2's names within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "attention_norm",
  "post_attention_layernorm": "ffn_norm",
  "self_attn.o_proj": "attention.wo",
  "mlp.gate_proj": "feed_forward.w1",
  "mlp.up_proj": "feed_forward.w3",
  "mlp.down_proj": "feed_forward.w2",
};

function layerSource(name: string, { numHeads, numKvHeads, headDim }: ModelConfig): TensorSource {
  const [, stem, ending] = /^(.*)(\.weight|\.bias)$/.exec(name)!;
  const projection = /^self_attn\.([qkv])_proj$/.exec(stem)?.[1];
  if (!projection) return { name: LAYER_NAMES[stem] + ending };
  const queries = numHeads / numKvHeads;
  return {
    name: `attention.wqkv${ending}`,
    firstRow: { q: 0, k: queries, v: queries + 1 }[projection]! * headDim,
    runRows: projection === "q" ? queries * headDim : headDim,
    rowStep: (queries + 2) * headDim,
  };
}

/** InternLM 7B and 20B, the first. */
export const INTERNLM = decoderArchitecture({ modelTypes: ["internlm"], parseConfig: parseInternlm1 });

/** InternLM 2 and 2.5. */
export const INTERNLM2 = decoderArchitecture({
  modelTypes: ["internlm2"],
  refusesExport: REMOTE_CODE,
  parseConfig: parseInternlm2,
  layerSource,
  rootNames: { "model.embed_tokens.weight": "model.tok_embeddings.weight", "lm_head.weight": "output.weight" },
});

/** InternLM 3. */
export const INTERNLM3 = decoderArchitecture({ modelTypes: ["internlm3"], parseConfig: parseInternlm3 });
