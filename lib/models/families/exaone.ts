/**
 * EXAONE 3, 3.5 and Deep: Llama under names of its own. Follows what its published `modeling_exaone.py` computes.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  renamedSource,
  rmsNorm,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "ln_1",
  "post_attention_layernorm": "ln_2",
  "self_attn.q_proj": "attn.attention.q_proj",
  "self_attn.k_proj": "attn.attention.k_proj",
  "self_attn.v_proj": "attn.attention.v_proj",
  "self_attn.o_proj": "attn.attention.out_proj",
  "mlp.gate_proj": "mlp.c_fc_0",
  "mlp.up_proj": "mlp.c_fc_1",
  "mlp.down_proj": "mlp.c_proj",
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const written = new ConfigReader(values, "config.json");
  refuseUnimplemented(written);
  const config = written.aliased({ num_hidden_layers: "num_layers" });
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("layer_norm_epsilon", 1e-5);
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "activation_function", "silu") });
  return decoderConfig("exaone", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(plainAttention(shape.headDim), feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** EXAONE. */
export const EXAONE = decoderArchitecture({
  modelTypes: ["exaone"],
  parseConfig,
  layerPrefix: (layer) => `transformer.h.${layer}.`,
  layerSource: (name) => renamedSource(name, LAYER_NAMES),
  rootNames: { "model.embed_tokens.weight": "transformer.wte.weight", "model.norm.weight": "transformer.ln_f.weight" },
});
