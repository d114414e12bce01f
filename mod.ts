/**
 * Runs language models that are far larger than the machine's memory: weights are quantized once to 4 bits, and each pass over the model
 * streams from disk what does not fit.
 *
 * ```ts
 * import { AutoModel } from "@airkern/airkern";
 *
 * await using model = await AutoModel.fromPretrained("path/to/model", { ram: "8GiB", compression: "q4o" });
 * const inputs = model.tokenizer(["What is the capital of United States?"]);
 * const out = await model.generate(inputs.inputIds, { maxNewTokens: 10 });
 * console.log(model.tokenizer.decode(out.sequences[0]));
 * for await (const piece of model.stream("In the beginning", { maxNewTokens: 50 })) {
 *   Deno.stdout.writeSync(new TextEncoder().encode(piece));
 * }
 * ```
 *
 * Run as the main module, it is the command line: `deno run -A mod.ts --help`.
 * @module
 */
export { AutoModel, type ModelOptions, type ModelProgress, type ShardOptions } from "./lib/auto_model.ts";
export { type GenerateOptions, type GenerateOutput, Model } from "./lib/generate/model.ts";
export type { Generation, GenerationResult, GenerationStatistics, GenerationStep } from "./lib/generate/generation.ts";
export type { SamplingOptions } from "./lib/generate/sampler.ts";
export type { FinishReason } from "./lib/generate/stopping.ts";
export type { DecodeOptions, EncodeOptions, Tokenizer } from "./lib/tokenizer/tokenizer.ts";
export type { ChatPrompt } from "./lib/tokenizer/chat_encoder.ts";
export type { ChatMessage, ChatTemplateOptions, ContentPart, ToolCall } from "./lib/tokenizer/chat_template.ts";
export type { HubOptions } from "./lib/hub/settings.ts";
export type { WeightSupply } from "./lib/checkpoint/weight_supply.ts";
export { type Dtype, DTYPE_BITS, type SafetensorsHeader, type SafetensorsTensor } from "./lib/checkpoint/safetensors.ts";
export type { DetokenizerOptions } from "./lib/tokenizer/detokenizer.ts";
export { Detokenizer } from "./lib/tokenizer/detokenizer.ts";
export { quantizeCheckpoint, type QuantizeOptions, type QuantizeProgress } from "./lib/shard/quantizer.ts";
export type { KindFigures, QuantizeFigures, QuantizeReport } from "./lib/shard/report.ts";
export { type Damage, type VerifyOptions, type VerifyProgress, type VerifyReport, verifyShards } from "./lib/shard/verify.ts";
export type { Compression, PlainFormatName, WeightFormatName } from "./lib/shard/manifest.ts";
export type { PackedFormatName } from "./lib/shard/packed_formats.ts";
export type {
  Activation,
  AttentionConfig,
  BlankFilling,
  DeltaNetConfig,
  DenseBesideExperts,
  HeadNormConfig,
  LatentConfig,
  LayerConfig,
  LearnedPositions,
  MambaConfig,
  MlpActivation,
  MlpConfig,
  ModelConfig,
  MoeConfig,
  NormConfig,
  RopeConfig,
  RopeScaling,
  ShortConvolutionConfig,
} from "./lib/layers/model_config.ts";
export type { RouterConfig } from "./lib/layers/router.ts";
export type { DevicePlan, ExpertPlan, Plan } from "./lib/memory/plan.ts";
export type { DeviceDescription } from "./lib/ffi/context.ts";
export type { DeviceChoice } from "./lib/ffi/device.ts";
export type { LibraryKind } from "./lib/ffi/library_lookup.ts";
export type { EngineStatistics, ExpertTotals, PassTotals } from "./lib/engine/statistics.ts";
export {
  AirkernError,
  BudgetError,
  CancelledError,
  FormatError,
  HubError,
  type HubFault,
  NativeError,
  UnsupportedError,
  UsageError,
} from "./lib/errors.ts";

if (import.meta.main) {
  const { main } = await import("./lib/cli/main.ts");
  await main(Deno.args);
}
