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
  const limitBytes = Math.min(request.ramBytes ?? Infinity, request.machineBytes);
  const usefulSlots = Math.min(mostSlots, Math.max(USEFUL_SLOTS, Math.ceil(USEFUL_BYTES / slotBytes)));
  const withSlots = (slots: number): Plan => {
    const reservedBytes = slots * slotBytes;
    const planned = plan({ ...request, vectorBytes: request.vectorBytes + reservedBytes });
    // Left over where all other weights stay in memory.
    const spareSlots = planned.streamedBytesPerPass > 0 ? 0 : Math.floor((limitBytes - planned.totalBytes) / slotBytes);
    const cacheSlots = Math.min(mostSlots, slots + Math.max(0, spareSlots));
    const experts: ExpertPlan = {
      slots: cacheSlots,
      cacheBytes: cacheSlots * slotBytes,
      totalBytes,
      activeBytesPerToken,
      assumedHitRate: cacheSlots / extents,
    };
    return {
      ...planned,
      vectorBytes: request.vectorBytes,
      experts,
      totalBytes: planned.totalBytes - reservedBytes + experts.cacheBytes,
    };
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

/** Returns the bytes that a token is expected to read. */
function readBytesPerToken({ streamedBytesPerPass, experts }: Plan): number {
  return streamedBytesPerPass + experts!.activeBytesPerToken * (1 - experts!.assumedHitRate);
}
