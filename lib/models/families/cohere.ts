/**
 * Command R and R7B: LayerNorm without bias, sublayers in parallel, interleaved rotation, scaled logits. `cohere2` has windows in most layers and
 * rotates in those alone; `cohere` may have norms of queries and keys with a weight for each head. Follows transformers' `modeling_cohere.py`
 * and `modeling_cohere2.py`.
 * @module
 */
import type { AttentionConfig, HeadNormConfig, NormConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  gatedMlp,
  plainAttention,
  readActivation,
  readShape,
  readSlidingLayers,
  readWindow,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

const KEYS = ["attention_bias", "logit_scale", "use_parallel_block", "position_embedding_type"];

function layerNorm(name: string, eps: number): NormConfig {
  return { kind: "layer", name, eps, bias: false, offset: 0 };
}

/** Reads what both have in common; `attentionOf` makes each layer's attention from the common one. */
function parseCommon(
  config: ConfigReader,
  modelType: string,
  theta: number,
  attentionOf: (attention: AttentionConfig, layer: number, eps: number) => AttentionConfig,
): ModelConfig {
  if (!config.boolean("use_parallel_block", true)) throw config.refuse("use_parallel_block", "true");
  if (config.has("position_embedding_type") && config.raw("position_embedding_type") !== "rope_gptj") {
    throw config.refuse("position_embedding_type", `"rope_gptj"`);
  }
  const shape = readShape(config, { contextTokens: 8192 });
  const eps = config.positive("layer_norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    rope: { index: 0, interleaved: true },
  });
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  return decoderConfig(modelType, shape, {
    ropes: [parseRope(config, { ...shape, theta })],
    layers: Array.from({ length: shape.numLayers }, (_, layer) => ({
      attention: attentionOf(attention, layer, eps),
      feedForward,
      norms: { attentionInput: layerNorm("input_layernorm", eps) },
      parallel: true,
      residualMultiplier: 1,
    })),
    finalNorm: layerNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
    logitsMultiplier: config.positive("logit_scale", 0.0625),
  });
}

function parseCohere(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, [...KEYS, "use_qk_norm"]);
  const normalised = config.boolean("use_qk_norm", false);
  return parseCommon(config, "cohere", 500_000, (attention, _, eps) => {
    if (!normalised) return attention;
    const headNorm = (name: string): HeadNormConfig => ({ ...layerNorm(name, eps), scope: "each" });
    return { ...attention, queryNorm: headNorm("self_attn.q_norm"), keyNorm: headNorm("self_attn.k_norm") };
  });
}

function parseCohere2(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, [...KEYS, "sliding_window", "sliding_window_pattern", "layer_types"]);
  if (config.has("order_of_interleaved_layers") && config.raw("order_of_interleaved_layers") !== "local_attn_first") {
    throw config.refuse("order_of_interleaved_layers", `"local_attn_first"`);
  }
  const windowTokens = readWindow(config, 4096);
  const pattern = config.integer("sliding_window_pattern", 4);
  const sliding = readSlidingLayers(config, config.integer("num_hidden_layers"), (layer) => (layer + 1) % pattern !== 0);
  // Without a window no layer rotates.
  return parseCommon(
    config,
    "cohere2",
    10_000,
    (attention, layer) =>
      sliding[layer] && windowTokens !== undefined ? { ...attention, windowTokens } : { ...attention, rope: undefined },
  );
}

/** Command R. */
export const COHERE = decoderArchitecture({
  modelTypes: ["cohere"],
  parseConfig: parseCohere,
  layerSource: (name, config) => /^self_attn\.[qk]_norm\.weight$/.test(name) ? { name, vectorCols: config.headDim } : undefined,
});

/** Command R7B and Command A. */
export const COHERE2 = decoderArchitecture({ modelTypes: ["cohere2"], parseConfig: parseCohere2 });
