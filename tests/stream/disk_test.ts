import assert from "node:assert/strict";
import { join } from "node:path";
import { AirkernError, UsageError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { measureDiskReadBytesPerSecond } from "../../lib/stream/disk.ts";
import { writeSyntheticShards } from "./synthetic_shards.ts";

const context = Context.open({ threads: 1 });

Deno.test("measureDiskReadBytesPerSecond() reads all files over and over", async () => {
  using shards = writeSyntheticShards({ seed: 8, files: 3, extentsPerFile: 10, maxExtentBlocks: 30 });
  const files = shards.manifest.files.map(({ name, bytes }) => ({ path: join(shards.path, name), bytes }));
  const bytesPerSecond = await measureDiskReadBytesPerSecond(context, files, { bytes: 3 * shards.tapeBytes, pieceBytes: 65536 });
  // Any disk lies between these; a wrong unit does not.
  assert.ok(bytesPerSecond > 1e6 && bytesPerSecond < 1e12, `${bytesPerSecond}`);
});

Deno.test("measureDiskReadBytesPerSecond() reports what it cannot read", async () => {
  await assert.rejects(
    measureDiskReadBytesPerSecond(context, [{ path: "small", bytes: 4095 }], { bytes: 4096 }),
    (error) => error instanceof UsageError && /none of 1 files/.test(error.message),
  );
  await assert.rejects(
    measureDiskReadBytesPerSecond(context, [{ path: "/not/there", bytes: 4096 }], { bytes: 4096 }),
    { name: "AirkernError", message: /^Cannot open \/not\/there: ENOENT/ },
  );
  await assert.rejects(
    measureDiskReadBytesPerSecond(context, [{ path: "/not/there", bytes: 4096 }], { bytes: 4096, signal: AbortSignal.abort() }),
    (error) => error instanceof AirkernError && /cancelled/.test(error.message),
  );
});
