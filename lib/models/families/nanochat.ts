/**
 * nanochat: RMSNorm without weights, of the embeddings and of query and key heads too, a plain feed-forward layer, soft-capped logits, and a rotation the other way
 * round. Follows transformers' `modeling_nanochat.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, plainMlp, readActivation, readShape, renamedSource, rmsNorm } from "../decoder_config.ts";
import { readSoftcap } from "./gemma2.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = { "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2" };

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias", "final_logit_softcapping"]);
  const shape = readShape(config, { contextTokens: 2048 });
  const bias = config.boolean("attention_bias", false);
  const norm = { ...rmsNorm("", config.positive("rms_norm_eps", 1e-6)), weightless: true };
  // transformers normalises behind the rotation, which changes no lengths.
  const headNorm = { ...norm, scope: "head" as const };
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias, queryNorm: headNorm, keyNorm: headNorm }),
    feedForward: plainMlp(shape.intermediateSize, readActivation(config, "hidden_act", "relu2"), { bias: false }),
    norms: { attentionInput: norm, feedForwardInput: norm },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("nanochat", shape, {
    ropes: [{ ...parseRope(config, { ...shape, theta: 10_000 }), reversed: true }],
    layers: Array(shape.numLayers).fill(layer),
    embeddingNorm: norm,
    finalNorm: norm,
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    logitsSoftcap: readSoftcap(config, "final_logit_softcapping", 15),
  });
}

/** nanochat. */
export const NANOCHAT = decoderArchitecture({
  modelTypes: ["nanochat"],
  parseConfig,
  layerSource: (name) => renamedSource(name, LAYER_NAMES),
});
