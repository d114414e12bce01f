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
import type { KvDemand, Plan, PlanRequest, TapeExtent } from "./plan.ts";

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

/** The same of slots on a device: copies are enqueued ahead, so that little of it is in flight; some milliseconds of the bus. */
const USEFUL_DEVICE_SLOT_BYTES = 32 * 2 ** 20;

/** One extent is computed on while the next is read. */
const MIN_SLOT_EXTENTS = 2;

function bytesOf(tape: readonly TapeExtent[]): number {
  return tape.reduce((sum, extent) => sum + extent.paddedBytes, 0);
}

function largestOf(tape: readonly TapeExtent[]): number {
  return tape.reduce((max, extent) => Math.max(max, extent.paddedBytes), 0);
}

/**
 * Chooses which extents stay in `budgetBytes`, spread evenly by bytes: in every run of the tape the resident bytes differ from the run's
 * share by less than six of the largest extents. A larger budget never keeps fewer bytes.
 */
export function spreadResident(tape: readonly TapeExtent[], budgetBytes: number): { resident: boolean[]; residentBytes: number } {
  const totalBytes = bytesOf(tape), largest = largestOf(tape);
  if (totalBytes <= budgetBytes) return { resident: tape.map(() => true), residentBytes: totalBytes };
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

/** Returns the bytes of the keys and values of sequences of so many tokens. */
export function kvCacheBytes(demands: readonly KvDemand[], contextTokens: number, maxSequences: number): number {
  const tokenBytes = ({ bytesPerToken, mostTokens = Infinity }: KvDemand) => bytesPerToken * Math.min(contextTokens, mostTokens);
  return maxSequences * sum(demands.map(tokenBytes));
}

const sum = (values: Iterable<number>): number => [...values].reduce((total, value) => total + value, 0);

/** One memory that a plan divides. */
interface Memory {
  /** What errors call it; the machine's where there is no other. */
  name: "" | "device" | "host";
  limitBytes: number;
  /** Where the limit comes from. */
  limit: string;
  /** What it holds in any case, by name. */
  fixed: Record<string, number>;
  kv: readonly KvDemand[];
  activationBytesPerToken: number;
  logitsBytesPerRow: number;
}

/** Returns the memory that the device computes from, and the host's where that is another. */
function memoriesOf(request: PlanRequest): { computing: Memory; host?: Memory } {
  const { ramBytes, machineBytes, baselineBytes, vectorBytes, device } = request;
  const limitBytes = Math.min(ramBytes ?? Infinity, machineBytes);
  const host: Memory = {
    name: device ? "host" : "",
    limitBytes,
    limit: limitBytes === ramBytes ? "the budget is" : "the memory this machine has free is",
    fixed: {
      "the process itself": baselineBytes,
      [device ? "what is copied" : "norms and biases"]: vectorBytes,
      "states of recurrent layers": request.stateBytes,
    },
    kv: request.kv,
    activationBytesPerToken: request.activationBytesPerToken,
    logitsBytesPerRow: request.logitsBytesPerRow,
  };
  if (!device) return { computing: host };
  const { vramBytes, freeBytes } = device;
  const computing: Memory = {
    ...device,
    name: "device",
    // What is reserved of a device is reserved at once, in whole pages.
    limitBytes: Math.floor(Math.min(vramBytes ?? Infinity, freeBytes) / 4096) * 4096,
    limit: vramBytes !== undefined && vramBytes <= freeBytes ? "the budget is" : "what the device has to give is",
    fixed: {
      "norms and biases": device.vectorBytes,
      "scratch memory": device.scratchBytes,
      "states of recurrent layers": device.stateBytes,
    },
  };
  return { computing, host };
}

/**
 * Divides the budgets. What computing needs comes first (KV cache, activations, logits), then slots that keep the disk, or the bus to the
 * device, busy; all the rest keeps extents resident. Fewer tokens a pass are taken where they make all weights fit, or where else
 * nothing would fit; a shorter context only where the request allows it. With a device that has memory of its own, what its memory cannot keep
 * stays in host memory as far as that reaches, and only the rest streams from disk.
 *
 * @throws {BudgetError} where a budget cannot hold the minimum, with the needed figure.
 */
export function plan(request: PlanRequest): Plan {
  const { tape, maxSequences, passTokens: askedPassTokens } = request;
  const { computing, host } = memoriesOf(request);
  const memories = host ? [computing, host] : [computing];
  const tapeBytes = bytesOf(tape), largest = largestOf(tape);

  const minPassTokens = request.passIsWhole
    ? askedPassTokens
    : Math.min(askedPassTokens, Math.max(MIN_PASS_TOKENS, maxSequences));
  const minSlotBytes = Math.min(MIN_SLOT_EXTENTS * largest, tapeBytes);
  const kvBytes = (memory: Memory, contextTokens: number) => kvCacheBytes(memory.kv, contextTokens, maxSequences);
  // A token gives one row of logits at most.
  const activationBytes = (memory: Memory, passTokens: number) =>
    memory.activationBytesPerToken * passTokens + memory.logitsBytesPerRow * Math.min(request.logitRows, passTokens);

  const minContextTokens = request.contextIsFlexible
    ? Math.min(request.contextTokens, MIN_CONTEXT_TOKENS)
    : request.contextTokens;
  const spares = memories.map((memory) => {
    const parts: Record<string, number> = {
      ...memory.fixed,
      [`the KV cache of ${minContextTokens} tokens x ${maxSequences}`]: kvBytes(memory, minContextTokens),
      [request.passIsWhole ? `activations of ${minPassTokens} tokens a pass` : "activations and logits"]: activationBytes(
        memory,
        minPassTokens,
      ),
      "two extents of weights": minSlotBytes,
    };
    const neededBytes = sum(Object.values(parts));
    if (neededBytes > memory.limitBytes) throw refusal(memory, minContextTokens, parts, neededBytes);
    return memory.limitBytes - neededBytes;
  });
  const contextTokens = largestFitting(
    minContextTokens,
    request.contextTokens,
    (tokens) =>
      memories.every((memory, i) =>
        kvBytes(memory, tokens) - kvBytes(memory, minContextTokens) <= spares[i] * FLEXIBLE_CONTEXT_SHARE
      ),
  )!;

  const weightBudget = (memory: Memory, passTokens: number) =>
    memory.limitBytes - sum(Object.values(memory.fixed)) - kvBytes(memory, contextTokens) - activationBytes(memory, passTokens);
  const hasSlots = (memory: Memory | undefined, passTokens: number) =>
    !memory || minSlotBytes <= weightBudget(memory, passTokens);
  const allResident = largestFitting(
    minPassTokens,
    askedPassTokens,
    (tokens) => tapeBytes <= weightBudget(computing, tokens) && hasSlots(host, tokens),
  );
  const passTokens = allResident ??
    largestFitting(minPassTokens, askedPassTokens, (tokens) => memories.every((memory) => hasSlots(memory, tokens)))!;
  // What is left of a budget too small for whole passes is less than one token's activations: kept free, since a little more memory would
  // take it back for that token, and more memory shall never stream more.
  const kept = (bytes: number) => passTokens < askedPassTokens ? 0 : bytes;

  const computingBytes = weightBudget(computing, passTokens);
  let slotBytes = 0, placement = { resident: tape.map(() => true), residentBytes: tapeBytes };
  if (allResident === undefined) {
    slotBytes = Math.min(computingBytes, usefulSlotBytes(tape, host ? USEFUL_DEVICE_SLOT_BYTES : USEFUL_SLOT_BYTES));
    slotBytes -= slotBytes % 4096;
    placement = spreadResident(tape, kept(computingBytes - slotBytes));
  }
  const hostPart = host
    ? planHost(tape, placement.resident, weightBudget(host, passTokens), minSlotBytes, kept)
    : { pinned: tape.map(() => false), pinnedBytes: 0, slotBytes };
  const memory = {
    ...(host ? {} : { residentBytes: placement.residentBytes }),
    pinnedBytes: hostPart.pinnedBytes,
    slotBytes: hostPart.slotBytes,
    kvCacheBytes: kvBytes(host ?? computing, contextTokens),
    stateBytes: request.stateBytes,
    activationBytes: activationBytes(host ?? computing, passTokens),
    vectorBytes: request.vectorBytes,
    baselineBytes: request.baselineBytes,
  };
  const made: Plan = {
    ...memory,
    residentBytes: placement.residentBytes,
    resident: placement.resident,
    pinned: hostPart.pinned,
    deviceSlotBytes: host ? slotBytes : 0,
    streamedBytesPerPass: tapeBytes - placement.residentBytes - hostPart.pinnedBytes,
    contextTokens,
    passTokens,
    totalBytes: sum(Object.values(memory)),
  };
  if (!request.device) return made;
  const { vectorBytes, scratchBytes, stateBytes } = request.device;
  const device = {
    vectorBytes,
    scratchBytes,
    stateBytes,
    kvCacheBytes: kvBytes(computing, contextTokens),
    activationBytes: activationBytes(computing, passTokens),
  };
  return { ...made, device: { ...device, totalBytes: sum(Object.values(device)) + placement.residentBytes + slotBytes } };
}

/** Divides what the host's memory has for weights between slots, and extents that stay there because the device cannot keep them. */
function planHost(
  tape: readonly TapeExtent[],
  resident: readonly boolean[],
  budgetBytes: number,
  minSlotBytes: number,
  kept: (bytes: number) => number,
): { pinned: boolean[]; pinnedBytes: number; slotBytes: number } {
  const moving = [...tape.keys()].filter((position) => !resident[position]);
  const extents = moving.map((position) => tape[position]);
  // Where nothing is read from disk in a pass, slots serve loading alone.
  const fits = bytesOf(extents) <= kept(budgetBytes - minSlotBytes);
  let slotBytes = fits
    ? Math.min(budgetBytes - bytesOf(extents), usefulSlotBytes(tape))
    : Math.min(budgetBytes, Math.max(minSlotBytes, usefulSlotBytes(extents)));
  slotBytes -= slotBytes % 4096;
  const choice = spreadResident(extents, fits ? bytesOf(extents) : kept(budgetBytes - slotBytes));
  const pinned = tape.map(() => false);
  choice.resident.forEach((stays, i) => pinned[moving[i]] = stays);
  return { pinned, pinnedBytes: choice.residentBytes, slotBytes };
}

/** Returns the slots above which memory serves better as residency; of a small model no more than an eighth. */
export function usefulSlotBytes(tape: readonly TapeExtent[], usefulBytes = USEFUL_SLOT_BYTES): number {
  const tapeBytes = bytesOf(tape), largest = largestOf(tape);
  const useful = Math.max(USEFUL_SLOT_EXTENTS * largest, usefulBytes);
  const bytes = Math.max(Math.min(MIN_SLOT_EXTENTS * largest, tapeBytes), Math.min(useful, tapeBytes / 8));
  return bytes - bytes % 4096;
}

function refusal(memory: Memory, contextTokens: number, parts: Record<string, number>, neededBytes: number): BudgetError {
  const { name, limit, limitBytes } = memory;
  const [largest, bytes] = Object.entries(parts).reduce((a, b) => b[1] > a[1] ? b : a);
  // Rounded apart where both print alike, so that the message never says "need 1.00 GiB, the budget is 1.00 GiB".
  const alike = formatBytes(neededBytes) === formatBytes(limitBytes);
  const figure = (value: number) => alike ? `${value} bytes` : formatBytes(value);
  return new BudgetError(
    `Cannot plan ${contextTokens} tokens of context: need at least ${figure(neededBytes)}${name && ` of ${name} memory`}, ` +
      `${limit} ${figure(limitBytes)}; most is for ${largest}, ${formatBytes(bytes)}`,
  );
}

/** What a pass is bounded by. */
export interface Speeds {
  diskBytesPerSecond: number;
  /** From host memory to the device; undefined where the device computes from host memory. */
  busBytesPerSecond?: number;
  /** Reads of the memory that the device computes from. */
  memoryBytesPerSecond: number;
  /** Multiplications and additions; undefined where they are no bound. */
  flopsPerSecond?: number;
}

/**
 * Returns the seconds a pass takes, which is the seconds a token of one sequence: the slowest of reading what streams from disk, of bringing to the
 * device what does not stay there, of moving all weights through the processor and of computing, since all of them overlap. Of
 * routed experts a token uses a few; those that the plan does not assume where the device computes from are copied from host memory or read.
 *
 * @param flopsPerToken multiplications and additions of a token.
 */
export function predictSecondsPerToken(
  plan: Pick<Plan, "residentBytes" | "pinnedBytes" | "streamedBytesPerPass" | "kvCacheBytes" | "experts">,
  speeds: Speeds,
  flopsPerToken = 0,
): number {
  const { residentBytes, pinnedBytes, streamedBytesPerPass, kvCacheBytes } = plan;
  const { diskBytesPerSecond, busBytesPerSecond = Infinity, memoryBytesPerSecond, flopsPerSecond = Infinity } = speeds;
  const { activeBytesPerToken = 0, assumedHitRate = 0, assumedCopyRate = 0 } = plan.experts ?? {};
  const readBytes = streamedBytesPerPass + activeBytesPerToken * (1 - assumedHitRate - assumedCopyRate);
  const copiedBytes = pinnedBytes + activeBytesPerToken * assumedCopyRate;
  return Math.max(
    readBytes / diskBytesPerSecond,
    // A KV cache in host memory passes over the bus too, at most all of it.
    (copiedBytes + readBytes + kvCacheBytes) / busBytesPerSecond,
    (residentBytes + pinnedBytes + streamedBytesPerPass + activeBytesPerToken) / memoryBytesPerSecond,
    flopsPerToken / flopsPerSecond,
  );
}
