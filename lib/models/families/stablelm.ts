/**
 * StableLM 3B, 2 1.6B and 2 12B: LayerNorm, heads rotated by a quarter; the 12B's sublayers are parallel and its heads have norms of their own.
 * Follows transformers' `modeling_stablelm.py`.
 * @module
 */
import type { HeadNormConfig, NormConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, readActivation, readShape } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["use_qkv_bias", "qk_layernorm", "use_parallel_residual"]);
  const shape = readShape(config, { contextTokens: 4096, numKvHeads: 32 });
  const eps = config.positive("layer_norm_eps", 1e-5);
  const norm = (name: string): NormConfig => ({ kind: "layer", name, eps, bias: true, offset: 0 });
  const headNorm = (name: string): HeadNormConfig => ({ ...norm(name), bias: false, scope: "each" });
  const attention = plainAttention(shape.headDim, {
    qkvBias: config.boolean("use_qkv_bias", false),
    ...(config.boolean("qk_layernorm", false)
      ? { queryNorm: headNorm("self_attn.q_layernorm"), keyNorm: headNorm("self_attn.k_layernorm") }
      : {}),
  });
  const parallel = config.boolean("use_parallel_residual", false);
  const layer = {
    attention,
    feedForward: gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") }),
    norms: {
      attentionInput: norm("input_layernorm"),
      feedForwardInput: parallel ? undefined : norm("post_attention_layernorm"),
    },
    parallel,
    residualMultiplier: 1,
  };
  return decoderConfig("stablelm", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 0.25 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: norm("model.norm"),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Each head's norm is a tensor of its own. */
function layerSource(name: string, { numHeads, numKvHeads }: ModelConfig): TensorSource[] | undefined {
  const match = /^(self_attn\.([qk])_layernorm)\.weight$/.exec(name);
  if (!match) return undefined;
  return Array.from({ length: match[2] === "q" ? numHeads : numKvHeads }, (_, head) => ({
    name: `${match[1]}.norms.${head}.weight`,
  }));
}

/** StableLM. */
export const STABLELM = decoderArchitecture({
  modelTypes: ["stablelm"],
  parseConfig,
  layerSource,
});
