/**
 * Baichuan 7B, 13B and Baichuan 2: Llama with queries, keys and values in one matrix; the 13B have ALiBi instead of rotary embeddings, Baichuan 2
 * has a head with rows of unit length. Follows what their published `modeling_baichuan.py` compute.
 * @module
 */
import { alibiSlopes } from "../alibi.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture, REMOTE_CODE } from "../decoder.ts";
import {
  decoderConfig,
  fusedQkv,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  rmsNorm,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config);
  // Both sizes share a model_type. The 7B's configuration class has max_position_embeddings, the 13B's model_max_length alone.
  const alibi = !config.has("max_position_embeddings");
  const contextTokens = config.integer("model_max_length", 4096);
  const shape = readShape(config, { contextTokens });
  if (shape.numKvHeads !== shape.numHeads) throw config.refuse("num_key_value_heads", `num_attention_heads (${shape.numHeads})`);
  const eps = config.positive("rms_norm_eps", 1e-6);
  // Baichuan 2 is told by a setting of its training, which the first release's configuration class does not have.
  const unitHeadRows = config.has("z_loss_weight");
  const tieWordEmbeddings = config.boolean("tie_word_embeddings", false);
  if (unitHeadRows && tieWordEmbeddings) {
    throw config.refuse("tie_word_embeddings", "false where the head has rows of unit length");
  }
  const attention = plainAttention(shape.headDim, { rope: alibi ? undefined : { index: 0, interleaved: false } });
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  return decoderConfig("baichuan", shape, {
    ropes: alibi ? [] : [parseRope(config, { ...shape, theta: 10_000 })],
    alibiSlopes: alibi ? alibiSlopes(shape.numHeads) : undefined,
    layers: Array(shape.numLayers).fill(preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings,
    unitHeadRows,
  });
}

/** Baichuan. */
export const BAICHUAN = decoderArchitecture({
  modelTypes: ["baichuan"],
  refusesExport: REMOTE_CODE,
  parseConfig,
  layerSource: (name, config) => fusedQkv(name, "self_attn.W_pack", config),
});
