import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import { AIRK_CANCELLED, AIRK_F16, AIRK_INVALID, AIRK_NO_DEVICE, AIRK_OUT_OF_MEMORY } from "../../lib/ffi/abi.ts";
import { Context } from "../../lib/ffi/context.ts";
import { Ops } from "../../lib/ffi/ops.ts";
import { Arena, openContext, TEST_KIND } from "./reference.ts";

const onCpu = TEST_KIND === "cpu";

/** Matches a NativeError of this status and text. */
function native(status: number, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof NativeError);
    assert.equal(error.status, status, error.message);
    assert.match(error.message, message);
    assert.ok(!error.message.includes("\n"));
    return true;
  };
}

Deno.test("Context describes its device", () => {
  using context = openContext({ threads: 3 });
  const { kind, name, threads } = context.description;
  assert.equal(kind, TEST_KIND);
  assert.notEqual(name, "");
  if (onCpu) assert.equal(threads, 3);
});

Deno.test("Context.open() refuses what it does not know", () => {
  assert.throws(() => openContext({ device: 99 }), native(AIRK_NO_DEVICE, /device 99/));
  if (!onCpu) return;
  assert.throws(() => openContext({ threads: -1 }), native(AIRK_INVALID, /Cannot start -1 threads: required are 0 to 1024/));
  assert.throws(
    () => openContext({ isa: "mmx" as "avx2" }),
    native(AIRK_INVALID, /isa=mmx.*portable, avx2, avx512, amx/),
  );
  assert.throws(() => openContext({ isa: "avx2,size=3" as "avx2" }), native(AIRK_INVALID, /option "size=3": known is isa=/));
});

Deno.test("memoryInfo() reports free memory within the total", () => {
  using context = openContext();
  const { freeBytes, totalBytes } = context.memoryInfo();
  assert.ok(freeBytes > 0 && freeBytes <= totalBytes, `${freeBytes} of ${totalBytes}`);
});

for (const bytes of [1, 4095, 4097, (2 << 20) - 1, (2 << 20) + 1, (37 << 20) + 123]) {
  Deno.test(`hostBuffer() is zero-filled, aligned and writable to its end, ${bytes} bytes`, async () => {
    using context = openContext();
    using buffer = await context.hostBuffer(bytes);
    assert.equal(buffer.address % 4096n, 0n);
    const view = buffer.view();
    assert.equal(view.length, bytes);
    assert.ok(view.every((byte) => byte === 0));
    view.fill(1);
    using other = await context.hostBuffer(bytes);
    assert.ok(other.view().every((byte) => byte === 0));
  });
}

for (const bytes of [2 ** 41, 2 ** 52]) {
  Deno.test(`hostBuffer() and deviceBuffer() refuse ${bytes} bytes without harm`, async () => {
    using context = openContext();
    await assert.rejects(context.hostBuffer(bytes), native(AIRK_OUT_OF_MEMORY, new RegExp(`${bytes} bytes of host memory`)));
    assert.throws(() => context.deviceBuffer(bytes), native(AIRK_OUT_OF_MEMORY, new RegExp(`${bytes} bytes of device memory`)));
    // Not sticky.
    using _ = await context.hostBuffer(10);
  });
}

Deno.test("hostBuffer() leaves the event loop free while it touches memory", async () => {
  using context = openContext();
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  using buffer = await context.hostBuffer(256 << 20);
  clearInterval(timer);
  assert.ok(turns > 0 && buffer.bytes === 256 << 20, `${turns} turns`);
});

Deno.test("hostBuffer() refuses 0 bytes", async () => {
  using context = openContext();
  await assert.rejects(context.hostBuffer(0), native(AIRK_INVALID, /0 bytes asked for, required is 1 or more/));
});

Deno.test("device_free() refuses an address that was not reserved", () => {
  using context = openContext();
  assert.equal(context.library.symbols.airk_device_free(context.handle, 0x1000n), AIRK_INVALID);
  assert.equal(context.library.symbols.airk_device_free(context.handle, 0n), 0);
});

Deno.test("A stream runs its operations in order", async () => {
  using context = openContext();
  using arena = new Arena(context);
  const count = 20_001, x = arena.f32(new Float32Array(count).fill(1), "x"), y = arena.f32(new Float32Array(count), "y");
  await arena.run((ops) => {
    // Doubling and adding in turn gives another number in any other order.
    for (let i = 0; i < 8; i++) {
      ops.add(y.address, y.address, count);
      ops.add(y.address, x.address, count);
    }
    ops.copyOnDevice(x.address, y.address, count * 4);
    ops.fill(y.address, 0, count * 4);
  });
  assert.ok(x.data.every((value) => value === 255));
  assert.ok(y.data.every((value) => value === 0));
});

