/**
 * The architectures whose block is data: the tensors of a decoder as its configuration declares them, and where a family keeps each.
 * @module
 */
import { decoderBlock } from "../layers/decoder_block.ts";
import { layerPrefix } from "../layers/pass.ts";
import { deltaNetWidths } from "../layers/delta_net.ts";
import { headShape } from "../layers/head_shape.ts";
import { mambaWidths } from "../layers/mamba.ts";
import type {
  AttentionConfig,
  DeltaNetConfig,
  LatentConfig,
  LayerConfig,
  MambaConfig,
  MlpConfig,
  MoeConfig,
  NormConfig,
  ShortConvolutionConfig,
} from "../layers/model_config.ts";
import type { Architecture, ModelConfig, ModelTensors, TensorSource, TensorSpec } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";

const EMBEDDING_NAME = "model.embed_tokens.weight";
const POSITIONS_NAME = "model.embed_positions.weight";
const HEAD_NAME = "lm_head.weight";
const HEAD_BIAS_NAME = "lm_head.bias";

/** Under which names a checkpoint has a decoder's tensors. */
export interface DecoderNames {
  /** The checkpoint's prefix of a layer's tensors; the stored one without it. */
  layerPrefix?(layer: number): string;
  /** The checkpoint's names of tensors outside of layers, by the stored ones. */
  rootNames?: Readonly<Record<string, string>>;
}

/** Why nothing is exported of families that came with code of their own. */
export const REMOTE_CODE = "transformers has this family only by code that comes with the checkpoint";

/** What tells one decoder family from another beside its configuration. */
export interface DecoderFamily extends DecoderNames {
  /** Values of `model_type` it serves. */
  modelTypes: string[];
  /** As {@linkcode Architecture.serves}. */
  serves?(config: Record<string, unknown>): boolean;
  /** As {@linkcode Architecture.parseConfig}. */
  parseConfig(config: Record<string, unknown>): ModelConfig;
  /** Names that some of the family's checkpoints have instead. */
  otherNames?: readonly DecoderNames[];
  /**
   * Returns where a layer's tensor lies in the checkpoint, both names relative to the layer; undefined where it is there under its own name.
   */
  layerSource?(name: string, config: ModelConfig, layer: number): TensorSource | TensorSource[] | undefined;
  /** Returns where some of the family's checkpoints have a layer's tensor instead, or several such places, names relative to the layer. */
  otherLayerSource?(name: string, config: ModelConfig, layer: number): TensorSource | readonly TensorSource[] | undefined;
  /** As {@linkcode Architecture.refusesExport}. */
  refusesExport?: string;
  /** As {@linkcode Architecture.linearExperts}. */
  linearExperts?: boolean;
  /** As {@linkcode Architecture.ignoredTensorReason}, for what only this family has. */
  ignoredTensorReason?(name: string, config: ModelConfig): string | undefined;
}

function normTensors(norm: NormConfig | undefined, cols: number): TensorSpec[] {
  if (norm === undefined || norm.weightless) return [];
  const weight: TensorSpec = { name: `${norm.name}.weight`, rows: 1, cols, kind: "vector" };
  if (norm.offset !== 0) weight.offset = norm.offset;
  return norm.bias ? [weight, { name: `${norm.name}.bias`, rows: 1, cols, kind: "vector" }] : [weight];
}

function vectorTensor(name: string, cols: number): TensorSpec {
  return { name, rows: 1, cols, kind: "vector" };
}

function linearTensors(name: string, rows: number, cols: number, bias: boolean): TensorSpec[] {
  const weight: TensorSpec = { name: `${name}.weight`, rows, cols, kind: "linear" };
  return bias ? [{ name: `${name}.bias`, rows: 1, cols: rows, kind: "vector" }, weight] : [weight];
}

