/**
 * What only NVIDIA's toolkit can tell: whether the emulator declares the runtime API as it is, and whether the sources compile
 * for GPUs. Skipped where nvcc is not installed.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { hasNvcc } from "./library.ts";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const CUDA = fileURLToPath(new URL("../../cuda", import.meta.url));

async function run(command: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args, cwd: HERE }).output();
  assert.equal(code, 0, `${command} ${args.join(" ")}\n${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** Defines a test that needs nvcc; it gets a folder to write to. */
function withToolkit(name: string, body: (folder: string) => Promise<void>): void {
  Deno.test({
    name: `${name}${hasNvcc ? "" : ": skipped, nvcc is not installed"}`,
    ignore: !hasNvcc,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      try {
        await body(folder);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

/** Returns a program that prints every constant and layout which runtime_api.h and vector_types.h declare. */
async function layoutProgram(): Promise<string> {
  const api = (await Deno.readTextFile(`${HERE}/include/emu/runtime_api.h`)).replace(/\/\/[^\n]*/g, "");
  const lines: string[] = [];
  for (const [, body] of api.matchAll(/enum \w+ \{([^}]*)\}/g)) {
    for (const name of body.split(",").map((e) => e.trim().split(" ")[0]).filter(Boolean)) {
      lines.push(`printf("${name} %lld\\n", (long long)${name});`);
    }
  }
  for (const [, name] of api.matchAll(/#define (cuda\w+) /g)) lines.push(`printf("${name} %lld\\n", (long long)(${name}));`);
  for (const [, name, body] of api.matchAll(/struct (cuda\w+) \{([^}]*)\}/g)) {
    lines.push(`printf("${name} %zu\\n", sizeof(${name}));`);
    for (const declaration of body.split(";")) {
      const fields = declaration.trim().replace(/^(\w+)\s+/, "").split(",").map((f) =>
        f.trim().replace(/^\*/, "").replace(/\[.*/, "")
      ).filter(Boolean);
      for (const field of fields.filter((f) => !/^(gap\d|uuid_and_luid)$/.test(f))) {
        lines.push(`printf("${name}.${field} %zu %zu\\n", offsetof(${name}, ${field}), sizeof(((${name} *)0)->${field}));`);
      }
    }
  }
  const vectors = await Deno.readTextFile(`${HERE}/include/emu/vector_types.h`);
  for (const [, name] of vectors.matchAll(/^EMU_VECTOR[24]\((\w+),/gm)) {
    lines.push(`printf("${name} %zu %zu\\n", sizeof(${name}), alignof(${name}));`);
  }
  assert.ok(lines.length > 100, "the declarations should have been found");
  return `#include <cuda_runtime.h>\n#include <cstddef>\n#include <cstdio>\nint main() {\n${lines.join("\n")}\n}\n`;
}

withToolkit("the emulator's runtime API has the numbers and layouts of NVIDIA's headers", async (folder) => {
  await Deno.writeTextFile(`${folder}/layout.cu`, await layoutProgram());
  await run("g++", ["-std=c++17", "-w", "-x", "c++", "-Iinclude", "-c", `${folder}/layout.cu`, "-o", `${folder}/ours.o`]);
  await run("g++", [`${folder}/ours.o`, "-o", `${folder}/ours`]);
  await run("nvcc", ["-std=c++17", "-w", `${folder}/layout.cu`, "-o", `${folder}/theirs`]);
  assert.deepEqual((await run(`${folder}/ours`, [])).split("\n"), (await run(`${folder}/theirs`, [])).split("\n"));
});

// Below sm_80 there is no arithmetic on bfloat16, which intrinsics.cu has.
for (const [architecture, names] of [["75", ["rmsnorm", "matmul"]], ["90", ["rmsnorm", "matmul", "intrinsics"]]] as const) {
  withToolkit(`the fixtures compile for sm_${architecture} without a spilled register`, async (folder) => {
    const options = [
      "-std=c++17",
      "-O3",
      `-arch=sm_${architecture}`,
      "-Xptxas",
      "-warn-spills",
      "-Werror",
      "all-warnings",
      `-I${CUDA}`,
    ];
    await Promise.all(names.map((name) => run("nvcc", [...options, "-c", `fixtures/${name}.cu`, "-o", `${folder}/${name}.o`])));
  });
}