Deno.test("copyToDevice(), copyToHost() and fill() move exactly their bytes", async () => {
  using context = openContext();
  using host = await context.hostBuffer(300);
  using device = context.deviceBuffer(300);
  using stream = context.stream();
  const ops = new Ops(stream);
  host.view().set(Uint8Array.from({ length: 300 }, (_, i) => i));
  ops.fill(device.address, 0xee, 300);
  ops.copyToDevice(device.address + 3n, host.address + 1n, 255);
  ops.copyToHost(host.address, device.address, 300);
  await stream.synchronize();
  assert.deepEqual(
    [...host.view()],
    Array.from({ length: 300 }, (_, i) => i >= 3 && i < 258 ? (i - 2) & 255 : 0xee),
  );
});

Deno.test("Events order work across streams", async () => {
  using context = openContext();
  using arena = new Arena(context);
  using second = context.stream();
  using there = context.event();
  using back = context.event();
  const count = 5000, x = arena.f32(new Float32Array(count).fill(1), "x");
  const others = new Ops(second);
  await arena.run((ops) => {
    for (let i = 0; i < 50; i++) {
      ops.add(x.address, x.address, i % 5 ? 1 : count);
      there.record(arena.stream);
      second.wait(there);
      others.fill(x.address + 4n, 0, 4 * (count - 1));
      back.record(second);
      arena.stream.wait(back);
    }
  });
  assert.equal(x.data[0], Math.fround(2 ** 50));
  assert.ok(x.data.subarray(1).every((value) => value === 0));
});

Deno.test("An event that never was recorded is reached", async () => {
  using context = openContext();
  using event = context.event();
  using stream = context.stream();
  assert.equal(event.query(), true);
  await event.synchronize();
  stream.wait(event);
  await stream.synchronize();
  assert.throws(() => event.elapsedMs(event), native(AIRK_INVALID, /not reached, both must be/));
});

Deno.test("elapsedMs() measures the work between two events", async () => {
  using context = openContext();
  using arena = new Arena(context, 40 << 20);
  using start = context.event();
  using stop = context.event();
  const count = 4 << 20, x = arena.f32(new Float32Array(count), "x");
  const began = performance.now();
  await arena.run((ops) => {
    start.record(arena.stream);
    for (let i = 0; i < 4; i++) ops.add(x.address, x.address, count);
    stop.record(arena.stream);
  });
  await stop.synchronize();
  assert.equal(stop.query(), true);
  const ms = start.elapsedMs(stop);
  assert.ok(ms > 0 && ms <= performance.now() - began, `${ms} ms`);
});

Deno.test("An error of a running operation is sticky and skips what follows", async () => {
  using context = openContext();
  using arena = new Arena(context);
  using event = context.event();
  const x = arena.f32([1, 2, 3], "x"), ids = arena.i32([7], "ids"), y = arena.f32(3, "y");
  const text = /ids\[0\] is 7, required is 0 to 0/;
  await arena.run(() => {});
  const ops = new Ops(arena.stream);
  ops.gatherRows(y.address, x.address, ids.address, 1, 1, 3);
  ops.fill(x.address, 0, 12);
  event.record(arena.stream);
  await assert.rejects(arena.stream.synchronize(), native(AIRK_INVALID, text));
  await assert.rejects(event.synchronize(), native(AIRK_INVALID, text));
  assert.throws(() => event.query(), native(AIRK_INVALID, text));
  // Another complaint in between does not replace the text of the first.
  await assert.rejects(context.hostBuffer(0), native(AIRK_INVALID, /0 bytes/));
  await assert.rejects(arena.stream.synchronize(), native(AIRK_INVALID, text));
  using other = context.stream();
  await assert.rejects(other.synchronize(), native(AIRK_INVALID, text));
  if (context.description.unifiedMemory) assert.deepEqual([...x.data], [1, 2, 3]);
  using fresh = openContext();
  using _ = await fresh.hostBuffer(1);
});

Deno.test("cancel() skips queued work, says so once, and is not sticky", async () => {
  using context = openContext();
  using arena = new Arena(context);
  using event = context.event();
  const x = arena.f32([1, 2, 3], "x");
  const ops = new Ops(arena.stream);
  context.cancel(true);
  ops.fill(x.address, 0, 12);
  event.record(arena.stream);
  await assert.rejects(event.synchronize(), native(AIRK_CANCELLED, /cancelled/));
  context.cancel(false);
  await assert.rejects(arena.stream.synchronize(), native(AIRK_CANCELLED, /cancelled/));
  await arena.stream.synchronize();
  event.record(arena.stream);
  await event.synchronize();
  if (context.description.unifiedMemory) assert.deepEqual([...x.data], [1, 2, 3]);
  await arena.run((ops) => ops.add(x.address, x.address, 3));
  assert.deepEqual([...x.data], [2, 4, 6]);
});

