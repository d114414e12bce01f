/**
 * Kernels on the emulator against plain references. EMULATOR_TIER names the build and EMULATOR_SETTINGS what CUDA_EMU would
 * say; tiers_test.ts runs this file once for each of several.
 */
import assert from "node:assert/strict";
import { Cuda, Emulator, type Tier } from "./library.ts";

const TIER = (Deno.env.get("EMULATOR_TIER") ?? "plain") as Tier;
const SETTINGS = Deno.env.get("EMULATOR_SETTINGS") ?? "";

/** Runs `body` on an emulator of the tier under test, then asks that nothing was found wrong. */
function onEmulator(name: string, body: (cuda: Emulator) => void): void {
  Deno.test(`${name} (${[TIER, SETTINGS].filter(Boolean).join(", ")})`, () => {
    using cuda = new Emulator(TIER, SETTINGS);
    body(cuda);
    assert.equal(cuda.symbols.cudaDeviceSynchronize(), Cuda.success, cuda.report());
    assert.equal(cuda.report(), "");
  });
}

/** Numbers in [-1, 1) from a small linear generator. */
function randoms(count: number, seed: number): Float32Array<ArrayBuffer> {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 31;
  });
}

const floatBits = new Float32Array(1), intBits = new Uint32Array(floatBits.buffer);

/** bfloat16 by rounding to nearest, ties to even; NaN is 0x7fff. */
function toBfloat16(value: number): number {
  floatBits[0] = value;
  if (Number.isNaN(value)) return 0x7fff;
  return (intBits[0] + 0x7fff + ((intBits[0] >>> 16) & 1)) >>> 16 & 0xffff;
}
function fromBfloat16(bits: number): number {
  intBits[0] = bits << 16;
  return floatBits[0];
}
const halfNumber = new Float16Array(1), halfBits = new Uint16Array(halfNumber.buffer);
function toHalf(value: number): number {
  halfNumber[0] = value;
  return halfBits[0];
}
function fromHalf(bits: number): number {
  halfBits[0] = bits;
  return halfNumber[0];
}

for (const [rows, cols] of [[1, 1], [3, 127], [7, 129], [2, 4095]]) {
  onEmulator(`rmsnorm matches a double reference, rows=${rows}, cols=${cols}, within 1e-6`, (cuda) => {
    const x = randoms(rows * cols, 1), weight = randoms(cols, 2), eps = 1e-5;
    const y = cuda.upload(new Float32Array(rows * cols + 1).fill(-7));
    const status = cuda.fixtures.fixture_rmsnorm(y, cuda.upload(x), cuda.upload(weight), BigInt(rows), BigInt(cols), eps, 0n);
    assert.equal(status, Cuda.success);
    const got = cuda.download(y, new Float32Array(rows * cols + 1));
    for (let r = 0; r < rows; r++) {
      const row = x.subarray(r * cols, (r + 1) * cols);
      const scale = 1 / Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / cols + eps);
      row.forEach((v, c) =>
        assert.ok(Math.abs(got[r * cols + c] - v * scale * weight[c]) <= 1e-6 * (1 + scale), `row ${r} column ${c}`)
      );
    }
    assert.equal(got[rows * cols], -7, "what lies behind is left alone");
  });
}

for (const [kind, encode, decode] of [["f16", toHalf, fromHalf], ["bf16", toBfloat16, fromBfloat16]] as const) {
  for (const [m, n, k] of [[16, 8, 16], [1, 1, 8], [17, 9, 24], [40, 23, 136]]) {
    onEmulator(
      `a ${kind} product by cp.async, ldmatrix and mma matches a double reference, ${m}x${n}x${k}, within 1e-6 of its scale`,
      (cuda) => {
        const a = Uint16Array.from(randoms(m * k, 3), encode), b = Uint16Array.from(randoms(n * k, 4), encode);
        const y = cuda.malloc(m * n * 4);
        assert.equal(
          cuda.fixtures.fixture_matmul(y, cuda.upload(a), cuda.upload(b), m, n, k, kind === "bf16" ? 1 : 0, 0n),
          Cuda.success,
        );
        const got = cuda.download(y, new Float32Array(m * n));
        for (let i = 0; i < m; i++) {
          for (let j = 0; j < n; j++) {
            let sum = 0, scale = 0;
            for (let l = 0; l < k; l++) {
              const product = decode(a[i * k + l]) * decode(b[j * k + l]);
              sum += product;
              scale += Math.abs(product);
            }
            assert.ok(Math.abs(got[i * n + j] - sum) <= 1e-6 * scale, `y[${i}, ${j}] is ${got[i * n + j]}, should be ${sum}`);
          }
        }
      },
    );
  }
}

