/**
 * Keeps track of which expert extents lie in which slots, and decides which leave. Pure: no memory is touched and nothing is read.
 *
 * All slots have one size. The matrices of a model's experts have the same number of weights, and so nearly the same bytes: what fixed slots
 * waste is a percent or two, and memory never falls apart.
 * @module
 */
import type { ExpertTable } from "../memory/plan.ts";
import type { ExpertFrequency } from "./expert_frequency.ts";

/** Experts looked up at a time to be thrown out. */
const VICTIMS = 16;

/** How much an extent is needed. */
export type Urgency = "ahead" | "needed" | "awaited";

/** The extents of all experts and where they lie. An extent is known by its number: those of expert 0, then those of expert 1, and so on. */
export class ExpertSlots {
  readonly #frequency: ExpertFrequency;
  /** [experts + 1] number of each expert's first extent. */
  readonly #firstExtent: Int32Array;
  /** [extents] */
  readonly #expertOf: Int32Array;
  /** [extents] slot, or -1. */
  readonly #slotOf: Int32Array;
  /** [extents] whether all bytes are there. */
  readonly #arrived: Uint8Array;
  /** [extents] turn in the layer being computed, or -1. */
  readonly #turn: Int32Array;
  /** [experts] whether the next layer is expected to use it. */
  readonly #expected: Uint8Array;
  /** [experts] extents that have slots. */
  readonly #residents: Uint16Array;
  /** [slots] extent, or -1. */
  readonly #extentIn: Int32Array;
  /** [slots] number of its latest release. */
  readonly #releasedAt: Float64Array;
  readonly #free: number[];
  #victims: number[] = [];
  #layer = 0;
  /** Experts of the layer being computed. */
  #current: readonly number[] = [];