Deno.test("A context may be destroyed with streams, events and memory alive", () => {
  const context = openContext();
  const { symbols } = context.library, handle = context.handle;
  const out = new BigUint64Array(1);
  for (let i = 0; i < 3; i++) {
    assert.equal(symbols.airk_stream_create(handle, out), 0);
    const stream = Deno.UnsafePointer.create(out[0]);
    assert.equal(symbols.airk_event_create(handle, out), 0);
    const event = Deno.UnsafePointer.create(out[0]);
    assert.equal(symbols.airk_device_alloc(handle, 1n << 20n, out), 0);
    for (let j = 0; j < 100; j++) assert.equal(symbols.airk_fill(stream, out[0], j, 1n << 20n), 0);
    assert.equal(symbols.airk_event_record(event, stream), 0);
  }
  context[Symbol.dispose]();
  symbols.airk_stream_destroy(null);
  symbols.airk_event_destroy(null);
  symbols.airk_context_destroy(null);
});

Deno.test("Many streams at once each finish their own work", async () => {
  using context = openContext({ threads: 4 });
  const arenas = Array.from({ length: 6 }, () => new Arena(context, 4 << 20));
  try {
    const count = 50_000;
    const tensors = arenas.map((arena) => arena.f32(new Float32Array(count).fill(1), "x"));
    await Promise.all(arenas.map((arena, i) =>
      arena.run((ops) => {
        for (let j = 0; j <= i; j++) ops.add(tensors[i].address, tensors[i].address, count);
      })
    ));
    for (const [i, tensor] of tensors.entries()) assert.ok(tensor.data.every((value) => value === 2 ** (i + 1)), `stream ${i}`);
  } finally {
    for (const arena of arenas) arena[Symbol.dispose]();
  }
});

const A = 4096n;
const HUGE = 2 ** 62;
const attention = {
  kCache: A,
  vCache: A,
  cacheType: AIRK_F16,
  sequences: A,
  sequenceCount: 1,
  pageTable: A,
  mask: 0n,
  tokens: 1,
  heads: 6,
  kvHeads: 2,
  headDim: 4,
  valueDim: 4,
  pageTokens: 16,
  contextTokens: 1,
  scale: 1,
};

const rope = { stride: 8, heads: 1, headDim: 8, first: 0, rotaryDim: 8, interleaved: false };

