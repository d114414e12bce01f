import assert from "node:assert/strict";
import { truncateSync } from "node:fs";
import { join } from "node:path";
import { AirkernError, CancelledError, FormatError } from "../../lib/errors.ts";
import { Context, type Event, type HostBuffer, type Stream } from "../../lib/ffi/context.ts";
import { Ops } from "../../lib/ffi/ops.ts";
import { spreadResident } from "../../lib/memory/planner.ts";
import { type FileIo, nodeFileIo } from "../../lib/stream/direct_file.ts";
import { Prefetcher, type PrefetcherOptions } from "../../lib/stream/prefetcher.ts";
import { Transfer } from "../../lib/stream/transfer.ts";
import { random } from "../random.ts";
import { type SyntheticShards, writeSyntheticShards } from "./synthetic_shards.ts";

const context = Context.open({ threads: 1 });
const MiB = 2 ** 20;

/** Largest extent in tests: 16 blocks of 4096 bytes. */
const LARGEST = 16 * 4096;

function small(seed = 6): SyntheticShards {
  return writeSyntheticShards({ seed, files: 3, extentsPerFile: 8, maxExtentBlocks: 16 });
}

function options(shards: SyntheticShards, stream: Stream, residentBytes = 0, slotBytes = 2 * LARGEST): PrefetcherOptions {
  const { path, manifest, tape } = shards;
  const plan = {
    ...spreadResident(tape, residentBytes),
    ...{ pinned: tape.map(() => false), pinnedBytes: 0, slotBytes, deviceSlotBytes: 0 },
  };
  return { path, manifest, tape, plan, transfer: new Transfer(context, stream) };
}

/** Stands for a computation: copies each extent out, in stream order and, where asked, long after it was enqueued. */
class Consumer implements AsyncDisposable {
  readonly #captured: HostBuffer;
  readonly #ballast: HostBuffer;
  readonly #ops: Ops;
  private constructor(
    readonly shards: SyntheticShards,
    readonly stream: Stream,
    readonly slowBytes: number,
    readonly leadCopies: number,
    captured: HostBuffer,
    ballast: HostBuffer,
  ) {
    this.#captured = captured;
    this.#ballast = ballast;
    this.#ops = new Ops(stream);
  }

  /** With `slowBytes` every extent is preceded by a copy of so many bytes, with `leadCopies` the first one by that many of them. */
  static async open(shards: SyntheticShards, stream: Stream, slowBytes = 0, leadCopies = 0): Promise<Consumer> {
    const captured = await context.hostBuffer(shards.tapeBytes);
    return new Consumer(shards, stream, slowBytes, leadCopies, captured, await context.hostBuffer(Math.max(4096, 2 * slowBytes)));
  }

  /** Runs positions `from` to `to` of a pass. */
  async consume(prefetcher: Prefetcher, from = 0, to = this.shards.tape.length): Promise<void> {
    let offset = BigInt(this.shards.tape.slice(0, from).reduce((sum, extent) => sum + extent.paddedBytes, 0));
    for (let position = from; position < to; position++) {
      const { paddedBytes } = this.shards.tape[position];
      const address = await prefetcher.acquire(position);
      const ballast = this.#ballast.address;
      let copies = this.slowBytes === 0 ? 0 : position === 0 ? 1 + this.leadCopies : 1;
      while (copies-- > 0) this.#ops.copyOnDevice(ballast + BigInt(this.slowBytes), ballast, this.slowBytes);
      this.#ops.copyOnDevice(this.#captured.address + offset, address, paddedBytes);
      prefetcher.release(position);
      offset += BigInt(paddedBytes);
    }
  }

  /** Returns how many extents the computation saw with other content than the file's, and forgets them. */
  async wrongExtents(): Promise<number> {
    await this.stream.synchronize();
    let offset = 0, wrong = 0;
    for (const content of this.shards.contents) {
      const seen = this.#captured.view(offset, content.length);
      if (!content.every((byte, i) => byte === seen[i])) wrong++;
      offset += content.length;
    }
    this.#captured.view().fill(0);
    return wrong;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What is queued still writes here.
    await this.stream.synchronize();
    this.#captured[Symbol.dispose]();
    this.#ballast[Symbol.dispose]();
  }
}