  constructor(table: ExpertTable, slots: number, frequency: ExpertFrequency) {
    const { experts } = table;
    this.#frequency = frequency;
    this.#firstExtent = new Int32Array(experts.length + 1);
    experts.forEach((extents, index) => this.#firstExtent[index + 1] = this.#firstExtent[index] + extents.length);
    const extents = this.#firstExtent[experts.length];
    this.#expertOf = new Int32Array(extents);
    for (let i = 0; i < experts.length; i++) this.#expertOf.fill(i, this.#firstExtent[i], this.#firstExtent[i + 1]);
    this.#slotOf = new Int32Array(extents).fill(-1);
    this.#arrived = new Uint8Array(extents);
    this.#turn = new Int32Array(extents).fill(-1);
    this.#expected = new Uint8Array(experts.length);
    this.#residents = new Uint16Array(experts.length);
    this.#extentIn = new Int32Array(slots).fill(-1);
    this.#releasedAt = new Float64Array(slots);
    this.#free = Array.from({ length: slots }, (_, slot) => slots - 1 - slot);
  }

  /** Slots that nothing was ever read to. */
  get free(): number {
    return this.#free.length;
  }

  /** Returns the numbers of an expert's extents: the first, and the one after the last. */
  extentsOf(expert: number): [first: number, end: number] {
    return [this.#firstExtent[expert], this.#firstExtent[expert + 1]];
  }

  /** Returns the expert that an extent is of. */
  expertOf(extent: number): number {
    return this.#expertOf[extent];
  }

  /** Returns the slot of an extent, or undefined. */
  slotOf(extent: number): number | undefined {
    return this.#slotOf[extent] < 0 ? undefined : this.#slotOf[extent];
  }

  /** Whether all bytes of an extent are in its slot. */
  hasArrived(extent: number): boolean {
    return this.#arrived[extent] === 1;
  }

  /** Whether all extents of an expert are there. */
  isComplete(expert: number): boolean {
    const [first, end] = this.extentsOf(expert);
    for (let extent = first; extent < end; extent++) if (this.#arrived[extent] === 0) return false;
    return true;
  }

  /** Says that all bytes of an extent are in its slot. */
  arrive(extent: number): void {
    this.#arrived[extent] = 1;
  }

  /** Begins a layer whose experts (indexes among all) are computed in this order: what they need is kept until it is released. */
  beginLayer(layer: number, experts: readonly number[]): void {
    this.endLayer();
    this.#layer = layer;
    this.#current = experts;
    this.#victims = [];
    let turn = 0;
    for (const expert of experts) {
      this.#expected[expert] = 0;
      const [first, end] = this.extentsOf(expert);
      for (let extent = first; extent < end; extent++) this.#turn[extent] = turn++;
    }
  }

  /** Forgets what the layer being computed still needs. */
  endLayer(): void {
    for (const expert of this.#current) this.#turn.fill(-1, ...this.extentsOf(expert));
    this.#current = [];
  }

  /** Returns the turn of an extent in the layer being computed, or -1 where it is not, or no more, needed. */
  turnOf(extent: number): number {
    return this.#turn[extent];
  }

  /** Says which experts the next layer is expected to use; they are kept as long as anything else can leave. */
  expect(experts: readonly number[]): void {
    this.#expected.fill(0);
    for (const expert of experts) this.#expected[expert] = 1;
    this.#victims = [];
  }

  /** Gives up an extent after its use; its slot can be taken once release number `number` has been reached. */
  release(extent: number, number: number): void {
    this.#turn[extent] = -1;
    this.#releasedAt[this.#slotOf[extent]] = number;
  }

  /**
   * Gives a slot to an extent that has none: a free one, else that of the extent worth least. Releases up to number `reached` have been reached. What is
   * read `ahead` of its layer does not push out what this layer needs or the next is expected to; what is `needed` pushes out the expected; what is
   * `awaited` at last pushes out even those whose turn comes after its own.
   *
   * Returns the slot, or undefined while there is none; and what was pushed out although this layer needs it.
   */
  take(extent: number, urgency: Urgency, reached: number): { slot: number | undefined; pushedOut?: number } {
    let slot = this.#free.pop();
    let pushedOut: number | undefined;
    if (slot === undefined) {
      const victim = this.#victim(reached) ??
        (urgency === "ahead" ? undefined : this.#expectedVictim(reached)) ??
        (urgency === "awaited" ? (pushedOut = this.#laterVictim(extent, reached)) : undefined);
      if (victim === undefined) return { slot: undefined };
      slot = this.#remove(victim);
    }
    this.#extentIn[slot] = extent;
    this.#slotOf[extent] = slot;
    this.#arrived[extent] = 0;
    this.#residents[this.#expertOf[extent]]++;
    return { slot, pushedOut };
  }

  /** Takes the slot of an extent back, whose bytes never came. */
  drop(extent: number): void {
    this.#free.push(this.#remove(extent));
  }

  /** Returns the extents whose bytes are on their way. */
  arriving(): number[] {
    return [...this.#extentIn].filter((extent) => extent >= 0 && this.#arrived[extent] === 0);
  }

  #remove(extent: number): number {
    const slot = this.#slotOf[extent];
    this.#slotOf[extent] = -1;
    this.#arrived[extent] = 0;
    this.#extentIn[slot] = -1;
    this.#residents[this.#expertOf[extent]]--;
    return slot;
  }

  /** Whether an extent can leave at once, but for what it may be needed for. */
  #isIdle(extent: number, reached: number): boolean {
    return this.#slotOf[extent] >= 0 && this.#arrived[extent] === 1 && this.#turn[extent] < 0 &&
      this.#releasedAt[this.#slotOf[extent]] <= reached;
  }

  /** Returns the last extent of an expert that can leave: what is left of an expert is then its beginning, which is needed first. */
  #lastIdle(expert: number, reached: number): number | undefined {
    const [first, end] = this.extentsOf(expert);
    for (let extent = end - 1; extent >= first; extent--) if (this.#isIdle(extent, reached)) return extent;
    return undefined;
  }

  /** Returns the extent worth least of those that nobody is known to need. */
  #victim(reached: number): number | undefined {
    for (let search = 0; search < 2; search++) {
      while (this.#victims.length > 0) {
        const extent = this.#lastIdle(this.#victims[0], reached);
        if (extent !== undefined) return extent;
        this.#victims.shift();
      }
      if (search === 0) this.#victims = this.#findVictims(reached);
    }
    return undefined;
  }

  /** Returns the experts worth least, the least first. */
  #findVictims(reached: number): number[] {
    const victims: number[] = [];
    for (let expert = 0; expert < this.#residents.length; expert++) {
      if (this.#residents[expert] === 0 || this.#expected[expert] === 1) continue;
      let place = victims.length;
      while (place > 0 && this.#frequency.compare(expert, victims[place - 1], this.#layer) < 0) place--;
      if (place === VICTIMS || this.#lastIdle(expert, reached) === undefined) continue;
      victims.splice(place, 0, expert);
      if (victims.length > VICTIMS) victims.pop();
    }
    return victims;
  }

  #expectedVictim(reached: number): number | undefined {
    for (let expert = this.#expected.length - 1; expert >= 0; expert--) {
      if (this.#expected[expert] === 0) continue;
      const extent = this.#lastIdle(expert, reached);
      if (extent !== undefined) return extent;
    }
    return undefined;
  }

  /** Returns the extent of the present layer whose turn comes last, if that is after the turn of `extent`. */
  #laterVictim(extent: number, reached: number): number | undefined {
    let latest: number | undefined;
    this.#extentIn.forEach((other, slot) => {
      if (other < 0 || this.#arrived[other] === 0 || this.#releasedAt[slot] > reached) return;
      if (this.#turn[other] > this.#turn[latest ?? extent]) latest = other;
    });
    return latest;
  }
}
