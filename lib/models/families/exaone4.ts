/**
 * EXAONE 4: norms of what sublayers add instead of what they read, and of query and key heads; the 32B has windows with positions in three of four layers, the
 * others see all and have no positions. Follows transformers' `modeling_exaone4.py`.
 * @module
 */
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
  rmsNorm,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Returns which layers see a window alone. */
function readWindowedLayers(config: ConfigReader, numLayers: number, windowTokens: number | undefined): boolean[] {
  if (config.has("layer_types")) {
    const windowed = readSlidingLayers(config, numLayers, () => false);
    if (windowed.includes(true) && windowTokens === undefined) {
      throw config.refuse("sliding_window", "set where layer_types has windows");
    }
    return windowed;
  }
  // A pattern in letters says nothing to transformers, which then needs the list.
  const pattern = windowTokens === undefined ? 1 : config.integer("sliding_window_pattern", 4);
  return readSlidingLayers(config, numLayers, (layer) => (layer + 1) % pattern !== 0);
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["sliding_window", "sliding_window_pattern", "layer_types"]);
  const shape = readShape(config, { contextTokens: 2048, numKvHeads: 32 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const windowTokens = readWindow(config, 4096);
  const attention = plainAttention(shape.headDim, {
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
  });
  const whole = windowTokens === undefined ? attention : { ...attention, rope: undefined };
  const layer = {
    feedForward: gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") }),
    norms: {
      attentionOutput: rmsNorm("post_attention_layernorm", eps),
      feedForwardOutput: rmsNorm("post_feedforward_layernorm", eps),
    },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("exaone4", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: readWindowedLayers(config, shape.numLayers, windowTokens)
      .map((slides) => ({ ...layer, attention: slides ? { ...attention, windowTokens } : whole })),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** EXAONE 4. */
export const EXAONE4 = decoderArchitecture({ modelTypes: ["exaone4"], parseConfig });
