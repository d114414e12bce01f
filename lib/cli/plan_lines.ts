/**
 * Shows a plan.
 * @module
 */
import { formatBytes } from "../memory/bytes.ts";
import type { DevicePlan, Plan } from "../memory/plan.ts";
import { expertPlanRows } from "./expert_lines.ts";
import { table } from "./output.ts";

/** Returns the bytes of a plan's KV cache, wherever it is. */
export function kvCacheBytes({ kvCacheBytes, device }: Plan): number {
  // What a device has of a cache in host memory is copies.
  return kvCacheBytes > 0 ? kvCacheBytes : device?.kvCacheBytes ?? 0;
}

/** Returns the bytes of a plan's states of recurrent layers, wherever they are. */
function stateBytes({ stateBytes, device }: Plan): number {
  return stateBytes + (device?.stateBytes ?? 0);
}

/** Returns a plan's row for states of recurrent layers; none for a model that has no such layers. */
function stateRows(name: string, plan: Plan): string[][] {
  return stateBytes(plan) > 0 ? [[name, formatBytes(stateBytes(plan)), "whatever the context"]] : [];
}

/** Returns the figures of a plan that `run --json` prints. */
export function planFigures(plan: Plan): Record<string, number> {
  const { residentBytes, streamedBytesPerPass, slotBytes, pinnedBytes, deviceSlotBytes, device } = plan;
  return {
    ...{ residentBytes, streamedBytesPerPass, slotBytes, kvCacheBytes: kvCacheBytes(plan), stateBytes: stateBytes(plan) },
    ...{ pinnedBytes, deviceSlotBytes, vramBytes: device?.totalBytes ?? 0 },
  };
}

/** Returns the plan as lines of text. */
export function planLines(plan: Plan): string[] {
  const { residentBytes, pinnedBytes, streamedBytesPerPass } = plan;
  const weightBytes = residentBytes + pinnedBytes + streamedBytesPerPass;
  const weights = (name: string, bytes: number): string[] => [
    ...[name, formatBytes(bytes), `${weightBytes > 0 ? (100 * bytes / weightBytes).toFixed(1) : "0.0"}%`],
  ];
  const rows = plan.device ? deviceRows(plan, plan.device, weights) : [
    weights("weights resident", residentBytes),
    weights("weights streamed a pass", streamedBytesPerPass),
    ...expertPlanRows(plan),
    ["slots", formatBytes(plan.slotBytes), ""],
    ...hostRows(plan),
    ["all memory", formatBytes(plan.totalBytes), ""],
  ];
  return ["plan", ...table(rows, "lrl")];
}

function vectorsName({ experts }: Plan): string {
  return experts ? "norms, biases, routers" : "norms and biases";
}

function hostRows(plan: Plan): string[][] {
  return [
    ["KV cache", formatBytes(plan.kvCacheBytes), `${plan.contextTokens} tokens a sequence`],
    ...stateRows("states of recurrent layers", plan),
    ["activations and logits", formatBytes(plan.activationBytes), `${plan.passTokens} tokens a pass`],
    [vectorsName(plan), formatBytes(plan.vectorBytes), ""],
    ["runtime", formatBytes(plan.baselineBytes), ""],
  ];
}

/** The three tiers of weights, then what each memory holds. */
function deviceRows(plan: Plan, device: DevicePlan, weights: (name: string, bytes: number) => string[]): string[][] {
  const context = `${plan.contextTokens} tokens a sequence`;
  const inRam = plan.kvCacheBytes > 0;
  return [
    weights("weights in device memory", plan.residentBytes),
    weights("weights in host memory, copied a pass", plan.pinnedBytes),
    weights("weights on disk, read and copied a pass", plan.streamedBytesPerPass),
    ...expertPlanRows(plan),
    ["device: slots", formatBytes(plan.deviceSlotBytes), ""],
    [
      inRam ? "device: KV cache of the layers at work" : "device: KV cache",
      formatBytes(device.kvCacheBytes),
      inRam ? "" : context,
    ],
    ...stateRows("device: states of recurrent layers", plan),
    ["device: activations and logits", formatBytes(device.activationBytes), `${plan.passTokens} tokens a pass`],
    [`device: ${vectorsName(plan)}`, formatBytes(device.vectorBytes), ""],
    ["device: scratch", formatBytes(device.scratchBytes), ""],
    ["all device memory", formatBytes(device.totalBytes), ""],
    ["host: slots", formatBytes(plan.slotBytes), ""],
    ...(inRam ? [["host: KV cache", formatBytes(plan.kvCacheBytes), context]] : []),
    ["host: what is copied", formatBytes(plan.activationBytes + plan.vectorBytes), ""],
    ["host: runtime", formatBytes(plan.baselineBytes), ""],
    ["all host memory", formatBytes(plan.totalBytes), ""],
  ];
}
