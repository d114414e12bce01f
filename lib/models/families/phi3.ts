/**
 * Phi 3, 3.5 and 4: Llama with fused matrices, LongRoPE, and heads that may be rotated in part. Follows transformers' `modeling_phi3.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  fusedGateUp,
  fusedQkv,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  readWindow,
  rmsNorm,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["sliding_window", "original_max_position_embeddings"]);
  const shape = readShape(config, { contextTokens: 4096 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const attention = plainAttention(shape.headDim, { windowTokens: readWindow(config) });
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  return decoderConfig("phi3", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 1 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string, config: ModelConfig): TensorSource | undefined {
  return fusedQkv(name, "self_attn.qkv_proj", config) ?? fusedGateUp(name, "mlp.gate_up_proj", config);
}

/** Phi 3. */
export const PHI3 = decoderArchitecture({ modelTypes: ["phi3"], parseConfig, layerSource });