/** Returns the tensors of a gated or plain layer; `prefix` precedes their names. */
function mlpTensors(prefix: string, { kind, activation, intermediateSize, bias }: MlpConfig, hiddenSize: number): TensorSpec[] {
  if (kind === "none") return [];
  const parameters = activation === "xielu" ? ["alpha_p", "alpha_n", "beta", "eps"] : [];
  return [
    ...parameters.map((name) => vectorTensor(`${prefix}act_fn.${name}`, 1)),
    ...(kind === "gated" ? linearTensors(`${prefix}gate_proj`, intermediateSize, hiddenSize, bias) : []),
    ...linearTensors(`${prefix}up_proj`, intermediateSize, hiddenSize, bias),
    ...linearTensors(`${prefix}down_proj`, hiddenSize, intermediateSize, bias),
  ];
}

/** Returns the tensors of a layer with experts; the experts' matrices come last, those of each together. */
function moeTensors(config: MoeConfig, hiddenSize: number): TensorSpec[] {
  const { shared, beside, router: { numExperts } } = config;
  const besideNorms = beside ? [beside.outputNorm, beside.routerNorm, beside.expertInputNorm, beside.expertOutputNorm] : [];
  const expertMlp: MlpConfig = { ...config, kind: config.plain ? "plain" : "gated" };
  return [
    { name: "mlp.gate.weight", rows: numExperts, cols: hiddenSize, kind: "router" },
    ...(config.routerBias ? [vectorTensor("mlp.gate.bias", numExperts)] : []),
    ...(config.correctionBias ? [vectorTensor("mlp.gate.e_score_correction_bias", numExperts)] : []),
    ...(config.expertScales ? [vectorTensor("mlp.gate.per_expert_scale", numExperts)] : []),
    ...besideNorms.flatMap((norm) => normTensors(norm, hiddenSize)),
    ...(beside ? mlpTensors("mlp.", beside.mlp, hiddenSize) : []),
    ...(shared ? mlpTensors("mlp.shared_expert.", shared.mlp, hiddenSize) : []),
    ...(shared?.gated ? linearTensors("mlp.shared_expert_gate", 1, hiddenSize, false) : []),
    ...Array.from({ length: numExperts }, (_, expert) =>
      mlpTensors(`mlp.experts.${expert}.`, expertMlp, hiddenSize)
        .map((spec): TensorSpec => spec.kind === "linear" ? { ...spec, kind: "expert", expert } : spec)).flat(),
  ];
}

/** Returns the tensors of grouped-query attention. */
function attentionTensors(config: ModelConfig, attention: AttentionConfig): TensorSpec[] {
  const { hiddenSize, numHeads } = config, { numKvHeads, headDim, valueDim } = headShape(config, attention);
  const queryRows = numHeads * headDim, keyRows = numKvHeads * headDim, attendedCols = numHeads * valueDim;
  const { queryNorm, keyNorm, valueNorm, qkvBias, outputBias, sinks, gated, valuesAreKeys } = attention;
  return [
    ...linearTensors("self_attn.q_proj", queryRows, hiddenSize, qkvBias),
    ...linearTensors("self_attn.k_proj", keyRows, hiddenSize, qkvBias),
    ...(valuesAreKeys ? [] : linearTensors("self_attn.v_proj", numKvHeads * valueDim, hiddenSize, qkvBias)),
    ...(gated ? linearTensors("self_attn.gate_proj", attendedCols, hiddenSize, qkvBias) : []),
    ...normTensors(queryNorm, queryNorm?.scope === "head" ? headDim : queryRows),
    ...normTensors(keyNorm, keyNorm?.scope === "head" ? headDim : keyRows),
    ...normTensors(valueNorm, valueDim),
    ...(sinks ? [vectorTensor("self_attn.sinks", numHeads)] : []),
    ...linearTensors("self_attn.o_proj", hiddenSize, attendedCols, outputBias),
  ];
}

