/**
 * GPT-J and CodeGen: LayerNorm, sublayers in parallel that share it, neighbours of a head's first elements rotated in pairs, biases of the feed-forward layer and the
 * head. Follows transformers' `modeling_gptj.py` and `modeling_codegen.py`.
 * @module
 */
import { GPT_NAMES, GPT_OTHER_NAMES, gptBufferReason, readGptShape } from "./gpt2.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, layerNorm, plainAttention, plainMlp, readActivation, renamedSource } from "../decoder_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "ln_1",
  "self_attn.q_proj": "attn.q_proj",
  "self_attn.k_proj": "attn.k_proj",
  "self_attn.v_proj": "attn.v_proj",
  "self_attn.o_proj": "attn.out_proj",
  "mlp.up_proj": "mlp.fc_in",
  "mlp.down_proj": "mlp.fc_out",
};

function parseConfig(values: Record<string, unknown>, modelType: string): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config);
  const shape = readGptShape(config, 2048);
  const eps = config.positive("layer_norm_epsilon", 1e-5);
  const dim = config.integer("rotary_dim", 64);
  if (dim % 2 !== 0 || dim > shape.headDim) throw config.refuse("rotary_dim", `even and at most ${shape.headDim}`);
  const layer = {
    attention: plainAttention(shape.headDim, { rope: { index: 0, interleaved: true } }),
    feedForward: plainMlp(shape.intermediateSize, readActivation(config, "activation_function", "gelu_new")),
    norms: { attentionInput: layerNorm("input_layernorm", eps) },
    parallel: true,
    residualMultiplier: 1,
  };
  return decoderConfig(modelType, shape, {
    ropes: [{ dim, theta: 10_000, scaling: { type: "default" } }],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: layerNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    headBias: true,
  });
}

/** Parts that CodeGen's queries, values and keys lie in, each with the three below each other. */
const CODEGEN_PARTS = 4;

function codegenSource(name: string, { hiddenSize }: ModelConfig): TensorSource | undefined {
  const part = /^self_attn\.([qkv])_proj\.weight$/.exec(name)?.[1];
  if (!part) return renamedSource(name, LAYER_NAMES);
  const runRows = hiddenSize / CODEGEN_PARTS;
  return { name: "attn.qkv_proj.weight", firstRow: "qvk".indexOf(part) * runRows, runRows, rowStep: 3 * runRows };
}

/** GPT-J. */
export const GPTJ = decoderArchitecture({
  ...GPT_NAMES,
  otherNames: [GPT_OTHER_NAMES],
  modelTypes: ["gptj"],
  parseConfig: (values) => parseConfig(values, "gptj"),
  layerSource: (name) => renamedSource(name, LAYER_NAMES),
  ignoredTensorReason: gptBufferReason,
});

/** CodeGen. */
export const CODEGEN = decoderArchitecture({
  ...GPT_NAMES,
  otherNames: [GPT_OTHER_NAMES],
  modelTypes: ["codegen"],
  parseConfig: (values) => {
    const config = parseConfig(values, "codegen");
    if (config.numHeads % CODEGEN_PARTS !== 0) {
      throw new ConfigReader(values, "config.json").refuse("n_head", `a multiple of ${CODEGEN_PARTS}`);
    }
    return config;
  },
  layerSource: codegenSource,
  ignoredTensorReason: gptBufferReason,
});
