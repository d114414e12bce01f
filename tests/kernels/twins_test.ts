/** Every operation on the CUDA library and on its CPU twin, with the same inputs; each is compared with float64 references by its own test. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { AIRK_F16, AIRK_F32, AIRK_Q8 } from "../../lib/ffi/abi.ts";
import { Context } from "../../lib/ffi/context.ts";
import type { Activation, AttentionInput, Ops, WeightExtent } from "../../lib/ffi/ops.ts";
import { columnUnit } from "../../lib/shard/formats.ts";
import type { WeightFormatName } from "../../lib/shard/manifest.ts";
import { PACKED_FORMATS, packedExtent } from "./packed_formats.ts";
import { q8CacheBytes } from "./q8_rows.ts";
import { PASSES, place } from "./recurrent_pass.ts";
import { Arena, assertClose, openContext, type Random, random, type Tensor, TEST_KIND } from "./reference.ts";
import { type FormatName, FORMATS, randomExtent } from "./weight_formats.ts";

/** Places inputs, and returns what to enqueue and what comes out of it. The same numbers come for both libraries. */
type Prepare = (arena: Arena, numbers: Random) => { enqueue(ops: Ops): void; out: Tensor[]; tolerance?: number };

/** Where the libraries need not agree to the bit. */
const ROUNDED = 1e-11;

/** An extent of some format: those of our own, and packed ones. */
function weightOf(arena: Arena, numbers: Random, name: string, rows: number, cols: number): WeightExtent {
  const isOwn = (FORMATS as readonly string[]).includes(name);
  const { bytes, outliers } = isOwn
    ? randomExtent(numbers, name as FormatName, rows, cols)
    : { ...packedExtent(numbers, name as typeof PACKED_FORMATS[number], rows, cols), outliers: 0 };
  return {
    format: arena.context.formatId(name),
    address: arena.u8(bytes, "weight").address,
    bytes: BigInt(bytes.length),
    rows: BigInt(rows),
    cols: BigInt(cols),
    outliers: BigInt(outliers),
  };
}

const ALL_FORMATS: readonly string[] = [...FORMATS, ...PACKED_FORMATS];
const colsOf = (format: string): number => columnUnit(format as WeightFormatName) === 256 ? 512 : 165;

/** An element-wise operation of x [7, 33] and vectors [33]. */
function rowsOf(run: (ops: Ops, y: bigint, x: bigint, a: bigint, b: bigint) => void): Prepare {
  return (arena, numbers) => {
    const x = arena.f32(numbers.floats(7 * 33), "x"), y = arena.f32(7 * 33, "y");
    const [a, b] = ["a", "b"].map((name) => arena.f32(numbers.floats(33), name));
    return { enqueue: (ops) => run(ops, y.address, x.address, a.address, b.address), out: [y], tolerance: ROUNDED };
  };
}

function attention(
  cacheType: number,
  headDim: number,
  valueDim: number,
  absorbed: boolean,
  change: Partial<AttentionInput> = {},
): Prepare {
  return (arena, numbers) => {
    const tokens = 19, cached = 40, heads = 6, kvHeads = 2, pageTokens = 8, pages = 9, positions = cached + tokens;
    const cache = (name: string, dim: number) =>
      cacheType === AIRK_Q8
        ? arena.u8(q8CacheBytes(pages, kvHeads, pageTokens, dim), name)
        : cacheType === AIRK_F16
        ? arena.u16(pages * kvHeads * pageTokens * dim, name)
        : arena.f32(pages * kvHeads * pageTokens * dim, name);
    const kCache = cache("kCache", headDim), vCache = cache("vCache", valueDim), y = arena.f32(tokens * heads * valueDim, "y");
    const q = arena.f32(numbers.floats(tokens * heads * headDim), "q");
    const k = arena.f32(numbers.floats(positions * kvHeads * headDim), "k");
    const v = arena.f32(numbers.floats(positions * kvHeads * valueDim), "v");
    const order = numbers.permutation(pages);
    const slots = Array.from({ length: positions }, (_, p) => order[Math.floor(p / pageTokens)] * pageTokens + p % pageTokens);
    const sinks = arena.f32(numbers.floats(heads), "sinks"), slopes = arena.f32(numbers.floats(heads, 0.1), "slopes");
    const visible = arena.i32(Array.from({ length: tokens }, (_, t) => Math.max(0, cached + t - 30)), "firstVisible");
    const slot = arena.i32(slots, "slots"),
      table = arena.i32(order, "pageTable"),
      entries = arena.i32([0, tokens, cached, 0], "sequences");
    const input: AttentionInput = {
      ...{
        kCache: kCache.address,
        vCache: absorbed ? 0n : vCache.address,
        cacheType,
        sequences: entries.address,
        sequenceCount: 1,
      },
      ...{ pageTable: table.address, mask: 0n, firstVisible: visible.address, sinks: sinks.address, slopes: slopes.address },
      ...{ tokens, heads, kvHeads, headDim, valueDim, pageTokens, contextTokens: positions, scale: 0.2, softcap: 20 },
      ...change,
    };
    return {
      enqueue(ops) {
        ops.kvAppend(input, k.address, absorbed ? 0n : v.address, slot.address, positions);
        ops.attention(y.address, q.address, input);
      },
      // Caches are compared too: what is not written stays the sentinels' NaN.
      out: cacheType === AIRK_Q8 ? [y, kCache] : [y],
      tolerance: change.precision === "fast" ? 1e-6 : ROUNDED,
    };
  };
}