onEmulator("the transposed ldmatrix gives each lane two elements of its column", (cuda) => {
  const tile = Uint16Array.from({ length: 64 }, (_, i) => 100 * (i >> 3) + (i & 7));
  const out = cuda.malloc(128);
  assert.equal(cuda.fixtures.fixture_transpose(out, cuda.upload(tile), 0n), Cuda.success);
  const expected = Uint32Array.from({ length: 32 }, (_, lane) => {
    const column = lane >> 2, row = (lane & 3) * 2;
    return tile[row * 8 + column] | tile[(row + 1) * 8 + column] << 16;
  });
  assert.deepEqual(cuda.download(out, new Uint32Array(32)), expected);
});

onEmulator("half and bfloat16 conversions are exact and round to nearest even", (cuda) => {
  // Every half, the middle between it and the next, and what is next to that middle; then floats of all magnitudes.
  const values: number[] = [NaN, Infinity, -Infinity, 65519.99, 65520, 3.4e38, -0];
  for (let bits = 0; bits < 0x7c00; bits += 13) {
    const middle = (fromHalf(bits) + (bits === 0x7bff ? 65536 : fromHalf(bits + 1))) / 2;
    values.push(fromHalf(bits), middle, middle * (1 + 2 ** -22), -middle * (1 - 2 ** -22));
  }
  randoms(2000, 5).forEach((v, i) => values.push(v * 2 ** (i % 80 - 50)));
  const input = Float32Array.from(values), count = input.length;
  const outputs = [count * 2, count * 2, count * 4, count * 4].map((bytes) => cuda.malloc(bytes));
  const [half, bfloat, halfBack, bfloatBack] = outputs;
  assert.equal(cuda.fixtures.fixture_convert(half, bfloat, halfBack, bfloatBack, cuda.upload(input), count, 0n), Cuda.success);
  const gotHalf = cuda.download(half, new Uint16Array(count)), gotBfloat = cuda.download(bfloat, new Uint16Array(count));
  const backFromHalf = cuda.download(halfBack, new Float32Array(count)),
    backFromBfloat = cuda.download(bfloatBack, new Float32Array(count));
  input.forEach((v, i) => {
    if (Number.isNaN(v)) {
      assert.deepEqual([gotHalf[i], gotBfloat[i]], [0x7fff, 0x7fff], "the NaN that CUDA's conversions give");
      return;
    }
    assert.equal(gotHalf[i], toHalf(v), `half of ${v}`);
    assert.equal(gotBfloat[i], toBfloat16(v), `bfloat16 of ${v}`);
    assert.equal(backFromHalf[i], fromHalf(gotHalf[i]));
    assert.equal(backFromBfloat[i], fromBfloat16(gotBfloat[i]));
  });
});

onEmulator("arithmetic on pairs of half and bfloat16 rounds once", (cuda) => {
  const count = 256;
  const pairs = (seed: number): Uint32Array<ArrayBuffer> => {
    const values = randoms(2 * count, seed);
    // Finite in both formats: exponents that neither overflow nor vanish.
    return Uint32Array.from({ length: count }, (_, i) => toHalf(values[2 * i]) | toHalf(values[2 * i + 1]) << 16);
  };
  const [a, b, c] = [pairs(6), pairs(7), pairs(8)];
  const out = cuda.malloc(count * 24);
  assert.equal(cuda.fixtures.fixture_half_pairs(out, cuda.upload(a), cuda.upload(b), cuda.upload(c), count, 0n), Cuda.success);
  const got = cuda.download(out, new Uint32Array(6 * count));
  for (let i = 0; i < count; i++) {
    for (let part = 0; part < 2; part++) {
      const bits = [a[i], b[i], c[i]].map((v) => v >>> (16 * part) & 0xffff);
      const of = (n: number): number => got[6 * i + n] >>> (16 * part) & 0xffff;
      const [x, y, z] = bits.map(fromHalf);
      // A double holds products and sums of halfs exactly here, so that one rounding remains.
      assert.deepEqual([of(0), of(1), of(2)], [toHalf(x * y + z), toHalf(x * y), toHalf(x + y)], `halfs ${x} ${y} ${z}`);
      const [p, q, r] = bits.map(fromBfloat16);
      const near = (gotBits: number, wanted: number): boolean =>
        Math.abs(fromBfloat16(gotBits) - wanted) <= Math.abs(wanted) * 2 ** -8;
      assert.ok(near(of(3), p * q + r) && near(of(4), p * q) && near(of(5), p + q), `bfloat16s ${p} ${q} ${r}`);
    }
  }
});

