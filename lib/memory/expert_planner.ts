/**
 * Divides memory between the weights that every token uses and the routed experts. Pure, as the planner is.
 *
 * What every token uses comes first: a byte of it in memory saves a byte of reading a token, a byte of an expert only as often as that is used. What is
 * left then holds the experts used most.
 * @module
 */
import { BudgetError } from "../errors.ts";
import type { ExpertPlan, ExpertTable, Plan, PlanRequest } from "./plan.ts";
import { plan } from "./planner.ts";

/** Experts' memory that keeps a disk busy while others are computed, as for other streamed weights. */
const USEFUL_BYTES = 64 * 2 ** 20;
const USEFUL_SLOTS = 4;

/** One extent is computed on while the next is read. */
const MIN_SLOTS = 2;

/** Returns the sizes that planning needs of a model's experts. */
function sizesOf({ experts, numLayers, numExperts, topK }: ExpertTable) {
  const extents = experts.flat();
  const totalBytes = extents.reduce((sum, { paddedBytes }) => sum + paddedBytes, 0);
  return {
    extents: extents.length,
    slotBytes: extents.reduce((most, { paddedBytes }) => Math.max(most, paddedBytes), 0),
    totalBytes,
    // Whatever experts a token is routed to, their number is the same.
    activeBytesPerToken: Math.round(totalBytes / (numLayers * numExperts) * numLayers * topK),
  };
}

/**
 * Plans a model with routed experts.
 *
 * With a device that has memory of its own, host memory that nothing else needs keeps experts that the device cannot, which then cross the bus and are
 * not read again.
 *
 * The hit rate that predictions assume is the share of the experts that fits into memory: what evenly spread routing gives, the least favourable there
 * is. Real routing is skewed and hits more often.
 *
 * @param mostCacheBytes Most memory that experts may take, as long as it is enough to go on.
 * @throws {BudgetError} where the budget cannot hold the minimum.
 */
export function planWithExperts(request: PlanRequest, table: ExpertTable, mostCacheBytes: number = Infinity): Plan {
  const { extents, slotBytes, totalBytes, activeBytesPerToken } = sizesOf(table);
  const leastSlots = Math.min(extents, MIN_SLOTS);
  const mostSlots = Math.max(leastSlots, Math.min(extents, Math.floor(mostCacheBytes / slotBytes)));
  const usefulSlots = Math.min(mostSlots, Math.max(USEFUL_SLOTS, Math.ceil(USEFUL_BYTES / slotBytes)));
  const withSlots = (slots: number): Plan => {
    const planned = plan(reserve(request, slots, slotBytes));
    // Left over where all other weights stay in the memory that the device computes from.
    const spareSlots = planned.streamedBytesPerPass + planned.pinnedBytes > 0 ? 0 : spare(request, planned, slotBytes);
    const cacheSlots = Math.min(mostSlots, slots + Math.max(0, spareSlots));
    const hostSlots = spareHostSlots(request, planned, slotBytes, Math.min(mostSlots, extents - cacheSlots));
    const experts: ExpertPlan = {
      slots: cacheSlots,
      cacheBytes: cacheSlots * slotBytes,
      stagingBytes: stagingBytes(request, slots, slotBytes),
      hostSlots,
      hostBytes: hostSlots * slotBytes,
      totalBytes,
      activeBytesPerToken,
      assumedHitRate: cacheSlots / extents,
      assumedCopyRate: hostSlots / extents,
    };
    return addExperts(request, planned, slots * slotBytes, experts);
  };
  const least = withSlots(leastSlots);
  try {
    const useful = withSlots(usefulSlots);
    return readBytesPerToken(useful) < readBytesPerToken(least) ? useful : least;
  } catch (error) {
    if (!(error instanceof BudgetError)) throw error;
    return least;
  }
}

/** Slots in host memory for extents on their way to a device with memory of its own: some are copied while others are read. */
export const EXPERT_STAGING_SLOTS = 8;

function stagingBytes({ device }: PlanRequest, slots: number, slotBytes: number): number {
  return device ? Math.min(slots, EXPERT_STAGING_SLOTS) * slotBytes : 0;
}

/** Returns the request with memory for so many slots set aside, where the device computes from. */
function reserve(request: PlanRequest, slots: number, slotBytes: number): PlanRequest {
  const { device, vectorBytes } = request, bytes = slots * slotBytes;
  if (!device) return { ...request, vectorBytes: vectorBytes + bytes };
  return {
    ...request,
    vectorBytes: vectorBytes + stagingBytes(request, slots, slotBytes),
    device: { ...device, vectorBytes: device.vectorBytes + bytes },
  };
}

/** Returns the slots that a plan leaves memory for. */
function spare({ ramBytes, machineBytes, device }: PlanRequest, planned: Plan, slotBytes: number): number {
  const spareBytes = device
    ? Math.min(device.vramBytes ?? Infinity, device.freeBytes) - planned.device!.totalBytes
    : Math.min(ramBytes ?? Infinity, machineBytes) - planned.totalBytes;
  return Math.floor(spareBytes / slotBytes);
}

/** Returns the slots, at most `most`, that host memory has for experts that a device with memory of its own cannot keep. */
function spareHostSlots({ ramBytes, machineBytes, device }: PlanRequest, planned: Plan, slotBytes: number, most: number): number {
  const spareBytes = device ? Math.min(ramBytes ?? Infinity, machineBytes) - planned.totalBytes : 0;
  return Math.max(0, Math.min(most, Math.floor(spareBytes / slotBytes)));
}

/** Returns the plan with the experts' memory for what it is: no vectors. */
function addExperts({ vectorBytes, device }: PlanRequest, planned: Plan, reservedBytes: number, experts: ExpertPlan): Plan {
  const addedBytes = experts.cacheBytes - reservedBytes;
  if (!device) return { ...planned, vectorBytes, experts, totalBytes: planned.totalBytes + addedBytes };
  return {
    ...planned,
    vectorBytes,
    experts,
    totalBytes: planned.totalBytes + experts.hostBytes,
    device: {
      ...planned.device!,
      vectorBytes: device.vectorBytes,
      totalBytes: planned.device!.totalBytes + addedBytes,
    },
  };
}

/** Returns the bytes that a token is expected to read. */
function readBytesPerToken({ streamedBytesPerPass, experts }: Plan): number {
  return streamedBytesPerPass + experts!.activeBytesPerToken * (1 - experts!.assumedHitRate - experts!.assumedCopyRate);
}
