/**
 * Decides what stays in memory and what streams. Pure: sizes and budgets in, a placement out.
 *
 * A dense model reads its weights in the same order every pass, a cyclic scan, for which keeping the most recently used
 * (as a page cache does) never hits. So a fixed set stays and the rest streams, and the set is spread evenly over the tape, so
 * that the disk has work all through a pass.
 * @module
 */
import { BudgetError } from "../errors.ts";
import { formatBytes } from "./bytes.ts";
import type { Plan, PlanRequest, TapeExtent } from "./plan.ts";

/** Fewest tokens a pass is lowered to before a budget is refused: below that a prompt would take a pass of the disk a few words. */
export const MIN_PASS_TOKENS = 32;

/** Fewest tokens of context that a flexible request is lowered to. */
export const MIN_CONTEXT_TOKENS = 256;

/** A context that nobody asked for may take this share of what the minimum leaves over. */
const FLEXIBLE_CONTEXT_SHARE = 1 / 4;

/**
 * Slots beyond which a disk does not get faster: some 20 ms of reading, in which the event loop or the end of a pass may keep it from starting
 * new reads. What is more serves better as residency.
 */
const USEFUL_SLOT_BYTES = 64 * 2 ** 20;
const USEFUL_SLOT_EXTENTS = 4;

/** One extent is computed on while the next is read. */
const MIN_SLOT_EXTENTS = 2;

/**
 * Chooses which extents stay in `budgetBytes`, spread evenly by bytes: in every run of the tape the resident bytes differ from the run's
 * share by less than six of the largest extents. A larger budget never keeps fewer bytes.
 */
export function spreadResident(tape: readonly TapeExtent[], budgetBytes: number): { resident: boolean[]; residentBytes: number } {
  const totalBytes = tape.reduce((sum, extent) => sum + extent.paddedBytes, 0);
  if (totalBytes <= budgetBytes) return { resident: tape.map(() => true), residentBytes: totalBytes };
  const largest = tape.reduce((max, extent) => Math.max(max, extent.paddedBytes), 0);
  const steps = Math.floor(budgetBytes / largest);
  // Diffusion keeps between its target less one extent and its target, so targets a whole extent apart are monotone; budgets between
  // them are topped up. A step may top up to more than the next step's diffusion keeps, so the best of the last three is taken:
  // all earlier ones keep less than the last.
  let best = { resident: tape.map(() => false), residentBytes: 0 };
  for (let step = Math.max(0, steps - 2); step <= steps; step++) {
    const choice = diffuse(tape, step * largest, totalBytes);
    topUp(tape, choice, Math.min(budgetBytes, choice.residentBytes + 2 * largest));
    if (choice.residentBytes >= best.residentBytes) best = choice;
  }
  return best;
}

/** Error diffusion over bytes: keeps an extent whenever the share owed so far covers it. Keeps at most `targetBytes`. */
function diffuse(
  tape: readonly TapeExtent[],
  targetBytes: number,
  totalBytes: number,
): { resident: boolean[]; residentBytes: number } {
  let passedBytes = 0, residentBytes = 0;
  const resident = tape.map(({ paddedBytes }) => {
    passedBytes += paddedBytes;
    // Compared as products of integers' quotient only once, so that no rounding error builds up along the tape.
    const keep = residentBytes + paddedBytes <= targetBytes * (passedBytes / totalBytes);
    if (keep) residentBytes += paddedBytes;
    return keep;
  });
  return { resident, residentBytes };
}

/** Keeps further extents, the smallest first, while they fit into `budgetBytes`. */
function topUp(tape: readonly TapeExtent[], choice: { resident: boolean[]; residentBytes: number }, budgetBytes: number): void {
  const rest = [...tape.keys()].filter((i) => !choice.resident[i]).sort((a, b) =>
    tape[a].paddedBytes - tape[b].paddedBytes || a - b
  );
  for (const i of rest) {
    if (choice.residentBytes + tape[i].paddedBytes > budgetBytes) break;
    choice.resident[i] = true;
    choice.residentBytes += tape[i].paddedBytes;
  }
}

