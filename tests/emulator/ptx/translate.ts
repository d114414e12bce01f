/**
 * Translates PTX, as nvcc makes it of a .cu file, to C++ for the emulator: `deno run -R -W translate.ts IN.ptx OUT.cpp`.
 * An instruction, a modifier or a directive that is not known is an error that names it.
 * @module
 */
import { ARITHMETIC } from "./arithmetic.ts";
import { cppType, Emitter, type Translation } from "./emitter.ts";
import { MEMORY } from "./memory.ts";
import { type Instruction, type Kernel, parsePtx, TYPE_BITS, type Variable } from "./module.ts";
import { COLLECTIVE, labelName } from "./warp.ts";

const TRANSLATIONS: Record<string, Translation> = { ...ARITHMETIC, ...MEMORY, ...COLLECTIVE };
const SHARED_ALIGNMENT_BYTES = 16; // where dynamic shared memory begins after the static one

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

function statement(emit: Emitter, instruction: Instruction): string {
  const translation = TRANSLATIONS[instruction.opcode];
  try {
    if (!translation) throw new Error("unknown instruction");
    const code = translation(emit, instruction);
    const { guard } = instruction;
    return guard ? `if (${guard.negated ? "!" : ""}${emit.register(guard.register)}) { ${code} }` : code;
  } catch (error) {
    throw new Error(`Cannot translate PTX instruction "${instruction.text}" of ${emit.kernel.name}: ${(error as Error).message}`);
  }
}

/** A variable in memory that all threads see: global or constant. */
function memoryVariable(v: Variable): string {
  const values = v.values.map((value) => /^0[fF]/.test(value) ? `ptx::as<float>(uint32_t{0x${value.slice(2)}u})` : value);
  return `alignas(${v.alignBytes}) static ${cppType(v.type)} M_${v.name}[${Math.max(1, v.count)}] = {${values.join(", ")}};`;
}

function kernel(k: Kernel, moduleVariables: Variable[]): string {
  const text = k.statements.map((s) => "instruction" in s ? s.instruction.text : "").join("\n");
  const used = moduleVariables.filter((v) => text.includes(v.name));
  const variables = [...used, ...k.variables];
  const offsets = new Map<string, number>();
  let staticBytes = 0;
  for (const v of variables.filter((v) => v.space === "shared" && v.count > 0)) {
    staticBytes = roundUp(staticBytes, v.alignBytes);
    offsets.set(v.name, staticBytes);
    staticBytes += TYPE_BITS[v.type] / 8 * v.count;
  }
  staticBytes = roundUp(staticBytes, SHARED_ALIGNMENT_BYTES);
  for (const v of variables.filter((v) => v.space === "shared" && v.count === 0)) offsets.set(v.name, staticBytes);

  const emit = new Emitter(k, offsets, new Set(variables.filter((v) => v.space !== "shared").map((v) => v.name)));
  const lines = k.statements.map((s) => "label" in s ? `${labelName(s.label)}:;` : `  ${statement(emit, s.instruction)}`);
  const registers = [...emit.used].sort().map(([name, type]) => `  ${type} ${name}{};`);
  const locals = variables.filter((v) => v.space === "local").map((v) =>
    `  alignas(${v.alignBytes}) ${cppType(v.type)} M_${v.name}[${v.count}];`
  );
  return `
static void K_${k.name}(void **arguments) {
${[...registers, ...locals, ...lines].join("\n")}
}
static const ptx::Registration G_${k.name}({"${k.name}", K_${k.name}, ${staticBytes}, ${k.maxThreads}, {${
    k.parameters.map((p) => p.bytes).join(", ")
  }}});`;
}

/**
 * Returns the C++ translation of a PTX file.
 *
 * @throws {Error} that names what it cannot translate.
 */
export function translatePtx(source: string): string {
  const module = parsePtx(source);
  const memory = module.variables.filter((v) => v.space === "global" || v.space === "const");
  return ['#include "ptx_device.h"', ...memory.map(memoryVariable), ...module.kernels.map((k) => kernel(k, module.variables)), ""]
    .join("\n");
}

if (import.meta.main) {
  const [from, to] = Deno.args;
  if (!from || !to || Deno.args.length > 2) {
    console.error("usage: translate.ts IN.ptx OUT.cpp");
    Deno.exit(2);
  }
  try {
    Deno.writeTextFileSync(to, translatePtx(Deno.readTextFileSync(from)));
  } catch (error) {
    console.error((error as Error).message);
    Deno.exit(1);
  }
}
