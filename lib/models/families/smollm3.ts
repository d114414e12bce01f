/**
 * SmolLM 3: Llama in which every fourth layer has no rotary embedding. Follows transformers' `modeling_smollm3.py`.
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
  readSlidingLayers,
  readWindow,
  rmsNorm,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Returns which layers rotate: `no_rope_layers` holds 1 where one does. */
function readRotatedLayers(config: ConfigReader, numLayers: number): boolean[] {
  if (!config.has("no_rope_layers")) {
    const interval = config.integer("no_rope_layer_interval", 4);
    return Array.from({ length: numLayers }, (_, layer) => (layer + 1) % interval !== 0);
  }
  const flags = config.raw("no_rope_layers");
  if (!Array.isArray(flags) || flags.length < numLayers || flags.some((flag) => flag !== 0 && flag !== 1)) {
    throw config.refuse("no_rope_layers", `a list of 0 and 1 for ${numLayers} layers`);
  }
  return flags.slice(0, numLayers).map((flag) => flag === 1);
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  const windowKeys = ["sliding_window", "use_sliding_window", "layer_types"];
  refuseUnimplemented(config, [...windowKeys, "no_rope_layers", "attention_bias", "mlp_bias"]);
  const shape = readShape(config, { contextTokens: 32_768, numKvHeads: 4 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const bias = config.boolean("attention_bias", false);
  const feedForward = gatedMlp(shape.intermediateSize, {
    activation: readActivation(config, "hidden_act", "silu"),
    bias: config.boolean("mlp_bias", false),
  });
  const windowTokens = readWindow(config);
  const windowed = config.boolean("use_sliding_window", false) && windowTokens !== undefined;
  const rotated = readRotatedLayers(config, shape.numLayers);
  const sliding = readSlidingLayers(config, shape.numLayers, (layer) => windowed && !rotated[layer]);
  if (sliding.includes(true) && windowTokens === undefined) {
    throw config.refuse("sliding_window", "set where layer_types has windows");
  }
  const layers = rotated.map((rotates, layer) =>
    preNormLayer(
      plainAttention(shape.headDim, {
        qkvBias: bias,
        outputBias: bias,
        rope: rotates ? { index: 0, interleaved: false } : undefined,
        windowTokens: sliding[layer] ? windowTokens : undefined,
      }),
      feedForward,
      eps,
    )
  );
  return decoderConfig("smollm3", shape, {
    ropes: [parseRope(config, { ...shape, theta: 2_000_000 })],
    layers,
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

/** SmolLM 3. */
export const SMOLLM3 = decoderArchitecture({ modelTypes: ["smollm3"], parseConfig });