/** Reads that wait until they are let go. */
class GatedIo implements FileIo {
  open = nodeFileIo.open;
  close = nodeFileIo.close;
  waiting: PromiseWithResolvers<void>[] = [];
  closed = true;
  inFlight = 0;
  async read(fd: number, target: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    this.inFlight++;
    if (this.closed) {
      const gate = Promise.withResolvers<void>();
      this.waiting.push(gate);
      await gate.promise;
    }
    const count = await nodeFileIo.read(fd, target, position);
    this.inFlight--;
    return count;
  }
  letGo(): void {
    this.closed = false;
    for (const gate of this.waiting.splice(0)) gate.resolve();
  }
}

async function settled(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 2));
  assert.ok(condition());
}

Deno.test("Prefetcher delivers every extent intact in order, over random models, budgets and depths", async () => {
  const next = random(7);
  for (let round = 0; round < 12; round++) {
    using shards = writeSyntheticShards({
      seed: round,
      files: 1 + Math.floor(next() * 4),
      extentsPerFile: 1 + Math.floor(next() * 12),
      maxExtentBlocks: 16,
    });
    using stream = context.stream();
    const residentBytes = Math.floor(next() * shards.tapeBytes);
    const slotBytes = LARGEST + 4096 * Math.floor(next() * 48);
    await using prefetcher = await Prefetcher.open({
      ...options(shards, stream, residentBytes, slotBytes),
      depth: 1 + Math.floor(next() * 6),
      pieceBytes: 4096 * (1 + Math.floor(next() * 20)),
    });
    await using consumer = await Consumer.open(shards, stream, next() < 0.5 ? 2 * MiB : 0);
    const streamedBytes = shards.tapeBytes - spreadResident(shards.tape, residentBytes).residentBytes;
    for (let pass = 0; pass < 4; pass++) {
      const expectAnother = next() < 0.5 && pass < 3;
      prefetcher.beginPass({ expectAnother });
      await consumer.consume(prefetcher);
      prefetcher.endPass({ expectAnother });
      assert.equal(await consumer.wrongExtents(), 0, `round ${round}, pass ${pass}`);
    }
    assert.ok(prefetcher.slotPeakBytes <= slotBytes);
    assert.equal(prefetcher.statistics.bytesRead, 4 * streamedBytes, "no extent is read twice or for nothing");
  }
});

Deno.test("Prefetcher does not reuse memory that a slow computation still has to read", async () => {
  using shards = small();
  using stream = context.stream();
  await using prefetcher = await Prefetcher.open(options(shards, stream, shards.tapeBytes / 4));
  await using consumer = await Consumer.open(shards, stream, 16 * MiB);
  for (let pass = 0; pass < 2; pass++) {
    prefetcher.beginPass({ expectAnother: true });
    await consumer.consume(prefetcher);
    prefetcher.endPass({ expectAnother: true });
  }
  // Looked at only once, after the second pass, so that the first has no pause in which it could catch up.
  assert.equal(await consumer.wrongExtents(), 0);
});

Deno.test("Consumer catches a prefetcher that reuses memory before the computation has read it", async () => {
  class EagerTransfer extends Transfer {
    override isReached(_event: Event): boolean {
      return true;
    }
  }
  using shards = small();
  using stream = context.stream();
  using transfer = new EagerTransfer(context, stream);
  await using prefetcher = await Prefetcher.open({ ...options(shards, stream), transfer });
  await using consumer = await Consumer.open(shards, stream, 16 * MiB, 60);
  prefetcher.beginPass({ expectAnother: false });
  await consumer.consume(prefetcher);
  prefetcher.endPass({ expectAnother: false });
  const wrong = await consumer.wrongExtents();
  assert.ok(wrong > shards.tape.length / 4, `${wrong} extents`);
});

Deno.test("Prefetcher with all extents resident answers at once and reads nothing more", async () => {
  using shards = small();
  using stream = context.stream();
  await using prefetcher = await Prefetcher.open(options(shards, stream, shards.tapeBytes, 0));
  await using consumer = await Consumer.open(shards, stream);
  prefetcher.beginPass({ expectAnother: true });
  for (let position = 0; position < shards.tape.length; position++) {
    assert.equal(typeof prefetcher.acquire(position), "bigint");
    prefetcher.release(position);
  }
  prefetcher.endPass({ expectAnother: true });
  prefetcher.beginPass({ expectAnother: false });
  await consumer.consume(prefetcher);
  const pass = prefetcher.endPass({ expectAnother: false });
  assert.equal(await consumer.wrongExtents(), 0);
  assert.deepEqual(pass, { bytesRead: 0, readBusyMs: 0, stallMs: 0, stalls: 0 });
});

