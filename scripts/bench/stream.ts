/**
 * Compares the prefetch loop with a bare loop of direct reads over the same files, interleaved, since a disk's speed drifts.
 *
 *   deno run -A scripts/bench/stream.ts [SHARD_DIRECTORY] [--dir FOLDER] [--bytes 3GiB] [--extent 4MiB] [--slots 64MiB] [--resident 0.2]
 *       [--depth 8] [--piece 1MiB] [--rounds 5]
 *
 * Without a shard directory, files of random bytes are written below FOLDER (the system's folder for temporary files) and removed
 * afterwards. --extent, --slots, --depth and --piece take lists (`4MiB,8MiB`): every combination is measured. --resident is the share of the
 * tape that stays in memory; it is not read.
 */
import { randomFillSync } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { UsageError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { formatBytes, parseBytes } from "../../lib/memory/bytes.ts";
import type { TapeExtent } from "../../lib/memory/plan.ts";
import { spreadResident } from "../../lib/memory/planner.ts";
import { EXTENT_ALIGNMENT, type Manifest } from "../../lib/shard/manifest.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { measureDiskReadBytesPerSecond } from "../../lib/stream/disk.ts";
import { Prefetcher } from "../../lib/stream/prefetcher.ts";
import { Transfer } from "../../lib/stream/transfer.ts";

/** What is streamed: files, and the extents in them. */
interface Shards {
  path: string;
  manifest: Pick<Manifest, "files" | "tensors">;
}

const { values: options, positionals } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    dir: { type: "string", default: tmpdir() },
    bytes: { type: "string", default: "3GiB" },
    extent: { type: "string", default: "4MiB" },
    slots: { type: "string", default: "64MiB" },
    resident: { type: "string", default: "0.2" },
    depth: { type: "string", default: "8" },
    piece: { type: "string", default: "1MiB" },
    rounds: { type: "string", default: "5" },
  },
});

const sizes = (list: string): number[] => list.split(",").map(parseBytes);

function numbers(name: string, list: string, low: number, high: number): number[] {
  return list.split(",").map((text) => {
    const value = Number(text);
    if (!(value >= low && value <= high)) throw new UsageError(`Cannot use --${name} ${text}: required is ${low} to ${high}`);
    return value;
  });
}

/** Writes files of 256 MiB of random bytes. */
function writeFiles(path: string, totalBytes: number): Manifest["files"] {
  const block = randomFillSync(new Uint8Array(16 * 2 ** 20)), fileBytes = Math.min(256 * 2 ** 20, totalBytes);
  return Array.from({ length: Math.floor(totalBytes / fileBytes) }, (_, index) => {
    const name = `layer-${index}.safetensors`, fd = openSync(join(path, name), "w");
    let bytes = 0;
    while (bytes < fileBytes) bytes += writeSync(fd, block, 0, Math.min(block.length, fileBytes - bytes));
    closeSync(fd);
    return { name, bytes, headerBytes: 0, headerSha256: "" };
  });
}

/** Cuts files into extents of one length. */
function cutFiles(files: Manifest["files"], extentBytes: number): Manifest["tensors"] {
  const bytes = Math.ceil(extentBytes / EXTENT_ALIGNMENT) * EXTENT_ALIGNMENT;
  return files.map(({ name, bytes: fileBytes }, file) => ({
    name,
    file,
    format: "q8",
    rows: 1,
    cols: 1,
    snrDb: null,
    extents: Array.from({ length: Math.floor(fileBytes / bytes) }, (_, i) => ({
      offset: i * bytes,
      bytes,
      rows: 1,
      outliers: 0,
      sha256: "",
    })),
  }));
}

function tapeOf({ manifest }: Shards): TapeExtent[] {
  return manifest.tensors.flatMap(({ extents }, tensor) =>
    extents.map(({ bytes }, extent) => ({
      tensor,
      extent,
      paddedBytes: Math.ceil(bytes / EXTENT_ALIGNMENT) * EXTENT_ALIGNMENT,
    }))
  );
}

