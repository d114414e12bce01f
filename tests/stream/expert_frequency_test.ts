import assert from "node:assert/strict";
import { ExpertFrequency } from "../../lib/stream/expert_frequency.ts";
import { ExpertSlots } from "../../lib/stream/expert_slots.ts";
import { random } from "../random.ts";

const LAYERS = 12, EXPERTS = 32, TOP_K = 4;

/** Draws experts of a layer, some far likelier than others: their ranks follow Zipf's law. */
class SkewedRouting {
  readonly #next: () => number;
  readonly #cumulative: number[] = [];
  /** [layers][ranks] expert */
  #order: number[][] = [];

  constructor(seed: number, exponent: number) {
    this.#next = random(seed);
    let sum = 0;
    for (let rank = 0; rank < EXPERTS; rank++) this.#cumulative.push(sum += (rank + 1) ** -exponent);
    this.shuffle();
  }

  /** Changes which experts are the likely ones, as another topic does. */
  shuffle(): void {
    this.#order = Array.from({ length: LAYERS }, () => {
      const order = Array.from({ length: EXPERTS }, (_, i) => i);
      for (let i = EXPERTS - 1; i > 0; i--) {
        const j = Math.floor(this.#next() * (i + 1));
        [order[i], order[j]] = [order[j], order[i]];
      }
      return order;
    });
  }

  token(layer: number): number[] {
    const chosen = new Set<number>();
    while (chosen.size < TOP_K) {
      const draw = this.#next() * this.#cumulative.at(-1)!;
      chosen.add(this.#order[layer][this.#cumulative.findIndex((end) => end >= draw)]);
    }
    return [...chosen];
  }
}

/** Returns the share of experts found in memory over `tokens` tokens, by frequency. */
function hitRateByFrequency(routing: SkewedRouting, slots: number, tokens: number): number {
  const frequency = new ExpertFrequency(LAYERS, EXPERTS);
  const extent = { tensor: 0, extent: 0, paddedBytes: 4096 };
  const experts = Array.from({ length: LAYERS * EXPERTS }, () => [extent]);
  const cache = new ExpertSlots({ numLayers: LAYERS, numExperts: EXPERTS, topK: TOP_K, experts }, slots, frequency);
  let hits = 0;
  for (let token = 0; token < tokens; token++) {
    for (let layer = 0; layer < LAYERS; layer++) {
      const used = routing.token(layer);
      frequency.count(layer, 1, used.map((expert) => [expert, 1] as const));
      const indexes = used.map((expert) => layer * EXPERTS + expert);
      cache.beginLayer(layer, indexes);
      for (const index of indexes) {
        if (cache.isComplete(index)) hits++;
        else {
          assert.ok(cache.take(index, "needed", 0).slot !== undefined);
          cache.arrive(index);
        }
        cache.release(index, 0);
      }
    }
  }
  return hits / (tokens * LAYERS * TOP_K);
}

/** Returns the same of a cache that keeps what was used last. */
function hitRateByRecency(routing: SkewedRouting, slots: number, tokens: number): number {
  const cache = new Set<number>();
  let hits = 0;
  for (let token = 0; token < tokens; token++) {
    for (let layer = 0; layer < LAYERS; layer++) {
      for (const expert of routing.token(layer)) {
        const index = layer * EXPERTS + expert;
        if (cache.delete(index)) hits++;
        cache.add(index);
        if (cache.size > slots) cache.delete(cache.values().next().value!);
      }
    }
  }
  return hits / (tokens * LAYERS * TOP_K);
}

for (const share of [0.1, 0.25, 0.5]) {
  Deno.test(`keeping frequent experts beats keeping recent ones on skewed routing with ${share} of the experts in memory`, () => {
    const slots = Math.floor(share * LAYERS * EXPERTS);
    const frequency = hitRateByFrequency(new SkewedRouting(1, 1.1), slots, 400);
    const recency = hitRateByRecency(new SkewedRouting(1, 1.1), slots, 400);
    assert.ok(frequency > recency + 0.04, `${frequency} by frequency, ${recency} by recency`);
  });
}

Deno.test("keeping frequent experts hits half as often again as uniform luck would, and follows a change of topic", () => {
  const slots = Math.floor(0.25 * LAYERS * EXPERTS);
  const routing = new SkewedRouting(2, 1.1);
  assert.ok(hitRateByFrequency(routing, slots, 300) > 1.5 * 0.25);
  const frequency = new ExpertFrequency(LAYERS, EXPERTS);
  for (let token = 0; token < 300; token++) frequency.count(0, 1, [[0, 1], [1, 1]]);
  assert.ok(frequency.share(0) > 0.9);
  for (let token = 0; token < 64; token++) frequency.count(0, 1, [[2, 1], [3, 1]]);
  assert.ok(frequency.share(2) > 0.49 && frequency.share(0) < 0.51);
});

Deno.test("ExpertFrequency counts a prompt at once as its tokens one by one", () => {
  const atOnce = new ExpertFrequency(1, 2), oneByOne = new ExpertFrequency(1, 2);
  atOnce.count(0, 40, [[0, 40], [1, 40]]);
  for (let i = 0; i < 40; i++) oneByOne.count(0, 1, [[0, 1], [1, 1]]);
  assert.ok(Math.abs(atOnce.share(0) - oneByOne.share(0)) < 1e-9);
  atOnce.count(0, 10, [[0, 5]]);
  assert.ok(atOnce.share(1) < atOnce.share(0));
});

Deno.test("ExpertFrequency ranks equals by how far away their layer is", () => {
  const frequency = new ExpertFrequency(4, 2);
  // In layer 1 the next are those of layer 2, the last those of layer 1 itself.
  const order = [0, 2, 4, 6].sort((a, b) => frequency.compare(a, b, 1));
  assert.deepEqual(order, [2, 0, 6, 4]);
});