/** Returns the tensors of attention to latents. */
function latentTensors({ hiddenSize, numHeads }: ModelConfig, latent: LatentConfig): TensorSpec[] {
  const { queryRank, rank, plainDim, rotaryDim, valueDim, bias } = latent;
  const queryRows = numHeads * (plainDim + rotaryDim);
  return [
    ...(queryRank === undefined ? linearTensors("self_attn.q_proj", queryRows, hiddenSize, false) : [
      ...linearTensors("self_attn.q_a_proj", queryRank, hiddenSize, bias),
      vectorTensor("self_attn.q_a_layernorm.weight", queryRank),
      ...linearTensors("self_attn.q_b_proj", queryRows, queryRank, false),
    ]),
    ...linearTensors("self_attn.k_b_proj", numHeads * rank, plainDim, false),
    ...linearTensors("self_attn.kv_a_proj_with_mqa", rank + rotaryDim, hiddenSize, bias),
    vectorTensor("self_attn.kv_a_layernorm.weight", rank),
    ...linearTensors("self_attn.v_b_proj", numHeads * valueDim, rank, false),
    ...linearTensors("self_attn.o_proj", hiddenSize, numHeads * valueDim, bias),
  ];
}

/** Returns the tensors of a gated delta net. */
function deltaNetTensors({ hiddenSize }: ModelConfig, deltaNet: DeltaNetConfig): TensorSpec[] {
  const { valueHeads, valueDim, kernel } = deltaNet, { keys, values } = deltaNetWidths(deltaNet);
  const projection = (part: string, rows: number): TensorSpec[] => linearTensors(`linear_attn.${part}`, rows, hiddenSize, false);
  const gate = (part: string): TensorSpec[] => projection(part, valueHeads).map((spec) => ({ ...spec, delicate: true }));
  return [
    ...projection("in_proj_q", keys),
    ...projection("in_proj_k", keys),
    ...projection("in_proj_v", values),
    ...[["q", keys], ["k", keys], ["v", values]].map(([part, cols]) =>
      vectorTensor(`linear_attn.conv1d_${part}.weight`, kernel * Number(cols))
    ),
    ...projection("in_proj_z", values),
    ...gate("in_proj_b"),
    ...gate("in_proj_a"),
    vectorTensor("linear_attn.A_log", valueHeads),
    vectorTensor("linear_attn.dt_bias", valueHeads),
    vectorTensor("linear_attn.norm.weight", valueDim),
    ...linearTensors("linear_attn.out_proj", hiddenSize, values, false),
  ];
}

/** Returns the tensors of a state space. */
function mambaTensors({ hiddenSize }: ModelConfig, mamba: MambaConfig): TensorSpec[] {
  const { heads, kernel, convolutionBias } = mamba, { keys, values } = mambaWidths(mamba);
  const projection = (part: string, rows: number): TensorSpec[] =>
    linearTensors(`mamba.in_proj_${part}`, rows, hiddenSize, false);
  const convolved = [["x", values], ["b", keys], ["c", keys]] as const;
  return [
    ...convolved.flatMap(([part, rows]) => projection(part, rows)),
    ...convolved.map(([part, cols]) => vectorTensor(`mamba.conv1d_${part}.weight`, kernel * cols)),
    ...(convolutionBias ? convolved.map(([part, cols]) => vectorTensor(`mamba.conv1d_${part}.bias`, cols)) : []),
    ...projection("z", values),
    ...projection("dt", heads).map((spec) => ({ ...spec, delicate: true })),
    vectorTensor("mamba.A_log", heads),
    vectorTensor("mamba.D", heads),
    vectorTensor("mamba.dt_bias", heads),
    vectorTensor("mamba.norm.weight", values),
    ...linearTensors("mamba.out_proj", hiddenSize, values, false),
  ];
}

/** Returns the tensors of a gated short convolution. */
function shortConvolutionTensors({ hiddenSize }: ModelConfig, { width, kernel }: ShortConvolutionConfig): TensorSpec[] {
  return [
    ...["b", "c", "v"].flatMap((part) => linearTensors(`conv.in_proj_${part}`, width, hiddenSize, false)),
    vectorTensor("conv.conv.weight", kernel * width),
    ...linearTensors("conv.out_proj", hiddenSize, width, false),
  ];
}