/** Runs passes that compute nothing, and returns bytes read a second and the share of the time in which the disk had a read. */
async function streamPasses(
  prefetcher: Prefetcher,
  extents: number,
  passes: number,
): Promise<{ bytesPerSecond: number; busy: number }> {
  const before = prefetcher.statistics, started = performance.now();
  for (let pass = 0; pass < passes; pass++) {
    prefetcher.beginPass({ expectAnother: true });
    for (let position = 0; position < extents; position++) {
      await prefetcher.acquire(position);
      prefetcher.release(position);
    }
    prefetcher.endPass({ expectAnother: true });
  }
  const after = prefetcher.statistics, elapsedMs = performance.now() - started;
  return {
    bytesPerSecond: (after.bytesRead - before.bytesRead) / elapsedMs * 1000,
    busy: (after.readBusyMs - before.readBusyMs) / elapsedMs,
  };
}

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1];
const rate = (bytesPerSecond: number): string => `${(bytesPerSecond / 1e9).toFixed(2)} GB/s`;

async function bench(shards: Shards, extent: string): Promise<void> {
  const tape = tapeOf(shards);
  const [residentShare] = numbers("resident", options.resident, 0, 0.99), [rounds] = numbers("rounds", options.rounds, 1, 1000);
  const tapeBytes = tape.reduce((sum, { paddedBytes }) => sum + paddedBytes, 0);
  const placement = spreadResident(tape, tapeBytes * residentShare);
  const files = shards.manifest.files.map(({ name, bytes }) => ({ path: join(shards.path, name), bytes }));
  using context = Context.open();
  using stream = context.stream();
  using transfer = new Transfer(context, stream);
  for (const slotBytes of sizes(options.slots)) {
    for (const depth of numbers("depth", options.depth, 1, 32)) {
      for (const pieceBytes of sizes(options.piece)) {
        await using prefetcher = await Prefetcher.open({
          ...shards,
          tape,
          plan: { ...placement, pinned: tape.map(() => false), pinnedBytes: 0, slotBytes, deviceSlotBytes: 0 },
          transfer,
          depth,
          pieceBytes,
        });
        const bare = () => measureDiskReadBytesPerSecond(context, files, { bytes: tapeBytes - placement.residentBytes });
        const streamed = [], ceilings = [await bare()], ratios = [], busy = [];
        for (let round = 0; round < rounds; round++) {
          const pass = await streamPasses(prefetcher, tape.length, 1);
          prefetcher.expectPass(false);
          ceilings.push(await bare());
          streamed.push(pass.bytesPerSecond);
          busy.push(pass.busy);
          ratios.push(pass.bytesPerSecond / ((ceilings[round] + ceilings[round + 1]) / 2));
        }
        const cells = [
          extent,
          formatBytes(slotBytes),
          String(depth),
          formatBytes(pieceBytes),
          rate(median(ceilings)),
          rate(median(streamed)),
          `${(100 * median(ratios)).toFixed(1)}%`,
          `${(100 * Math.min(...ratios)).toFixed(1)}..${(100 * Math.max(...ratios)).toFixed(1)}%`,
          `${(100 * median(busy)).toFixed(1)}%`,
        ];
        console.log(`| ${cells.join(" | ")} |`);
      }
    }
  }
}

console.log("| extents | slots | depth | piece | bare reads | prefetcher | ratio, median | ratio, range | disk busy |");
console.log("|---|---|---|---|---|---|---|---|---|");
if (positionals.length > 0) {
  const { path, manifest } = await openShards(positionals[0]);
  await bench({ path, manifest }, "as stored");
} else {
  const path = mkdtempSync(join(options.dir, "airkern-bench-"));
  try {
    const files = writeFiles(path, parseBytes(options.bytes));
    for (const extent of sizes(options.extent)) {
      await bench({ path, manifest: { files, tensors: cutFiles(files, extent) } }, formatBytes(extent));
    }
  } finally {
    rmSync(path, { recursive: true });
  }
}
