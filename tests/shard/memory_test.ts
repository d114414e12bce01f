import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { writeHeader } from "../../lib/checkpoint/safetensors.ts";
import { LLAMA } from "../../lib/models/llama.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { TINY_CONFIG } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

Deno.test({
  name: "quantizeCheckpoint() of a 655 MB tensor stays under 320 MiB of resident memory",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withTemporaryDirectory(async (directory) => {
      // An embedding far larger than the bound, and linear layers above the size of a training sample. All zeros: sparse on disk.
      const config = { ...TINY_CONFIG, num_hidden_layers: 1, hidden_size: 2048, intermediate_size: 12_288, vocab_size: 160_000 };
      const { embedding, layers, head } = LLAMA.tensors(LLAMA.parseConfig({ ...config, tie_word_embeddings: true }));
      const entries = [...embedding, ...layers.flat(), ...head].map(({ name, rows, cols, kind }) => ({
        name,
        dtype: "BF16" as const,
        shape: kind === "vector" ? [cols] : [rows, cols],
        bytes: rows * cols * 2,
      }));
      const source = join(directory, "large"), out = join(directory, "out"), file = join(source, "model.safetensors");
      fs.mkdirSync(source);
      fs.writeFileSync(join(source, "config.json"), JSON.stringify({ ...config, tie_word_embeddings: true }));
      const header = writeHeader(entries);
      fs.writeFileSync(file, header);
      fs.truncateSync(file, header.length + entries.reduce((sum, { bytes }) => sum + bytes, 0));
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-check", new URL("quantize_child.ts", import.meta.url).pathname, source, out, "q4o"],
      }).output();
      assert(success, new TextDecoder().decode(stderr));
      const peakMiB = Number(new TextDecoder().decode(stdout)) / 2 ** 20;
      assert(peakMiB > 32 && peakMiB < 320, `peak resident set ${peakMiB} MiB`);
      const { manifest } = await openShards(out);
      assert(manifest.tensors[0].extents.length > 15);
    }),
});
