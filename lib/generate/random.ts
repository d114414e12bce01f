/**
 * A small seeded generator of random numbers.
 * @module
 */
import { UsageError } from "../errors.ts";

const UINT64_MASK = 0xFFFF_FFFF_FFFF_FFFFn;

/** Returns the next state and output of SplitMix64 (Vigna, prng.di.unimi.it/splitmix64.c), the seeder its author recommends. */
function splitMix64(state: bigint): [state: bigint, output: bigint] {
  state = (state + 0x9E37_79B9_7F4A_7C15n) & UINT64_MASK;
  let z = state;
  z = ((z ^ (z >> 30n)) * 0xBF58_476D_1CE4_E5B9n) & UINT64_MASK;
  z = ((z ^ (z >> 27n)) * 0x94D0_49BB_1331_11EBn) & UINT64_MASK;
  return [state, z ^ (z >> 31n)];
}

/** xoshiro128** 1.1 (Blackman and Vigna, prng.di.unimi.it/xoshiro128starstar.c), seeded by SplitMix64. */
export class Random {
  readonly #state = new Uint32Array(4);

  /**
   * @param seed a whole number from 0 to 2^53 - 1; the same seed gives the same numbers on every machine.
   * @throws {UsageError} for any other seed.
   */
  constructor(seed: number) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new UsageError(`Cannot use seed ${seed}: required a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
    }
    let state = BigInt(seed), output: bigint;
    for (let i = 0; i < 4; i += 2) {
      [state, output] = splitMix64(state);
      this.#state[i] = Number(output & 0xFFFF_FFFFn);
      this.#state[i + 1] = Number(output >> 32n);
    }
  }

  /** Returns a whole number from 0 to 2^32 - 1. */
  uint32(): number {
    const s = this.#state;
    const product = Math.imul(s[1], 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const t = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return result;
  }

  /** Returns a number from 0 up to but not 1, with 53 random bits. */
  uniform(): number {
    const high = this.uint32() >>> 5, low = this.uint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }
}

/** Returns a seed that nobody chose. */
export function randomSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 2 ** 32 + low;
}