function mixerTensors(config: ModelConfig, attention: AttentionConfig): TensorSpec[] {
  const { latent, deltaNet, mamba, shortConvolution } = attention;
  if (deltaNet) return deltaNetTensors(config, deltaNet);
  if (mamba) return mambaTensors(config, mamba);
  if (shortConvolution) return shortConvolutionTensors(config, shortConvolution);
  return latent ? latentTensors(config, latent) : attentionTensors(config, attention);
}

/** Returns a layer's tensors, named relative to it, matrices in their order of use. */
function layerTensors(config: ModelConfig, layer: number): TensorSpec[] {
  const { hiddenSize } = config;
  const { attention, feedForward, norms, outputScaled } = config.layers[layer];
  return [
    ...normTensors(norms.attentionInput, hiddenSize),
    ...mixerTensors(config, attention),
    ...normTensors(norms.attentionOutput, hiddenSize),
    ...normTensors(norms.feedForwardInput, hiddenSize),
    ...normTensors(norms.feedForwardOutput, hiddenSize),
    ...(outputScaled ? [vectorTensor("layer_scalar", 1)] : []),
    ...(feedForward.kind === "moe" ? moeTensors(feedForward, hiddenSize) : mlpTensors("mlp.", feedForward, hiddenSize)),
  ];
}

/** Returns a spec with the places where checkpoints have its tensor. */
function placed(spec: TensorSpec, name: string, places: readonly (TensorSource | TensorSource[])[]): TensorSpec {
  const [source, ...otherSources] = places;
  return { ...spec, name, source, ...(otherSources.length > 0 && { otherSources }) };
}

function tensors(family: DecoderFamily, config: ModelConfig): ModelTensors {
  const { vocabSize: rows, hiddenSize: cols } = config;
  const names: readonly DecoderNames[] = [family, ...family.otherNames ?? []];
  const placeInLayer = (spec: TensorSpec, layer: number): TensorSpec => {
    const source = family.layerSource?.(spec.name, config, layer) ?? { name: spec.name };
    const others = [family.otherLayerSource?.(spec.name, config, layer) ?? []].flat();
    const places = names.flatMap(({ layerPrefix: prefixOf = layerPrefix }) => {
      const number = config.layerNumbers?.[layer] ?? layer;
      const place = (source: TensorSource): TensorSource => ({ ...source, name: prefixOf(number) + source.name });
      return [Array.isArray(source) ? source.map(place) : place(source), ...others.map(place)];
    });
    return placed(spec, layerPrefix(layer) + spec.name, places);
  };
  const placeAtRoot = (spec: TensorSpec): TensorSpec => {
    const places = names.map(({ rootNames }) => ({ name: rootNames?.[spec.name] ?? spec.name }));
    return names.some(({ rootNames }) => rootNames?.[spec.name]) ? placed(spec, spec.name, places) : spec;
  };
  const head: TensorSpec[] = normTensors(config.finalNorm, cols);
  if (!config.tieWordEmbeddings) head.push({ name: HEAD_NAME, rows, cols, kind: "head", unitRows: config.unitHeadRows });
  if (config.headBias) head.push(vectorTensor(HEAD_BIAS_NAME, rows));
  const embedding: TensorSpec[] = [
    { name: EMBEDDING_NAME, rows: config.embeddingRows ?? rows, cols, kind: "embedding" },
    ...normTensors(config.embeddingNorm, cols),
  ];
  if (config.learnedPositions) {
    embedding.push({ name: POSITIONS_NAME, rows: config.learnedPositions.rows, cols, kind: "positions" });
  }
  return {
    embedding: embedding.map(placeAtRoot),
    layers: config.layers.map((_, layer) => layerTensors(config, layer).map((spec) => placeInLayer(spec, layer))),
    head: head.map(placeAtRoot),
    embeddingName: EMBEDDING_NAME,
    positionsName: POSITIONS_NAME,
    headName: config.tieWordEmbeddings ? EMBEDDING_NAME : HEAD_NAME,
    headBiasName: HEAD_BIAS_NAME,
    layerPrefix,
  };
}

