import assert from "node:assert/strict";
import { AIRK_F32 } from "../../lib/ffi/abi.ts";
import { NativeError } from "../../lib/errors.ts";
import { measurePeakFlops, measureReadSeconds } from "../../lib/ffi/measure.ts";
import { Arena, eachIsa, openContext, random, TEST_KIND } from "./reference.ts";

eachIsa("measureReadSeconds() takes longer for more memory, of the device and of the host", async (context) => {
  using host = await context.hostBuffer(8 << 20);
  using device = context.deviceBuffer(8 << 20);
  for (const { address } of TEST_KIND === "cpu" ? [host, device] : [device]) {
    const few = await measureReadSeconds(context, address, 64 << 10, 3),
      many = await measureReadSeconds(context, address, 8 << 20, 3);
    assert.ok(few > 0 && many > few, `${few} s for 64 KiB, ${many} s for 8 MiB`);
  }
});

eachIsa("measurePeakFlops() gives a rate for each kind of operands", async (context) => {
  for (const kind of ["float32", "fast"] as const) {
    const rate = await measurePeakFlops(context, kind);
    assert.ok(Number.isFinite(rate) && rate > 1e5, `${kind}: ${rate}`);
  }
});

Deno.test({
  name: `operations keep to the scratch memory that a stream was given${
    TEST_KIND === "cpu" ? " (skipped: the CPU twin takes none)" : ""
  }`,
  ignore: TEST_KIND === "cpu",
  fn: async () => {
    using context = openContext();
    const tokens = 300, heads = 2, dim = 64;
    for (const [bytes, works] of [[1 << 20, true], [512, false]] as const) {
      using scratch = context.deviceBuffer(bytes);
      using arena = new Arena(context);
      arena.stream.setScratch(scratch);
      const x = arena.f32(random(1).floats(20 * 96), "x"), y = arena.f32(20 * 40, "y");
      const weight = arena.f32(random(2).floats(40 * 96), "weight");
      const extent = {
        ...{
          format: context.formatId("f32"),
          address: weight.address,
          bytes: BigInt(40 * 96 * 4),
          rows: 40n,
          cols: 96n,
          outliers: 0n,
        },
      };
      const product = arena.run((ops) => ops.matmul(y.address, 40, x.address, 96, 20, extent, 0n, false, "fast"));
      // Only tensor cores need it.
      const needs = !/^sm_7/.test(context.description.isa);
      if (works || !needs) await product;
      else await assert.rejects(product, (error) => error instanceof NativeError && /the stream has 512/.test(error.message));
      // Attention splits its keys as far as there is memory for it.
      using other = new Arena(context);
      other.stream.setScratch(scratch);
      const q = other.f32(random(3).floats(heads * dim), "q"), cache = other.f32(random(4).floats(tokens * heads * dim), "cache");
      const out = other.f32(heads * dim, "out"),
        entries = other.i32([0, 1, tokens - 1, 0], "sequences"),
        table = other.i32([0], "table");
      await other.run((ops) =>
        ops.attention(out.address, q.address, {
          ...{ kCache: cache.address, vCache: cache.address, cacheType: AIRK_F32, sequences: entries.address, sequenceCount: 1 },
          ...{ pageTable: table.address, mask: 0n, tokens: 1, heads, kvHeads: heads, headDim: dim, valueDim: dim },
          ...{ pageTokens: tokens, contextTokens: tokens, scale: 1 / 8 },
        })
      );
      assert.ok(out.data.every(Number.isFinite));
    }
  },
});
