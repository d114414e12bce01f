import assert from "node:assert/strict";
import { Context } from "../../lib/ffi/context.ts";
import { extentBytes as nativeExtentBytes } from "../../lib/ffi/quantize.ts";
import { extentBytes, rowGranularity, WEIGHT_FORMATS } from "../../lib/shard/formats.ts";

Deno.test("extentBytes() equals airk_extent_bytes for every format and shape", () => {
  using context = Context.open();
  for (const format of WEIGHT_FORMATS) {
    for (const rows of [1, 2, 3, 63, 64, 65, 127, 128, 1000]) {
      for (const cols of [1, 2, 31, 32, 33, 63, 64, 65, 72, 100, 4096, 53248]) {
        for (const outliers of format === "q4o" ? [0, 1, 31, 32, 777] : [0]) {
          if (outliers > rows * cols) continue;
          const native = nativeExtentBytes(context, context.formatId(format), rows, cols, outliers);
          assert.equal(extentBytes(format, rows, cols, outliers), native, `${format} [${rows}, ${cols}] ${outliers}`);
        }
      }
    }
  }
});

Deno.test("rowGranularity() is the least number of rows that are whole nf4 blocks, and 1 for formats without them", () => {
  for (let cols = 1; cols <= 200; cols++) {
    let least = 1;
    while (least * cols % 64 !== 0) least++;
    assert.equal(rowGranularity("nf4", cols), least);
    assert.equal(rowGranularity("q4o", cols), 1);
  }
});
