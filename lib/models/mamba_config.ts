/**
 * What the configurations and checkpoints of families with state spaces of Mamba 2 have in common, read with transformers' names.
 * @module
 */
import { mambaWidths } from "../layers/mamba.ts";
import type { MambaConfig } from "../layers/model_config.ts";
import type { TensorSource } from "./architecture.ts";
import type { ConfigReader } from "./config_reader.ts";
import { readActivation } from "./decoder_config.ts";

/** What the operations compute (cuda/airkern.h). */
const MOST_KERNEL = 16, MOST_STATE_DIM = 256;

/** A number, or the key that has one and what it is without it. */
export type StateSpaceKeys = Record<"heads" | "headDim" | "groups" | "stateDim" | "kernel", [key: string, missing: number]>;

/**
 * Reads the sizes of a state space.
 * @throws {UnsupportedError}
 */
export function readStateSpace(
  config: ConfigReader,
  keys: StateSpaceKeys,
  { activationKey, convolutionBias, eps }: { activationKey: string; convolutionBias: boolean; eps: number },
): MambaConfig {
  const [heads, headDim, groups, stateDim, kernel] = (["heads", "headDim", "groups", "stateDim", "kernel"] as const)
    .map((size) => config.integer(...keys[size]));
  if (heads % groups !== 0) throw config.refuse(keys.groups[0], `a divisor of ${keys.heads[0]} (${heads})`);
  if (stateDim > MOST_STATE_DIM) throw config.refuse(keys.stateDim[0], `at most ${MOST_STATE_DIM}`);
  if (kernel < 2 || kernel > MOST_KERNEL) throw config.refuse(keys.kernel[0], `2 to ${MOST_KERNEL}`);
  return {
    ...{ heads, headDim, groups, stateDim, kernel, convolutionBias, eps, normGroups: groups },
    activation: readActivation(config, activationKey, "silu"),
  };
}

/** Refuses limits of the step, which no release has. @throws {UnsupportedError} */
export function refuseStepLimits(config: ConfigReader): void {
  if (!config.has("time_step_limit")) return;
  const limits = config.raw("time_step_limit");
  // JSON has no infinity: what stands for it is no number.
  if (!Array.isArray(limits) || limits.length !== 2 || limits[0] !== 0 || typeof limits[1] === "number") {
    throw config.refuse("time_step_limit", "from 0 to infinity");
  }
}

/**
 * Returns where a state space's tensor lies in a checkpoint, both names relative to the layer; undefined for other tensors.
 * @param prefix What a checkpoint has in the place of `mamba.`.
 */
export function mambaSource(name: string, mamba: MambaConfig, prefix = "mamba."): TensorSource | undefined {
  if (!name.startsWith("mamba.")) return undefined;
  const { keys, values } = mambaWidths(mamba), { kernel } = mamba;
  // One tensor makes the gate, the values, what they are written and read under, and the step.
  const projection = /^mamba\.in_proj_(\w+)\.weight$/.exec(name)?.[1];
  if (projection) {
    const firstRow = { z: 0, x: values, b: 2 * values, c: 2 * values + keys, dt: 2 * (values + keys) }[projection];
    return { name: `${prefix}in_proj.weight`, firstRow };
  }
  const convolution = /^mamba\.conv1d_([xbc])\.(weight|bias)$/.exec(name);
  if (!convolution) return { name: name.replace("mamba.", prefix) };
  const first = { x: 0, b: values, c: values + keys }[convolution[1]]!;
  return convolution[2] === "bias"
    ? { name: `${prefix}conv1d.bias`, firstRow: first }
    : { name: `${prefix}conv1d.weight`, vectorRows: 1, vectorCols: kernel, firstRow: first * kernel };
}
