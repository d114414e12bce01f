/**
 * Lowers what a plan keeps in memory to what a caller wants kept: to leave memory to others, and to measure or test streaming.
 * @module
 */
import type { Plan, TapeExtent } from "./plan.ts";
import { spreadResident, usefulSlotBytes } from "./planner.ts";

/** Returns the plan with at most `residentBytes` of weights kept, and the rest streamed through slots that take no more than was given up. */
export function limitResident(plan: Plan, tape: readonly TapeExtent[], residentBytes: number): Plan {
  if (plan.residentBytes <= residentBytes) return plan;
  const tapeBytes = tape.reduce((sum, extent) => sum + extent.paddedBytes, 0);
  const usefulBytes = usefulSlotBytes(tape);
  const kept = spreadResident(tape, Math.min(residentBytes, plan.residentBytes - (plan.slotBytes > 0 ? 0 : usefulBytes)));
  const slotBytes = plan.slotBytes > 0 ? plan.slotBytes : usefulBytes;
  return {
    ...plan,
    ...kept,
    slotBytes,
    streamedBytesPerPass: tapeBytes - kept.residentBytes,
    totalBytes: plan.totalBytes - plan.residentBytes - plan.slotBytes + kept.residentBytes + slotBytes,
  };
}