function ignoredTensorReason(family: DecoderFamily, name: string, config: ModelConfig): string | undefined {
  if (name.endsWith(".rotary_emb.inv_freq")) return "rotary frequencies are recomputed from the config";
  const heads = [family, ...family.otherNames ?? []].map(({ rootNames }) => rootNames?.[HEAD_NAME] ?? HEAD_NAME);
  if (config.tieWordEmbeddings && heads.includes(name)) return "tied to the embedding (tie_word_embeddings)";
  if (name.startsWith("mtp.")) return "predicts tokens further ahead, which is not used";
  return family.ignoredTensorReason?.(name, config);
}

/** Returns a norm of weights that have what is added to them already. */
function wholeNorm<T extends NormConfig | undefined>(norm: T): T {
  return norm && { ...norm, offset: 0 };
}

function wholeNorms({ norms, attention, ...layer }: LayerConfig): LayerConfig {
  const { attentionInput, attentionOutput, feedForwardInput, feedForwardOutput } = norms;
  return {
    ...layer,
    attention: { ...attention, queryNorm: wholeNorm(attention.queryNorm), keyNorm: wholeNorm(attention.keyNorm) },
    norms: {
      attentionInput: wholeNorm(attentionInput),
      attentionOutput: wholeNorm(attentionOutput),
      feedForwardInput: wholeNorm(feedForwardInput),
      feedForwardOutput: wholeNorm(feedForwardOutput),
    },
  };
}

/**
 * Parses a config.json with keys that every family may have, of weights as GGUF files store them: `rope_interleaved`, where those of queries and keys are
 * turned so that rotary embeddings pair neighbours; `norm_weights_whole`, where norms have what is added to them; and `key_heads_take_turns`, where the
 * value heads of delta nets that share a key head do not lie beside each other.
 * @throws {UnsupportedError}
 */
function parseStored(family: DecoderFamily, values: Record<string, unknown>): ModelConfig {
  const { rope_interleaved: _interleaved, norm_weights_whole: _whole, key_heads_take_turns: _turns, ...others } = values;
  const reader = new ConfigReader(values, "config.json"), config = family.parseConfig(others);
  let { layers, finalNorm } = config;
  // One layer's settings are often many's, and stay that.
  const known = new Map<LayerConfig, LayerConfig>();
  const change = (of: (layer: LayerConfig) => LayerConfig) => {
    known.clear();
    layers = layers.map((layer) => known.get(layer) ?? (known.set(layer, of(layer)), known.get(layer)!));
  };
  if (reader.boolean("rope_interleaved", false)) {
    change((layer) => {
      const { rope } = layer.attention;
      return rope ? { ...layer, attention: { ...layer.attention, rope: { ...rope, interleaved: true } } } : layer;
    });
  }
  if (reader.boolean("norm_weights_whole", false)) {
    change(wholeNorms);
    finalNorm = wholeNorm(finalNorm);
  }
  if (reader.boolean("key_heads_take_turns", false)) {
    change(({ attention, ...layer }) => {
      const { deltaNet } = attention;
      return { ...layer, attention: { ...attention, ...(deltaNet && { deltaNet: { ...deltaNet, keyHeadsTakeTurns: true } }) } };
    });
  }
  return { ...config, layers, finalNorm };
}

/** Returns the architecture of a family whose blocks are described by its configuration. */
export function decoderArchitecture(family: DecoderFamily): Architecture {
  return {
    modelTypes: family.modelTypes,
    serves: family.serves,
    parseConfig: (values) => parseStored(family, values),
    tensors: (config) => tensors(family, config),
    ignoredTensorReason: (name, config) => ignoredTensorReason(family, name, config),
    refusesExport: family.refusesExport,
    linearExperts: family.linearExperts,
    block: decoderBlock,
  };
}