/** By operation, what it is run on. */
const OPERATIONS: Record<string, Record<string, Prepare>> = {
  embedding: Object.fromEntries(ALL_FORMATS.map((format) => [format, (arena, numbers) => {
    const weight = weightOf(arena, numbers, format, 11, colsOf(format)), ids = arena.i32([10, 0, 3, 3], "ids");
    const y = arena.f32(4 * colsOf(format), "y");
    return { enqueue: (ops) => ops.embedding(y.address, weight, ids.address, 4), out: [y], tolerance: ROUNDED };
  }])),
  dequantize: Object.fromEntries(ALL_FORMATS.map((format) => [format, (arena, numbers) => {
    const weight = weightOf(arena, numbers, format, 11, colsOf(format)), y = arena.f32(11 * colsOf(format), "y");
    return { enqueue: (ops) => ops.dequantize(y.address, weight), out: [y], tolerance: ROUNDED };
  }])),
  matmul: Object.fromEntries(
    ALL_FORMATS.flatMap((format) =>
      [1, 3, 7, 21].flatMap((tokens) =>
        (["exact", "fast"] as const).map((precision): [string, Prepare] => [
          `${format} ${precision}, ${tokens} tokens`,
          (arena, numbers) => {
            const rows = 35, cols = colsOf(format), weight = weightOf(arena, numbers, format, rows, cols);
            const x = arena.f32(numbers.floats(tokens * cols), "x"), y = arena.f32(tokens * rows, "y");
            const bias = arena.f32(numbers.floats(rows), "bias");
            return {
              enqueue: (ops) => ops.matmul(y.address, rows, x.address, cols, tokens, weight, bias.address, false, precision),
              out: [y],
              // Both round activations, each in its own way.
              tolerance: precision === "fast" ? 2e-4 : ROUNDED,
            };
          },
        ])
      )
    ),
  ),
  matmul_grouped: Object.fromEntries(
    ALL_FORMATS.flatMap((format) =>
      [1, 6, 21].map((tokens): [string, Prepare] => [
        `${format}, ${tokens} tokens`,
        (arena, numbers) => {
          const rows = 35, cols = colsOf(format), weight = weightOf(arena, numbers, format, rows, cols);
          const groups = { firstRow: 5, groupRows: 13, xGroupStride: cols + 2 }, xStride = 4 * (cols + 2);
          const x = arena.f32(numbers.floats(tokens * xStride), "x"), y = arena.f32(tokens * rows, "y");
          return {
            enqueue: (ops) => ops.matmulGrouped(y.address, rows, x.address, xStride, tokens, weight, 0n, groups, "exact"),
            out: [y],
            tolerance: ROUNDED,
          };
        },
      ])
    ),
  ),
  rmsnorm: { "": rowsOf((ops, y, x, a) => ops.rmsnorm(y, x, a, 7, 33, 1e-5)) },
  layernorm: { "": rowsOf((ops, y, x, a, b) => ops.layernorm(y, x, a, b, 7, 33, 1e-5)) },
  l2norm: { "": rowsOf((ops, y, x) => ops.l2norm(y, x, 7, 33, 1e-6)) },
  log_decay: { "": rowsOf((ops, y, x, a, b) => ops.logDecay(y, x, a, b, 7, 33)) },
  gated: Object.fromEntries(
    (["silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "tanh", "swiglu_oai", undefined] as (Activation | undefined)[])
      .map((activation) => [`${activation}`, rowsOf((ops, y, x, a) => ops.gated(y, x, a, 33, activation))]),
  ),
  clamp: { "": rowsOf((ops, y, x) => ops.clamp(y, x, 231, 0.5)) },
  xielu: {
    "": rowsOf((ops, y, x, a) => ops.xielu(y, x, { alphaP: a, alphaN: a + 4n, beta: a + 8n, eps: a + 12n }, 231)),
  },
  scale: { "": rowsOf((ops, y, x) => ops.scale(y, x, 231, 1.5, 3)) },
  copy_2d: { "": rowsOf((ops, y, x) => ops.copy2d(y, 33, x, 21, 7, 19)) },
  add: {
    "": (arena, numbers) => {
      const x = arena.f32(numbers.floats(77), "x"), y = arena.f32(numbers.floats(77), "y");
      return { enqueue: (ops) => ops.add(y.address, x.address, 77, 0.3), out: [y], tolerance: ROUNDED };
    },
  },
  rope: Object.fromEntries([true, false].map((interleaved) => [`interleaved=${interleaved}`, (arena, numbers) => {
    const layout = { stride: 3 * 20 + 2, heads: 3, headDim: 20, first: 4, rotaryDim: 14, interleaved };
    const x = arena.f32(numbers.floats(5 * layout.stride), "x");
    const [cos, sin] = ["cos", "sin"].map((name) => arena.f32(numbers.floats(5 * 7), name));
    return { enqueue: (ops) => ops.rope(x.address, cos.address, sin.address, 5, layout), out: [x], tolerance: ROUNDED };
  }])),
  attention: {
    "f32": attention(AIRK_F32, 20, 33, false),
    "f16": attention(AIRK_F16, 64, 64, false),
    "f16 of 80 elements": attention(AIRK_F16, 80, 80, false),
    "f16 fast": attention(AIRK_F16, 64, 48, false, { precision: "fast" }),
    "q8": attention(AIRK_Q8, 100, 70, false),
    "q8 fast": attention(AIRK_Q8, 96, 96, false, { precision: "fast" }),
    "latent": attention(AIRK_F16, 576, 512, true, { sinks: 0n, slopes: 0n, softcap: 0 }),
  },
  gather_rows: {
    "": (arena, numbers) => {
      const x = arena.f32(numbers.floats(9 * 21), "x"), ids = arena.i32([8, 2, 2], "ids"), y = arena.f32(3 * 21, "y");
      return { enqueue: (ops) => ops.gatherRows(y.address, x.address, ids.address, 3, 9, 21), out: [y] };
    },
  },
  scatter_add: {
    "": (arena, numbers) => {
      const x = arena.f32(numbers.floats(4 * 21), "x"), y = arena.f32(numbers.floats(5 * 21), "y");
      const ids = arena.i32([4, 1, 4, 0], "ids"), weights = arena.f32(numbers.floats(4), "weights");
      return {
        enqueue: (ops) => ops.scatterAdd(y.address, x.address, ids.address, weights.address, 4, 5, 21),
        out: [y],
        tolerance: ROUNDED,
      };
    },
  },
  argmax: {
    "": (arena, numbers) => {
      const x = arena.f32(numbers.floats(3 * 1001), "x"), index = arena.i32(3, "index");
      return { enqueue: (ops) => ops.argmax(index.address, x.address, 3, 1001), out: [index] };
    },
  },
  top_k: {
    "": (arena, numbers) => {
      const x = arena.f32(numbers.floats(3 * 1001), "x"), index = arena.i32(3 * 17, "index"), value = arena.f32(3 * 17, "value");
      return { enqueue: (ops) => ops.topK(value.address, index.address, x.address, 3, 1001, 17), out: [index, value] };
    },
  },
  causal_conv1d: {
    "": (arena, numbers) => {
      const pass = PASSES.at(-1)!, input = place(arena, pass), cols = 37, kernel = 4;
      const x = arena.f32(numbers.floats(input.tokens * cols), "x"), y = arena.f32(numbers.floats(input.tokens * cols), "y");
      const weight = arena.f32(numbers.floats(cols * kernel), "weight"), bias = arena.f32(numbers.floats(cols), "bias");
      const state = arena.f32(numbers.floats(pass.slots * (kernel - 1) * cols), "state");
      return {
        enqueue: (ops) =>
          ops.causalConv1d(y.address, x.address, weight.address, bias.address, state.address, input, cols, kernel, "silu"),
        out: [y, state],
        tolerance: ROUNDED,
      };
    },
  },
  gated_delta_rule: Object.fromEntries([true, false].map((corrects) => [
    corrects ? "" : "adding",
    (arena, numbers) => {
      const pass = PASSES.at(-1)!, input = place(arena, pass), heads = { keyHeads: 2, valueHeads: 4, keyDim: 20, valueDim: 33 };
      const { tokens } = input;
      const [q, k] = ["q", "k"].map((name) => arena.f32(numbers.floats(tokens * 40, 0.2), name));
      const v = arena.f32(numbers.floats(tokens * 132), "v"),
        beta = arena.f32(numbers.floats(tokens * 4).map((x) => 1 / (1 + x * x)), "beta");
      const logDecay = arena.f32(numbers.floats(tokens * 4).map((x) => -Math.abs(x)), "logDecay");
      const state = arena.f32(numbers.floats(pass.slots * 4 * 20 * 33), "state"),
        y = arena.f32(numbers.floats(tokens * 132), "y");
      const delta = {
        ...{ q: q.address, qStride: 40, k: k.address, kStride: 40, v: v.address, vStride: 132, logDecay: logDecay.address },
        ...{ beta: beta.address, ...heads, scale: 0.2, corrects, ...!corrects && { skip: beta.address } },
      };
      return {
        enqueue: (ops) => ops.gatedDeltaRule(y.address, state.address, delta, input),
        out: [y, state],
        tolerance: ROUNDED,
      };
    },
  ])),
};

/** Runs one case on a library; what comes out, its tensors one after another. */
async function outputs(
  context: Context,
  prepare: Prepare,
): Promise<{ values: (Float32Array | Int32Array | Uint8Array | Uint16Array)[]; tolerance?: number }> {
  using arena = new Arena(context);
  const { enqueue, out, tolerance } = prepare(arena, random(77));
  await arena.run(enqueue);
  return { values: out.map(({ data }) => data.slice()), tolerance };
}

for (const [operation, cases] of Object.entries(OPERATIONS)) {
  Deno.test({
    name: `${operation}: the CUDA library gives what its CPU twin gives${
      TEST_KIND === "cpu" ? " (skipped: needs the CUDA library)" : ""
    }`,
    ignore: TEST_KIND === "cpu",
    fn: async () => {
      using device = openContext();
      using twin = Context.open({ kind: "cpu", threads: 1 });
      for (const [name, prepare] of Object.entries(cases)) {
        const { values, tolerance } = await outputs(device, prepare), expected = await outputs(twin, prepare);
        for (const [i, value] of values.entries()) {
          const what = `${operation} ${name}, tensor ${i}`;
          // Where neither wrote there is NaN.
          const written = [...value.keys()].filter((at) => !(Number.isNaN(value[at]) && Number.isNaN(expected.values[i][at])));
          assert.ok(written.length > 0, what);
          const own = written.map((at) => value[at]), others = written.map((at) => expected.values[i][at]);
          if (tolerance === undefined || !(value instanceof Float32Array)) assert.deepEqual(own, others, what);
          else assertClose(own, others, tolerance, what);
        }
      }
    },
  });
}

Deno.test("every operation of airkern.h is compared", () => {
  const header = readFileSync(new URL("../../cuda/airkern.h", import.meta.url), "utf8");
  const section = header.split("/* ---- operations")[1].split("/* ---- ")[0];
  const declared = [...section.matchAll(/AIRK_API airk_status airk_(\w+)\(/g)].map(([, name]) => name);
  // kv_append is compared by what attention reads of it.
  assert.deepEqual(declared.sort(), [...Object.keys(OPERATIONS), "kv_append"].sort());
});
