import assert from "node:assert/strict";
import { CancelledError } from "../../lib/errors.ts";
import { Context, type Event, type HostBuffer, type Stream } from "../../lib/ffi/context.ts";
import { DeviceArena } from "../../lib/ffi/device_arena.ts";
import { Ops } from "../../lib/ffi/ops.ts";
import { spreadResident } from "../../lib/memory/planner.ts";
import { type FileIo, nodeFileIo } from "../../lib/stream/direct_file.ts";
import { Prefetcher } from "../../lib/stream/prefetcher.ts";
import { Transfer } from "../../lib/stream/transfer.ts";
import { random } from "../random.ts";
import { type SyntheticShards, writeSyntheticShards } from "../stream/synthetic_shards.ts";
import { emulatedTest } from "./emulated_device.ts";

/** Largest extent: 16 blocks of 4096 bytes. */
const LARGEST = 16 * 4096;

/** Reads that come back late and in any order. */
function slowIo(seed: number): FileIo {
  const next = random(seed);
  return {
    ...nodeFileIo,
    read: async (fd, target, position) => {
      await new Promise((resolve) => setTimeout(resolve, Math.floor(next() ** 3 * 8)));
      return await nodeFileIo.read(fd, target, position);
    },
  };
}

const STREAMS = ["eager", "lazy", "random,seed=1", "random,seed=2", "random,seed=3", "random,seed=4"];

/** How a tape is divided among device memory, host memory and disk. */
interface Division {
  residentBytes: number;
  pinnedBytes: number;
  slotBytes: number;
  deviceSlotBytes: number;
}

const DISK_ALONE: Division = { residentBytes: 0, pinnedBytes: 0, slotBytes: 2 * LARGEST, deviceSlotBytes: 2 * LARGEST };

function planOf({ tape }: SyntheticShards, { residentBytes, pinnedBytes, slotBytes, deviceSlotBytes }: Division) {
  const resident = spreadResident(tape, residentBytes);
  const moving = [...tape.keys()].filter((position) => !resident.resident[position]);
  const choice = spreadResident(moving.map((position) => tape[position]), pinnedBytes);
  const pinned = tape.map(() => false);
  choice.resident.forEach((stays, i) => pinned[moving[i]] = stays);
  return { ...resident, pinned, pinnedBytes: choice.residentBytes, slotBytes, deviceSlotBytes };
}

/** A device that copies what it is given of each extent to a place of its own, from which the host then reads it. */
class Consumer implements Disposable {
  readonly #ops: Ops;
  readonly #seen;
  readonly #host: HostBuffer;

  private constructor(context: Context, readonly shards: SyntheticShards, readonly stream: Stream, host: HostBuffer) {
    this.#ops = new Ops(stream);
    this.#seen = context.deviceBuffer(shards.tapeBytes);
    this.#host = host;
  }

  static async open(context: Context, shards: SyntheticShards, stream: Stream): Promise<Consumer> {
    return new Consumer(context, shards, stream, await context.hostBuffer(shards.tapeBytes));
  }

  async pass(prefetcher: Prefetcher, from = 0, to = this.shards.tape.length): Promise<void> {
    let offset = BigInt(this.shards.tape.slice(0, from).reduce((sum, extent) => sum + extent.paddedBytes, 0));
    for (let position = from; position < to; position++) {
      const { paddedBytes } = this.shards.tape[position];
      this.#ops.copyOnDevice(this.#seen.address + offset, await prefetcher.acquire(position), paddedBytes);
      prefetcher.release(position);
      offset += BigInt(paddedBytes);
    }
  }

  /** Returns how many extents the device saw with other content than the file's, and makes it forget them. */
  async wrongExtents(extents: number = this.shards.contents.length): Promise<number> {
    this.#ops.copyToHost(this.#host.address, this.#seen.address, this.shards.tapeBytes);
    this.#ops.fill(this.#seen.address, 0, this.shards.tapeBytes);
    await this.stream.synchronize();
    let offset = 0, wrong = 0;
    for (const content of this.shards.contents.slice(0, extents)) {
      const seen = this.#host.view(offset, content.length);
      if (!content.every((byte, i) => byte === seen[i])) wrong++;
      offset += content.length;
    }
    return wrong;
  }

  [Symbol.dispose](): void {
    this.#seen[Symbol.dispose]();
    this.#host[Symbol.dispose]();
  }
}

/** Runs passes over a tape on the emulated device; returns the extents that came out wrong. */
async function wrongExtents(
  shards: SyntheticShards,
  division: Division,
  makeTransfer: (context: Context, stream: Stream) => Transfer = (context, stream) => new Transfer(context, stream),
  io?: FileIo,
): Promise<number> {
  using context = Context.open({ kind: "cuda" });
  using stream = context.stream();
  using transfer = makeTransfer(context, stream);
  const { path, manifest, tape } = shards;
  await using prefetcher = await Prefetcher.open({ path, manifest, tape, plan: planOf(shards, division), transfer, io });
  using consumer = await Consumer.open(context, shards, stream);
  let wrong = 0;
  // Some passes do not use the end of the tape.
  for (const [pass, used] of [1, 0.8, 0.6, 1, 0.9].entries()) {
    const expectAnother = pass < 4, usedExtents = Math.ceil(used * tape.length);
    prefetcher.beginPass({ expectAnother, usedExtents });
    await consumer.pass(prefetcher, 0, usedExtents);
    await prefetcher.skipRest();
    prefetcher.endPass({ expectAnother });
    wrong += await consumer.wrongExtents(usedExtents);
  }
  return wrong;
}