onEmulator("integer intrinsics match references", (cuda) => {
  const bits = (seed: number): Int32Array<ArrayBuffer> => Int32Array.from(randoms(64, seed), (v) => v * 2 ** 31);
  const [a, b, c] = [bits(9), bits(10), bits(11)];
  a[0] = 0;
  a[1] = -1;
  b.forEach((v, i) => b[i] = (v & 0x7f800000) === 0x7f800000 ? 5 : v); // read as floats too, which must be finite
  const out = cuda.malloc(64 * 32);
  assert.equal(cuda.fixtures.fixture_integers(out, cuda.upload(a), cuda.upload(b), cuda.upload(c), 64, 0n), Cuda.success);
  const got = cuda.download(out, new Int32Array(512));
  for (let i = 0; i < 64; i++) {
    const bytes = (v: number, signed: boolean): number[] => [0, 8, 16, 24].map((s) => signed ? v << 24 - s >> 24 : v >>> s & 255);
    const dot = (signed: boolean): number =>
      bytes(a[i], signed).reduce((sum, v, n) => sum + v * bytes(b[i], signed)[n], c[i]) | 0;
    const eight = [...bytes(a[i], false), ...bytes(b[i], false)];
    const wide = BigInt.asUintN(64, BigInt(b[i]) << 32n | BigInt(a[i] >>> 0));
    floatBits[0] = 2 ** (i % 4);
    assert.deepEqual(Array.from(got.subarray(8 * i, 8 * i + 8)), [
      dot(true),
      dot(false),
      [0, 1, 2, 3].reduce((sum, n) => sum | eight[c[i] >>> 4 * n & 7] << 8 * n, 0),
      (a[i] >>> 0).toString(2).replaceAll("0", "").length + 64 * (32 - Math.clz32(a[i] & -a[i])),
      Math.clz32(a[i]),
      Number(BigInt(a[i]) * BigInt(b[i]) >> 32n),
      Number(BigInt.asIntN(32, wide >> BigInt(c[i] & 31))),
      intBits[0],
    ], `thread ${i}`);
  }
});

onEmulator("warp operations match references", (cuda) => {
  const input = Int32Array.from({ length: 32 }, (_, i) => (i * 37 + 11) % 64 - 20);
  const out = cuda.malloc(1024);
  assert.equal(cuda.fixtures.fixture_warp_operations(out, cuda.upload(input), 0n), Cuda.success);
  const got = cuda.download(out, new Int32Array(256));
  const ballot = input.reduce((sum, v, lane) => sum | (v & 1) << lane, 0), positive = input.filter((v) => v > 0).length;
  for (let lane = 0; lane < 32; lane++) {
    assert.deepEqual(Array.from(got.subarray(8 * lane, 8 * lane + 8)), [
      input[5],
      input[lane ^ 3],
      input[lane % 16 < 2 ? lane : lane - 2],
      input[lane + 7 > 31 ? lane : lane + 7],
      ballot,
      3,
      lane < 8 ? input[7] : -1,
      positive,
    ], `lane ${lane}`);
  }
});

onEmulator("atomics of many blocks add up", (cuda) => {
  const blocks = 5, threads = 96, count = blocks * threads;
  const input = Int32Array.from({ length: count }, (_, i) => (i * 7919) % 1009);
  const totals = cuda.upload(Int32Array.of(0, -1, 5000, 0)),
    best = cuda.upload(new BigUint64Array(1)),
    sum = cuda.upload(new Float32Array(1));
  assert.equal(cuda.fixtures.fixture_atomics(totals, best, sum, cuda.upload(input), blocks, threads, 0n), Cuda.success);
  const largest = Math.max(...input);
  assert.deepEqual(Array.from(cuda.download(totals, new Int32Array(4))), [
    input.reduce((a, b) => a + b),
    largest,
    Math.min(...input),
    count,
  ]);
  assert.equal(Number(cuda.download(best, new BigUint64Array(1))[0] >> 32n), largest);
  assert.equal(cuda.download(sum, new Float32Array(1))[0], count / 2);
});