/** Returns the largest integer in [low, high] for which `fits` holds, which it does up to some value; undefined where not even `low` fits. */
function largestFitting(low: number, high: number, fits: (value: number) => boolean): number | undefined {
  if (!fits(low)) return undefined;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * Divides the budget. What computing needs comes first (KV cache, activations, logits), then slots that keep the disk busy; all the rest
 * keeps extents resident. Fewer tokens a pass are taken where they make all weights fit, or where else nothing would fit; a
 * shorter context only where the request allows it.
 *
 * @throws {BudgetError} where the budget cannot hold the minimum, with the needed figure.
 */
export function plan(request: PlanRequest): Plan {
  const { tape, baselineBytes, vectorBytes, passTokens: askedPassTokens } = request;
  const limitBytes = Math.min(request.ramBytes ?? Infinity, request.machineBytes);
  const tapeBytes = tape.reduce((sum, extent) => sum + extent.paddedBytes, 0);
  const largest = tape.reduce((max, extent) => Math.max(max, extent.paddedBytes), 0);

  const minPassTokens = Math.min(askedPassTokens, Math.max(MIN_PASS_TOKENS, request.maxSequences));
  const minSlotBytes = Math.min(MIN_SLOT_EXTENTS * largest, tapeBytes);
  const kvBytes = (contextTokens: number) => request.kvBytesPerToken * contextTokens * request.maxSequences;
  // A token gives one row of logits at most.
  const activationBytes = (passTokens: number) =>
    request.activationBytesPerToken * passTokens + request.logitsBytesPerRow * Math.min(request.logitRows, passTokens);
  const minimumBytes = (contextTokens: number) =>
    baselineBytes + vectorBytes + kvBytes(contextTokens) + activationBytes(minPassTokens) + minSlotBytes;

  const minContextTokens = request.contextIsFlexible
    ? Math.min(request.contextTokens, MIN_CONTEXT_TOKENS)
    : request.contextTokens;
  const spareBytes = limitBytes - minimumBytes(minContextTokens);
  if (spareBytes < 0) throw refusal(request, limitBytes, minContextTokens, kvBytes, activationBytes(minPassTokens), minSlotBytes);
  const contextTokens = largestFitting(
    minContextTokens,
    request.contextTokens,
    (tokens) => kvBytes(tokens) - kvBytes(minContextTokens) <= spareBytes * FLEXIBLE_CONTEXT_SHARE,
  )!;

  const weightBudget = (passTokens: number) =>
    limitBytes - baselineBytes - vectorBytes - kvBytes(contextTokens) - activationBytes(passTokens);
  const allResident = largestFitting(minPassTokens, askedPassTokens, (tokens) => tapeBytes <= weightBudget(tokens));
  const passTokens = allResident ??
    largestFitting(minPassTokens, askedPassTokens, (tokens) => minSlotBytes <= weightBudget(tokens))!;
  const weightBytes = weightBudget(passTokens);
  let slotBytes = 0, placement = { resident: tape.map(() => true), residentBytes: tapeBytes };
  if (allResident === undefined) {
    slotBytes = Math.min(weightBytes, usefulSlotBytes(tapeBytes, largest, minSlotBytes));
    slotBytes -= slotBytes % 4096;
    // What is left of a budget too small for whole passes is less than one token's activations: kept free, since a little more memory would
    // take it back for that token, and more memory shall never stream more.
    placement = spreadResident(tape, passTokens < askedPassTokens ? 0 : weightBytes - slotBytes);
  }
  const memory = {
    residentBytes: placement.residentBytes,
    slotBytes,
    kvCacheBytes: kvBytes(contextTokens),
    activationBytes: activationBytes(passTokens),
    vectorBytes,
    baselineBytes,
  };
  return {
    ...memory,
    resident: placement.resident,
    pinned: tape.map(() => false),
    pinnedBytes: 0,
    deviceSlotBytes: 0,
    streamedBytesPerPass: tapeBytes - placement.residentBytes,
    contextTokens,
    passTokens,
    totalBytes: Object.values(memory).reduce((sum, bytes) => sum + bytes, 0),
  };
}

/** Returns the slots above which memory serves better as residency; of a small model no more than an eighth. */
function usefulSlotBytes(tapeBytes: number, largest: number, minSlotBytes: number): number {
  const useful = Math.max(USEFUL_SLOT_EXTENTS * largest, USEFUL_SLOT_BYTES);
  return Math.max(minSlotBytes, Math.min(useful, tapeBytes / 8));
}

function refusal(
  request: PlanRequest,
  limitBytes: number,
  contextTokens: number,
  kvBytes: (contextTokens: number) => number,
  activationBytes: number,
  slotBytes: number,
): BudgetError {
  const parts: [name: string, bytes: number][] = [
    ["the process itself", request.baselineBytes],
    ["norms and biases", request.vectorBytes],
    [`the KV cache of ${contextTokens} tokens x ${request.maxSequences}`, kvBytes(contextTokens)],
    ["activations and logits", activationBytes],
    ["two extents of weights", slotBytes],
  ];
  const neededBytes = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
  const [name, bytes] = parts.reduce((a, b) => b[1] > a[1] ? b : a);
  const limit = limitBytes === request.ramBytes ? "the budget is" : "the memory this machine has free is";
  // Rounded apart where both print alike, so that the message never says "need 1.00 GiB, the budget is 1.00 GiB".
  const alike = formatBytes(neededBytes) === formatBytes(limitBytes);
  const figure = (value: number) => alike ? `${value} bytes` : formatBytes(value);
  return new BudgetError(
    `Cannot plan ${contextTokens} tokens of context: need at least ${figure(neededBytes)}, ${limit} ${figure(limitBytes)}; ` +
      `most is for ${name}, ${formatBytes(bytes)}`,
  );
}

/**
 * Returns the seconds a pass takes, which is the seconds a token of one sequence: the slower of reading what streams and of moving all
 * weights that a token uses through the processor; computing overlaps with both. Of routed experts a token uses a few, and those are read that the plan's
 * assumed hit rate does not find in memory.
 */
export function predictSecondsPerToken(
  plan: Pick<Plan, "residentBytes" | "streamedBytesPerPass" | "experts">,
  speed: { diskBytesPerSecond: number; memoryBytesPerSecond: number },
): number {
  const { activeBytesPerToken = 0, assumedHitRate = 0 } = plan.experts ?? {};
  return Math.max(
    (plan.streamedBytesPerPass + activeBytesPerToken * (1 - assumedHitRate)) / speed.diskBytesPerSecond,
    (plan.residentBytes + plan.streamedBytesPerPass + activeBytesPerToken) / speed.memoryBytesPerSecond,
  );
}