for (const streams of STREAMS) {
  emulatedTest(
    `Prefetcher brings every extent to a device intact, over random models and budgets, streams=${streams}`,
    async (emulated) => {
      const next = random(streams.length + streams.charCodeAt(streams.length - 1));
      for (let round = 0; round < 4; round++) {
        emulated.configure(`streams=${streams}`);
        using shards = writeSyntheticShards({
          seed: round,
          files: 3,
          extentsPerFile: 1 + Math.floor(next() * 10),
          maxExtentBlocks: 16,
        });
        const bytes = () => next() < 0.25 ? 0 : Math.floor(next() * shards.tapeBytes);
        const slots = () => LARGEST + 4096 * Math.floor(next() * 32);
        const division = { residentBytes: bytes(), pinnedBytes: bytes(), slotBytes: slots(), deviceSlotBytes: slots() };
        for (const io of [undefined, slowIo(round)]) {
          assert.equal(await wrongExtents(shards, division, undefined, io), 0, JSON.stringify(division));
        }
        emulated.assertClean(JSON.stringify(division));
      }
    },
  );
}

emulatedTest(
  "Prefetcher.open() returns only when all that stays is on the device, however few slots it passes through",
  async (emulated) => {
    for (let round = 0; round < 40; round++) {
      emulated.configure(`streams=${STREAMS[1 + round % 5]}`);
      using shards = writeSyntheticShards({ seed: round, files: 3, extentsPerFile: 20, maxExtentBlocks: 16 });
      const division = { ...DISK_ALONE, residentBytes: Infinity, slotBytes: LARGEST + 4096 * (round % 17) };
      assert.equal(await wrongExtents(shards, division, undefined, round % 2 ? undefined : slowIo(round)), 0, `round ${round}`);
    }
  },
);

/** The waits that keep the pipeline right, each left out by a transfer of its own. */
const MUTATIONS: Record<string, { division: Division; transfer: (context: Context, stream: Stream) => Transfer }> = {
  "the computation does not wait for the copy": {
    division: DISK_ALONE,
    transfer: (context, stream) =>
      new class extends Transfer {
        override computeAfter(_event: Event): void {}
      }(context, stream),
  },
  "a copy does not wait for the computation that used its slot": {
    division: { ...DISK_ALONE, pinnedBytes: Infinity },
    transfer: (context, stream) =>
      new class extends Transfer {
        override copyAfter(_event: Event): void {}
      }(context, stream),
  },
  "a read does not wait for the copy out of its slot": {
    division: DISK_ALONE,
    transfer: (context, stream) =>
      new class extends Transfer {
        override isReached(_event: Event): boolean {
          return true;
        }
      }(context, stream),
  },
  "the first pass does not wait for the weights that stay": {
    division: { ...DISK_ALONE, residentBytes: Infinity },
    transfer: (context, stream) =>
      new class extends Transfer {
        override finishCopies(): Promise<void> {
          return Promise.resolve();
        }
      }(context, stream),
  },
};

for (const [name, { division, transfer }] of Object.entries(MUTATIONS)) {
  emulatedTest(`a prefetch loop in which ${name} comes out wrong`, async (emulated) => {
    using shards = writeSyntheticShards({ seed: 6, files: 3, extentsPerFile: 8, maxExtentBlocks: 16 });
    const wrong: Record<string, number> = {};
    for (const streams of STREAMS.slice(1)) {
      emulated.configure(`streams=${streams}`);
      wrong[streams] = await wrongExtents(shards, division, transfer);
      // The same with all its waits.
      emulated.configure(`streams=${streams}`);
      assert.equal(await wrongExtents(shards, division), 0, streams);
    }
    assert.ok(Object.values(wrong).some((count) => count > 0), JSON.stringify(wrong));
  });
}

emulatedTest(
  "Prefetcher.abortPass() on a device leaves nothing behind, and the next pass begins at 0 intact",
  async (emulated) => {
    for (const streams of STREAMS) {
      emulated.configure(`streams=${streams}`);
      using shards = writeSyntheticShards({ seed: 9, files: 2, extentsPerFile: 8, maxExtentBlocks: 16 });
      {
        using context = Context.open({ kind: "cuda" });
        using arena = new DeviceArena(context, 8 * LARGEST + shards.tapeBytes);
        using stream = context.stream();
        using transfer = new Transfer(context, stream, arena);
        const { path, manifest, tape } = shards;
        const plan = planOf(shards, { ...DISK_ALONE, residentBytes: shards.tapeBytes / 4, pinnedBytes: shards.tapeBytes / 4 });
        await using prefetcher = await Prefetcher.open({ path, manifest, tape, plan, transfer });
        using consumer = await Consumer.open(context, shards, stream);
        for (const stopAt of [0, 1, 5, 11]) {
          prefetcher.beginPass({ expectAnother: true });
          await consumer.pass(prefetcher, 0, stopAt);
          const rest = consumer.pass(prefetcher, stopAt);
          const aborted = prefetcher.abortPass();
          await assert.rejects(rest, CancelledError);
          await aborted;
          await consumer.wrongExtents();
          for (let pass = 0; pass < 2; pass++) {
            prefetcher.beginPass({ expectAnother: pass === 0 });
            await consumer.pass(prefetcher);
            prefetcher.endPass({ expectAnother: pass === 0 });
            assert.equal(await consumer.wrongExtents(), 0, `${streams}: stopped at ${stopAt}, pass ${pass}`);
          }
        }
      }
      emulated.assertClean(streams);
    }
  },
);