Deno.test("Prefetcher runs on into an expected pass, as far as the slots hold, and into no other", async () => {
  using shards = small();
  using stream = context.stream();
  await using prefetcher = await Prefetcher.open(options(shards, stream, 0, 4 * LARGEST));
  await using consumer = await Consumer.open(shards, stream);
  prefetcher.beginPass({ expectAnother: false });
  await consumer.consume(prefetcher);
  prefetcher.endPass({ expectAnother: false });
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(prefetcher.statistics.bytesRead, shards.tapeBytes);

  prefetcher.expectPass(true);
  await settled(() => prefetcher.statistics.bytesRead > shards.tapeBytes + 2 * LARGEST);
  await new Promise((resolve) => setTimeout(resolve, 30));
  const ahead = prefetcher.statistics.bytesRead - shards.tapeBytes;
  assert.ok(ahead <= 4 * LARGEST);
  prefetcher.beginPass({ expectAnother: false });
  assert.equal(typeof prefetcher.acquire(0), "bigint", "it is there already");
  prefetcher.release(0);
  await consumer.consume(prefetcher, 1);
  const pass = prefetcher.endPass({ expectAnother: false });
  assert.equal(pass.bytesRead, shards.tapeBytes - ahead, "what was read ahead is not read again");
});

Deno.test("Prefetcher does not read the end of the tape for passes that do not use it, unless it has begun already", async () => {
  const next = random(5);
  for (let round = 0; round < 8; round++) {
    using shards = small(round);
    using stream = context.stream();
    const residentBytes = Math.floor(next() * shards.tapeBytes / 2), slotBytes = LARGEST * (1 + Math.floor(next() * 30));
    await using prefetcher = await Prefetcher.open(options(shards, stream, residentBytes, slotBytes));
    await using consumer = await Consumer.open(shards, stream);
    const { resident } = spreadResident(shards.tape, residentBytes);
    const streamedBytes = (extents: number) =>
      shards.tape.reduce((sum, { paddedBytes }, i) => sum + (i < extents && !resident[i] ? paddedBytes : 0), 0);
    let expectedBytes = 0;
    for (let pass = 0; pass < 8; pass++) {
      const usedExtents = pass === 7 || next() < 0.3 ? shards.tape.length : 1 + Math.floor(next() * shards.tape.length);
      expectedBytes += streamedBytes(usedExtents);
      // Without reading ahead nothing has begun when a pass says what it uses.
      prefetcher.beginPass({ expectAnother: round % 2 === 1 && pass < 7, usedExtents });
      await consumer.consume(prefetcher, 0, usedExtents);
      await prefetcher.skipRest();
      prefetcher.endPass({ expectAnother: round % 2 === 1 && pass < 7 });
      const wrong = await consumer.wrongExtents();
      assert.ok(wrong <= shards.tape.length - usedExtents, `round ${round}, pass ${pass}`);
    }
    const { bytesRead } = prefetcher.statistics;
    if (round % 2 === 0) assert.equal(bytesRead, expectedBytes);
    else {
      const most = 8 * streamedBytes(shards.tape.length);
      assert.ok(bytesRead >= expectedBytes && bytesRead <= most, `${bytesRead} bytes read, ${expectedBytes} to ${most} expected`);
    }
    prefetcher.expectPass(false);
  }
});

Deno.test("Prefetcher counts bytes, busy time and stalls of a pass", async () => {
  using shards = small();
  using stream = context.stream();
  const io = new GatedIo();
  await using prefetcher = await Prefetcher.open({ ...options(shards, stream), io });
  await using consumer = await Consumer.open(shards, stream);
  prefetcher.beginPass({ expectAnother: false });
  const consumed = consumer.consume(prefetcher);
  setTimeout(() => io.letGo(), 40);
  await consumed;
  const pass = prefetcher.endPass({ expectAnother: false });
  assert.equal(pass.bytesRead, shards.tapeBytes);
  assert.ok(pass.stalls >= 1 && pass.stalls <= shards.tape.length);
  assert.ok(pass.stallMs >= 35 && pass.readBusyMs >= 35, `${pass.stallMs} ms stalled, ${pass.readBusyMs} ms busy`);
  assert.deepEqual(pass, prefetcher.statistics);
});

