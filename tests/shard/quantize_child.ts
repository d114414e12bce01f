/**
 * Quantizes as a child process: `quantize_child.ts SOURCE OUT COMPRESSION [STOP_AT [RAM_BYTES]]`. Stands still at the STOP_AT-th event of progress
 * after saying so, for the test to kill it there; else prints its peak resident set in bytes.
 */
import fs from "node:fs";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import type { Compression } from "../../lib/shard/manifest.ts";

const [source, out, compression, stopAt, ramBytes] = Deno.args;
let events = 0;
await quantizeCheckpoint({
  source,
  out,
  compression: compression as Compression,
  ramBytes: ramBytes === undefined ? undefined : Number(ramBytes),
  onProgress: () => {
    if (++events !== Number(stopAt)) return;
    fs.writeSync(1, "standing still\n");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
});
const peak = /VmHWM:\s+(\d+) kB/.exec(fs.readFileSync("/proc/self/status", "utf8"));
console.log(Number(peak![1]) * 1024);
