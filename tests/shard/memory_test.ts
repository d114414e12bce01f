import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { writeHeader } from "../../lib/checkpoint/safetensors.ts";
import { LLAMA } from "../../lib/models/families/llama.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { TINY_CONFIG } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** Writes a checkpoint of zeros, sparse on disk, in bfloat16: an embedding of 4 KiB a token and one layer. */
function writeZeros(source: string, vocabSize: number): void {
  const config = { ...TINY_CONFIG, num_hidden_layers: 1, hidden_size: 2048, intermediate_size: 6144, vocab_size: vocabSize };
  const { embedding, layers, head } = LLAMA.tensors(LLAMA.parseConfig({ ...config, tie_word_embeddings: true }));
  const entries = [...embedding, ...layers.flat(), ...head].map(({ name, rows, cols, kind }) => ({
    name,
    dtype: "BF16" as const,
    shape: kind === "vector" ? [cols] : [rows, cols],
    bytes: rows * cols * 2,
  }));
  const file = join(source, "model.safetensors");
  fs.mkdirSync(source);
  fs.writeFileSync(join(source, "config.json"), JSON.stringify({ ...config, tie_word_embeddings: true }));
  const header = writeHeader(entries);
  fs.writeFileSync(file, header);
  fs.truncateSync(file, header.length + entries.reduce((sum, { bytes }) => sum + bytes, 0));
}

/** Quantizes in a process of its own and returns its peak resident set in MiB, or what it said. */
async function quantize(...args: string[]): Promise<{ peakMiB: number; stderr: string }> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", new URL("quantize_child.ts", import.meta.url).pathname, ...args],
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { peakMiB: success ? Number(text(stdout)) / 2 ** 20 : NaN, stderr: text(stderr) };
}

Deno.test({
  name: "quantizeCheckpoint() of a 655 MB tensor stays under 320 MiB of resident memory",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withTemporaryDirectory(async (directory) => {
      // An embedding far larger than the bound, and linear layers above the size of a training sample.
      const source = join(directory, "large"), out = join(directory, "out");
      writeZeros(source, 160_000);
      const { peakMiB, stderr } = await quantize(source, out, "q4o");
      assert(peakMiB > 32 && peakMiB < 320, `peak resident set ${peakMiB} MiB ${stderr}`);
      const { manifest } = await openShards(out);
      assert(manifest.tensors[0].extents.length > 15);
    }),
});

Deno.test({
  name: "quantizeCheckpoint() stays within the least ramBytes that it accepts, and refuses less before it writes anything",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withTemporaryDirectory(async (directory) => {
      const source = join(directory, "large"), out = join(directory, "out");
      writeZeros(source, 40_000);
      const refused = await quantize(source, out, "q4o", "0", String(100 * 2 ** 20));
      const needed = /need at least ([\d.]+) MiB of memory, the budget is 100 MiB; quantize it beforehand/.exec(refused.stderr);
      assert(needed, refused.stderr);
      assert(!fs.existsSync(out));
      const leastMiB = Math.ceil(Number(needed[1])) + 4;
      const { peakMiB, stderr } = await quantize(source, out, "q4o", "0", String(leastMiB * 2 ** 20));
      assert(peakMiB <= leastMiB, `peak resident set ${peakMiB} MiB of ${leastMiB} MiB ${stderr}`);
    }),
});