Deno.test("Prefetcher reports a file that ends too early, to the waiting acquire and to all later ones", async () => {
  using shards = small();
  using stream = context.stream();
  await using prefetcher = await Prefetcher.open(options(shards, stream));
  await using consumer = await Consumer.open(shards, stream);
  const file = shards.manifest.files[1];
  truncateSync(join(shards.path, file.name), file.bytes - 4096);
  prefetcher.beginPass({ expectAnother: true });
  const truncated = (error: unknown) =>
    error instanceof FormatError && error.message.includes(`${file.name}: it ends at byte ${file.bytes - 4096}`);
  await assert.rejects(consumer.consume(prefetcher), truncated);
  assert.throws(() => prefetcher.acquire(0), truncated);
  await prefetcher.abortPass();
  prefetcher.beginPass({ expectAnother: false });
  assert.throws(() => prefetcher.acquire(0), truncated);
});

Deno.test("Prefetcher reports a read error with file and position", async () => {
  using shards = small();
  using stream = context.stream();
  let reads = 0;
  const read: FileIo["read"] = (fd, target, position) =>
    ++reads === 10
      ? Promise.reject(Object.assign(new Error("EIO: i/o error, read"), { code: "EIO" }))
      : nodeFileIo.read(fd, target, position);
  await using prefetcher = await Prefetcher.open({ ...options(shards, stream), io: { ...nodeFileIo, read } });
  await using consumer = await Consumer.open(shards, stream);
  prefetcher.beginPass({ expectAnother: true });
  await assert.rejects(
    consumer.consume(prefetcher),
    (error) =>
      error instanceof AirkernError && /^Cannot read .*layer-\d\.safetensors: \d+ bytes at byte \d+: EIO/.test(error.message),
  );
});

Deno.test("Prefetcher reads through the page cache where direct reads are refused", async () => {
  using shards = small();
  using stream = context.stream();
  const open: FileIo["open"] = (path, flags) => {
    if (flags !== 0) throw Object.assign(new Error("EINVAL"), { code: "EINVAL" });
    return nodeFileIo.open(path, flags);
  };
  await using prefetcher = await Prefetcher.open({ ...options(shards, stream, LARGEST), io: { ...nodeFileIo, open } });
  await using consumer = await Consumer.open(shards, stream);
  prefetcher.beginPass({ expectAnother: false });
  await consumer.consume(prefetcher);
  prefetcher.endPass({ expectAnother: false });
  assert.equal(await consumer.wrongExtents(), 0);
  assert.equal(prefetcher.isDirect, false);
});

Deno.test("Prefetcher.abortPass() ends a waiting acquire, and the next pass begins at 0 intact", async () => {
  using shards = small();
  using stream = context.stream();
  await using consumer = await Consumer.open(shards, stream, 4 * MiB);
  // Far enough from the end that the slots cannot hold the rest already.
  for (const stopAt of [0, 1, 9, 14]) {
    const io = new GatedIo();
    io.closed = false;
    await using prefetcher = await Prefetcher.open({ ...options(shards, stream, LARGEST), io });
    prefetcher.beginPass({ expectAnother: true });
    await consumer.consume(prefetcher, 0, stopAt);
    io.closed = true;
    const rest = consumer.consume(prefetcher, stopAt);
    await settled(() => io.waiting.length > 0);
    const aborted = [prefetcher.abortPass(), prefetcher.abortPass()];
    await assert.rejects(rest, CancelledError);
    assert.throws(() => prefetcher.beginPass({ expectAnother: false }), { message: /another is under way/ });
    io.letGo();
    await Promise.all(aborted);
    assert.equal(io.inFlight, 0);
    await consumer.wrongExtents();
    for (let pass = 0; pass < 2; pass++) {
      prefetcher.beginPass({ expectAnother: pass === 0 });
      await consumer.consume(prefetcher);
      prefetcher.endPass({ expectAnother: pass === 0 });
      assert.equal(await consumer.wrongExtents(), 0, `stopped at ${stopAt}, pass ${pass}`);
    }
  }
});

