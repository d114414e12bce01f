import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { readAt } from "../../lib/checkpoint/positional_io.ts";
import { readPytorchHeader } from "../../lib/checkpoint/pytorch_bin.ts";
import { FormatError } from "../../lib/errors.ts";
import { rowsOf, type TensorJson } from "../engine/tiny_models.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/", import.meta.url));
const PYTORCH = join(FIXTURES, "pytorch");

/** Returns stored elements as numbers. */
function numbers(bytes: Uint8Array<ArrayBuffer>, dtype: string): number[] {
  const { buffer } = bytes;
  switch (dtype) {
    case "F32":
      return [...new Float32Array(buffer)];
    case "F16":
      return [...new Float16Array(buffer)];
    case "BF16":
      return [...new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer)];
    case "I64":
      return Array.from(new BigInt64Array(buffer), Number);
    default:
      return [...bytes];
  }
}

Deno.test("readPytorchHeader() finds views, shared storages and every element type where they lie", async () => {
  const path = join(PYTORCH, "views.bin");
  const { views } = JSON.parse(fs.readFileSync(join(PYTORCH, "expected.json"), "utf8"));
  const { tensors } = await readPytorchHeader(path);
  assert.deepEqual(tensors.map(({ name }) => name).sort(), Object.keys(views).sort());
  const descriptor = fs.openSync(path, "r");
  for (const { name, dtype, shape, offset, bytes } of tensors) {
    const content = new Uint8Array(bytes);
    assert.equal(await readAt(descriptor, content, offset), bytes);
    const expected = views[name] as TensorJson;
    // A fixture has no tensors without dimensions.
    assert.deepEqual(shape.length === 0 ? [1] : shape, expected.shape, name);
    const flat = rowsOf({ ...expected, shape: [shape.reduce((a, b) => a * b, 1)] });
    assert.deepEqual(numbers(content, dtype), [...flat[0]], name);
  }
  fs.closeSync(descriptor);
});

Deno.test("openCheckpoint() reads tensors with strides in their own order: whole, and every range of them", () =>
  withTemporaryDirectory(async (directory) => {
    fs.copyFileSync(join(PYTORCH, "strided.bin"), join(directory, "pytorch_model.bin"));
    fs.writeFileSync(join(directory, "config.json"), "{}");
    const { strided } = JSON.parse(fs.readFileSync(join(PYTORCH, "expected.json"), "utf8"));
    using checkpoint = await openCheckpoint(directory);
    assert.deepEqual([...checkpoint.tensors.keys()].sort(), Object.keys(strided).sort());
    for (const tensor of checkpoint.tensors.values()) {
      assert.ok(tensor.strides, tensor.name);
      const expected = strided[tensor.name] as TensorJson, whole = new Uint8Array(tensor.bytes);
      assert.deepEqual(tensor.shape, expected.shape, tensor.name);
      await checkpoint.read(tensor, 0, whole);
      const [flat] = rowsOf({ ...expected, shape: [tensor.shape.reduce((a, b) => a * b, 1)] });
      assert.deepEqual(numbers(whole, tensor.dtype), [...flat], tensor.name);
      for (let offset = 0; offset < whole.length; offset += 3) {
        for (let end = offset; end <= whole.length; end += 7) {
          const part = new Uint8Array(end - offset);
          await checkpoint.read(tensor, offset, part);
          assert.deepEqual(part, whole.subarray(offset, end), `${tensor.name} from ${offset} to ${end}`);
        }
      }
    }
  }));

for (const [name, original] of [["tied", "llama/tied"], ["sharded", "llama/base"]]) {
  Deno.test(`openCheckpoint() reads ${name} pytorch_model.bin to the bytes that its safetensors twin has`, async () => {
    using bin = await openCheckpoint(join(PYTORCH, name));
    using twin = await openCheckpoint(join(FIXTURES, original));
    for (const tensor of twin.tensors.values()) {
      const other = bin.tensors.get(tensor.name);
      assert(other, tensor.name);
      assert.deepEqual([other.dtype, other.shape], [tensor.dtype, tensor.shape], tensor.name);
      const [expected, actual] = [new Uint8Array(tensor.bytes), new Uint8Array(tensor.bytes)];
      await twin.read(tensor, 0, expected);
      await bin.read(other, 0, actual);
      assert.deepEqual(actual, expected, tensor.name);
    }
  });
}

Deno.test("openCheckpoint() prefers safetensors where a directory has both", () =>
  withTemporaryDirectory(async (directory) => {
    fs.cpSync(join(FIXTURES, "llama/base"), directory, { recursive: true });
    fs.copyFileSync(join(PYTORCH, "bad_eval.bin"), join(directory, "pytorch_model.bin"));
    using checkpoint = await openCheckpoint(directory);
    assert.deepEqual(checkpoint.files.map(({ name }) => name), ["model.safetensors"]);
  }));

const REFUSED: Record<string, RegExp> = {
  bad_system: /asks for "posix\.system"/,
  bad_eval: /asks for "(__builtin__|builtins)\.eval"/,
  bad_getattr: /asks for "__builtin__\.getattr"/,
  bad_protocol_4: /protocol 4, required 2/,
  bad_instance: /opcode 0x6f at byte/,
  bad_new_object: /opcode 0x81 at byte/,
  bad_extension: /opcode 0x82 at byte/,
  bad_call_storage: /calls "torch\.FloatStorage"/,
  bad_arguments: /makes a dictionary of arguments/,
  bad_unknown_memo: /recalls value 7/,
  bad_empty_stack: /takes a value where there is none/,
  bad_no_stop: /ends early/,
  bad_long_text: /ends early/,
  bad_compressed: /"bad\/data\.pkl" is compressed/,
  bad_big_endian: /byteorder is "big"/,
  bad_other: /no data\.pkl/,
  epoch: /holds "epoch", which is no tensor/,
  list: /holds no dictionary/,
  legacy: /is no ZIP archive/,
};

for (const [name, pattern] of Object.entries(REFUSED)) {
  Deno.test(`readPytorchHeader() refuses ${name}.bin in one line that names what it is`, async () => {
    await assert.rejects(readPytorchHeader(join(PYTORCH, `${name}.bin`)), (error: Error) => {
      assert(error instanceof FormatError && !error.message.includes("\n"), error.message);
      assert.match(error.message, pattern);
      return true;
    });
  });
}

Deno.test("readPytorchHeader() survives any cut and any flipped byte: a header or a FormatError, nothing outside of the file", () =>
  withTemporaryDirectory(async (directory) => {
    const whole = fs.readFileSync(join(PYTORCH, "views.bin")), path = join(directory, "damaged.bin");
    const check = async (content: Uint8Array) => {
      fs.writeFileSync(path, content);
      try {
        for (const { offset, bytes } of (await readPytorchHeader(path)).tensors) {
          assert(offset >= 0 && offset + bytes <= content.length);
        }
      } catch (error) {
        assert(error instanceof FormatError, `${error}`);
      }
    };
    for (let length = 0; length < whole.length; length += 211) await check(whole.subarray(0, length));
    for (let at = 0; at < whole.length; at += 7) {
      const damaged = new Uint8Array(whole);
      damaged[at] ^= 1 << at % 8;
      await check(damaged);
    }
  }));