// None of these is enqueued, so that the addresses are never used.
const REFUSED: [string, (ops: Ops) => void, RegExp][] = [
  ["rmsnorm() without x", (ops) => ops.rmsnorm(A, 0n, A, 1, 1, 0), /Cannot run rmsnorm: `x` is null/],
  ["layernorm() of no columns", (ops) => ops.layernorm(A, A, A, A, 1, 0, 0), /cols is 0, required is at least 1/],
  ["layernorm() of no weights", (ops) => ops.layernorm(A, A, A, A, 1, 1, 0, 0), /weight_rows is 0, required is at least 1/],
  ["layernorm() with eps NaN", (ops) => ops.layernorm(A, A, A, A, 1, 1, NaN), /eps is -?nan, required is at least 0/],
  ["rmsnorm() at an odd address", (ops) => ops.rmsnorm(A, A + 2n, A, 1, 1, 0), /`x` is at 0x1002, required is a multiple of 4/],
  ["rmsnorm() of no columns", (ops) => ops.rmsnorm(A, A, A, 1, 0, 0), /cols is 0, required is at least 1/],
  ["rmsnorm() of too many elements", (ops) => ops.rmsnorm(A, A, A, HUGE, 4, 0), /shape of `x` overflows/],
  ["rmsnorm() with a negative eps", (ops) => ops.rmsnorm(A, A, A, 1, 1, -1), /eps is -1, required is at least 0/],
  [
    "rope() of an odd rotaryDim",
    (ops) => ops.rope(A, A, A, 1, { ...rope, rotaryDim: 3 }),
    /rotary_dim is 3, required is an even number/,
  ],
  [
    "rope() of too large a rotaryDim",
    (ops) => ops.rope(A, A, A, 1, { ...rope, rotaryDim: 10 }),
    /rotary_dim is 10, required is at most 8/,
  ],
  ["rope() without cos", (ops) => ops.rope(A, 0n, A, 1, rope), /`cos` is null/],
  [
    "kvAppend() of bf16",
    (ops) => ops.kvAppend({ ...attention, cacheType: 2 }, A, A, A, 1),
    /cache_type is 2, required is 0 \(f32\)/,
  ],
  ["kvAppend() of empty pages", (ops) => ops.kvAppend({ ...attention, pageTokens: 0 }, A, A, A, 1), /page_tokens is 0/],
  [
    "attention() of uneven groups",
    (ops) => ops.attention(A, A, { ...attention, kvHeads: 4 }),
    /heads is 6.*multiple of kv_heads, 4/,
  ],
  ["attention() of no key heads", (ops) => ops.attention(A, A, { ...attention, kvHeads: 0 }), /kv_heads is 0/],
  ["attention() of bf16", (ops) => ops.attention(A, A, { ...attention, cacheType: 2 }), /cache_type is 2/],
  ["attention() of empty pages", (ops) => ops.attention(A, A, { ...attention, pageTokens: 0 }), /page_tokens is 0/],
  ["attention() without pages", (ops) => ops.attention(A, A, { ...attention, pageTable: 0n }), /`page_table` is null/],
  ["attention() with scale NaN", (ops) => ops.attention(A, A, { ...attention, scale: NaN }), /scale is -?nan/],
  ["gated() without gate", (ops) => ops.gated(A, 0n, A, 1, "silu"), /`gate` is null/],
  ["clamp() to nothing", (ops) => ops.clamp(A, A, 1, 0), /limit is 0, required is above 0/],
  ["clamp() to NaN", (ops) => ops.clamp(A, A, 1, NaN), /limit is -?nan, required is above 0/],
  ["xielu() without eps", (ops) => ops.xielu(A, A, { alphaP: A, alphaN: A, beta: A, eps: 0n }, 1), /`eps` is null/],
  ["add() of too many elements", (ops) => ops.add(A, A, HUGE), /shape of `y` overflows/],
  ["gatherRows() of no rows", (ops) => ops.gatherRows(A, A, A, 1, 0, 1), /rows is 0/],
  ["argmax() of no columns", (ops) => ops.argmax(A, A, 1, 0), /cols is 0/],
  ["topK() of k=0", (ops) => ops.topK(A, A, A, 1, 8, 0), /k is 0, required is at least 1/],
  ["topK() of k > cols", (ops) => ops.topK(A, A, A, 1, 8, 9), /k is 9, required is at most 8/],
  ["topK() of k > 1024", (ops) => ops.topK(A, A, A, 1, 8000, 1025), /k is 1025, required is at most 1024/],
  ["copyToDevice() from null", (ops) => ops.copyToDevice(A, 0n, 8), /`from` is null, required are 8 bytes/],
  ["fill() of null", (ops) => ops.fill(0n, 0, 8), /`to` is null/],
];

for (const [what, call, message] of REFUSED) {
  Deno.test(`${what} is refused at the call`, async () => {
    using context = openContext({ threads: 1 });
    using stream = context.stream();
    assert.throws(() => call(new Ops(stream)), native(AIRK_INVALID, message));
    await stream.synchronize();
  });
}

Deno.test("Operations on nothing do nothing", async () => {
  using context = openContext({ threads: 1 });
  using stream = context.stream();
  const ops = new Ops(stream);
  ops.rmsnorm(0n, 0n, 0n, 0, 4, 0);
  ops.layernorm(0n, 0n, 0n, 0n, 0, 4, 0);
  ops.rope(0n, 0n, 0n, 0, rope);
  ops.kvAppend({ ...attention, kCache: 0n, vCache: 0n }, 0n, 0n, 0n, 0);
  ops.attention(0n, 0n, { ...attention, tokens: 0 });
  ops.gated(0n, 0n, 0n, 0, "gelu");
  ops.add(0n, 0n, 0);
  ops.scale(0n, 0n, 0, 1);
  ops.clamp(0n, 0n, 0, 1);
  ops.xielu(0n, 0n, { alphaP: 0n, alphaN: 0n, beta: 0n, eps: 0n }, 0);
  ops.copy2d(0n, 1, 0n, 1, 0, 1);
  ops.scatterAdd(0n, 0n, 0n, 0n, 0, 1, 1);
  ops.gatherRows(0n, 0n, 0n, 0, 1, 1);
  ops.argmax(0n, 0n, 0, 1);
  ops.topK(0n, 0n, 0n, 0, 1, 1);
  ops.copyOnDevice(0n, 0n, 0);
  ops.fill(0n, 0, 0);
  await stream.synchronize();
});

Deno.test("Context refuses use after its disposal", () => {
  const context = openContext({ threads: 1 });
  context[Symbol.dispose]();
  assert.throws(() => context.stream(), NativeError);
  assert.ok(context instanceof Context);
});