Deno.test("Prefetcher.abortPass() gives up an extent that is held, and does nothing between passes", async () => {
  using shards = small();
  using stream = context.stream();
  await using prefetcher = await Prefetcher.open(options(shards, stream));
  await using consumer = await Consumer.open(shards, stream);
  await prefetcher.abortPass();
  prefetcher.beginPass({ expectAnother: false });
  await prefetcher.acquire(0);
  await prefetcher.abortPass();
  prefetcher.beginPass({ expectAnother: true });
  await consumer.consume(prefetcher);
  prefetcher.endPass({ expectAnother: true });
  await prefetcher.abortPass();
  prefetcher.beginPass({ expectAnother: false });
  await consumer.consume(prefetcher);
  prefetcher.endPass({ expectAnother: false });
  assert.equal(await consumer.wrongExtents(), 0);
});

Deno.test("Prefetcher goes on after the context's work was cancelled", async () => {
  using shards = small();
  using stream = context.stream();
  await using prefetcher = await Prefetcher.open(options(shards, stream));
  await using consumer = await Consumer.open(shards, stream, 4 * MiB);
  prefetcher.beginPass({ expectAnother: true });
  await consumer.consume(prefetcher, 0, 10);
  context.cancel(true);
  await consumer.consume(prefetcher, 10, 20);
  await prefetcher.abortPass();
  context.cancel(false);
  await stream.synchronize().catch((error: Error) => assert.match(error.message, /cancelled/));
  prefetcher.beginPass({ expectAnother: false });
  await consumer.consume(prefetcher);
  prefetcher.endPass({ expectAnother: false });
  assert.equal(await consumer.wrongExtents(), 0);
});

Deno.test("Prefetcher frees its memory only after reads in flight, and ends a waiting acquire", async () => {
  using shards = small();
  using stream = context.stream();
  const io = new GatedIo();
  const prefetcher = await Prefetcher.open({ ...options(shards, stream), io });
  prefetcher.beginPass({ expectAnother: true });
  const acquired = Promise.resolve(prefetcher.acquire(0));
  await settled(() => io.inFlight > 0);
  let disposed = false;
  const dispose = prefetcher[Symbol.asyncDispose]().then(() => disposed = true);
  await assert.rejects(acquired, { name: "CancelledError", message: /closed/ });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(disposed, false);
  io.letGo();
  await dispose;
  assert.equal(io.inFlight, 0);
  assert.throws(() => prefetcher.acquire(0), { message: /closed/ });
  await prefetcher[Symbol.asyncDispose]();
});

Deno.test("Prefetcher.open() reports a resident extent that cannot be read, and stops where its signal says so", async () => {
  using shards = small();
  using stream = context.stream();
  const all = options(shards, stream, shards.tapeBytes, 0);
  await assert.rejects(Prefetcher.open({ ...all, signal: AbortSignal.abort() }), CancelledError);
  const file = shards.manifest.files[2];
  truncateSync(join(shards.path, file.name), 8192);
  await assert.rejects(Prefetcher.open(all), (error) => error instanceof FormatError && error.message.includes(file.name));
});

Deno.test("Prefetcher refuses a plan whose slots are too small, and calls out of order", async () => {
  using shards = small();
  using stream = context.stream();
  const largest = shards.tape.reduce((max, extent) => Math.max(max, extent.paddedBytes), 0);
  await assert.rejects(Prefetcher.open(options(shards, stream, 0, largest - 4096)), { message: /the slots have/ });
  await using prefetcher = await Prefetcher.open(options(shards, stream, 0, largest));
  assert.throws(() => prefetcher.acquire(0), { message: "Cannot acquire extent 0: no pass is under way" });
  prefetcher.beginPass({ expectAnother: false });
  assert.throws(() => prefetcher.beginPass({ expectAnother: false }), { message: /another is under way/ });
  assert.throws(() => prefetcher.acquire(1), { message: "Cannot acquire extent 1: the pass is at extent 0" });
  assert.throws(() => prefetcher.release(0), { message: /Cannot release extent 0/ });
  await prefetcher.acquire(0);
  assert.throws(() => prefetcher.acquire(0), { message: /Cannot acquire extent 0/ });
  prefetcher.release(0);
  assert.throws(() => prefetcher.release(0), { message: /Cannot release extent 0: the pass is at extent 1/ });
  assert.throws(() => prefetcher.endPass({ expectAnother: false }), { message: /Cannot end the pass: the pass is at extent 1/ });
});
