import assert from "node:assert/strict";
import { Context } from "../../lib/ffi/context.ts";
import { extentBytes as nativeExtentBytes } from "../../lib/ffi/quantize.ts";
import { columnUnit, extentBytes, PLAIN_FORMATS, rowGranularity, rowSectionBytes } from "../../lib/shard/formats.ts";
import type { WeightFormatName } from "../../lib/shard/manifest.ts";
import { packingName, parsePacking } from "../../lib/shard/packed_formats.ts";
import { PACKED_FORMATS } from "../kernels/packed_formats.ts";

/** Those whose kernels are tested, and further groups and types. */
const PACKED: WeightFormatName[] = [
  ...PACKED_FORMATS,
  "bnb4-2-f32",
  "bnb4-4096-f16",
  "bnb4-32x1-f32",
  "int4-row-bf16",
  "int4-32-f32-zero",
  "int4-128-bf16-order",
  "int8-32-f16-zero-order",
];

Deno.test("extentBytes() equals airk_extent_bytes for every format and shape", () => {
  using context = Context.open();
  for (const format of [...PLAIN_FORMATS, ...PACKED]) {
    for (const rows of [1, 2, 3, 63, 64, 65, 127, 128, 1000]) {
      for (const cols of [1, 2, 31, 32, 33, 63, 64, 65, 72, 100, 256, 4096, 53248]) {
        if (cols % columnUnit(format) !== 0) {
          assert.throws(() => nativeExtentBytes(context, context.formatId(format), rows, cols, 0));
          continue;
        }
        for (const outliers of format === "q4o" ? [0, 1, 31, 32, 777] : [0]) {
          if (outliers > rows * cols) continue;
          const native = nativeExtentBytes(context, context.formatId(format), rows, cols, outliers);
          assert.equal(extentBytes(format, rows, cols, outliers), native, `${format} [${rows}, ${cols}] ${outliers}`);
        }
      }
    }
  }
});

Deno.test("rowGranularity() is the least number of rows that are whole blocks, and 1 for formats without them", () => {
  for (let cols = 1; cols <= 200; cols++) {
    let least = 1;
    while (least * cols % 64 !== 0) least++;
    assert.equal(rowGranularity("nf4", cols), least);
    assert.equal(rowGranularity("bnb4-64-bf16", cols), least);
    let nested = least;
    while (nested * cols % 512 !== 0) nested += least;
    assert.equal(rowGranularity("bnb4-64x8-bf16", cols), nested);
    assert.equal(rowGranularity("fp8-128x32", cols), 128);
    assert.equal(rowGranularity("q4o", cols), 1);
    assert.equal(rowGranularity("int4-128-f16", cols), 1);
  }
});

Deno.test("packed formats have one name each, which both libraries read alike", () => {
  using context = Context.open();
  const ids = new Set<number>();
  for (const name of PACKED) {
    assert.equal(packingName(parsePacking(name)!), name);
    ids.add(context.formatId(name));
  }
  assert.equal(ids.size, PACKED.length);
  const wrong = [
    "bnb4-48-bf16",
    "bnb4-64",
    "bnb4-64x3-f16",
    "bnb4-8192-f16",
    "bnb4-064-f16",
    "int4-16-f16",
    "int4-row-scb",
    "int4-row-f64",
  ];
  wrong.push(
    "int8-row-scb-zero",
    "int8-0-f16",
    "fp8-128",
    "fp8-256x128",
    "fp8-0x128",
    "mxfp4-32",
    "mxfp4-product",
    "nvfp4-",
    "q4_k ",
    "q7_k",
    "q5_2",
    "int4-+32-f16",
    "",
  );
  for (const name of wrong) {
    assert.equal(parsePacking(name), undefined, name);
    assert.throws(() => context.formatId(name), Error, name);
  }
});

Deno.test("rowSectionBytes() times the rows are the sections, for formats whose rows share nothing", () => {
  for (const format of [...PLAIN_FORMATS, ...PACKED]) {
    const sections = rowSectionBytes(format, 512);
    const shared = /^(nf4|q4o|nvfp4.*|bnb4.*|fp8-128x128|.*-order)$/.test(format);
    assert.equal(sections === undefined, shared, format);
    if (sections === undefined) continue;
    let end = 0;
    for (const bytes of sections) end = Math.ceil(end / 64) * 64 + bytes * 7;
    assert.equal(end, extentBytes(format, 7, 512, 0), format);
  }
});
