/**
 * Qwen 1.8B to 72B, the first: Qwen 2 under names of its own, with queries, keys and values in one matrix. Follows what its published `modeling_qwen.py` computes. Its
 * `use_dynamic_ntk` and `use_logn_attn` count in texts longer than `seq_length` alone, which are not read.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  fusedQkv,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readShape,
  renamedSource,
  rmsNorm,
} from "../decoder_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "ln_1",
  "post_attention_layernorm": "ln_2",
  "self_attn.o_proj": "attn.c_proj",
  "mlp.gate_proj": "mlp.w2",
  "mlp.up_proj": "mlp.w1",
  "mlp.down_proj": "mlp.c_proj",
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const written = new ConfigReader(values, "config.json");
  refuseUnimplemented(written, ["rotary_pct"]);
  if (!written.boolean("no_bias", true)) throw written.refuse("no_bias", "true");
  if (written.has("rotary_pct") && written.raw("rotary_pct") !== 1) throw written.refuse("rotary_pct", "1");
  const config = written.with({ max_position_embeddings: written.raw("seq_length") });
  const shape = readShape(config, { contextTokens: 8192 });
  if (shape.numKvHeads !== shape.numHeads) throw config.refuse("num_key_value_heads", `num_attention_heads (${shape.numHeads})`);
  if (config.integer("kv_channels", shape.headDim) !== shape.headDim) throw config.refuse("kv_channels", `${shape.headDim}`);
  if (shape.intermediateSize % 2 !== 0) throw config.refuse("intermediate_size", "even: the width of gate and up together");
  const intermediateSize = shape.intermediateSize / 2;
  const eps = config.positive("layer_norm_epsilon", 1e-6);
  const attention = plainAttention(shape.headDim, { qkvBias: true });
  return decoderConfig("qwen", { ...shape, intermediateSize }, {
    ropes: [{ dim: shape.headDim, theta: config.positive("rotary_emb_base", 10_000), scaling: { type: "default" } }],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, gatedMlp(intermediateSize), eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string, config: ModelConfig): TensorSource | undefined {
  return renamedSource(name, LAYER_NAMES) ?? fusedQkv(name, "attn.c_attn", config);
}

/** Qwen, the first. */
export const QWEN = decoderArchitecture({
  modelTypes: ["qwen"],
  parseConfig,
  layerPrefix: (layer) => `transformer.h.${layer}.`,
  layerSource,
  rootNames: { "model.embed_tokens.weight": "transformer.wte.weight", "model.norm.weight": "transformer.ln_f.weight" },
});
