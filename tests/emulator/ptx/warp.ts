/**
 * Translates what threads do together: barriers, warp operations, matrix instructions; and control flow.
 * @module
 */
import { type Emitter, Modifiers, type Translation } from "./emitter.ts";
import type { Instruction } from "./module.ts";

/** bar.sync, bar.red and their newer names, for barrier 0 and all threads. */
function barrier(emit: Emitter, i: Instruction): string {
  const form = i.modifiers.join(".");
  const here = `ptx::here("${i.opcode}")`;
  if (form === "warp.sync") return `emu::warp_op(emu::WarpOp::sync, ${emit.value(i.operands[0], "u32")}, 0, 0, ${here});`;
  const reduction = form.match(/^(?:cta\.)?red\.(popc\.u32|and\.pred|or\.pred)$/)?.[1];
  const number = i.operands[reduction ? 1 : 0], operands = i.operands.length;
  if (number !== "0" || operands !== (reduction ? 3 : 1)) throw new Error("unsupported form: only barrier 0 for the whole block");
  if (/^(cta\.)?sync(\.aligned)?$/.test(form)) return `emu::block_barrier(0, ${here});`;
  if (!reduction) throw new Error("unsupported form");
  const votes = `emu::block_barrier(${emit.value(i.operands[2], "pred")}, ${here})`;
  if (reduction === "popc.u32") return emit.assign(i.operands[0], "u32", `${votes}.count`);
  return emit.assign(i.operands[0], "pred", `${votes}.${reduction === "and.pred" ? "all" : "any"}`);
}

/** shfl.sync, with its source lane by the rules of the PTX ISA: the segment mask and the clamp are one operand. */
function shuffle(emit: Emitter, i: Instruction): string {
  const m = new Modifiers(i);
  m.type("b32");
  m.required("sync");
  const mode = m.required("idx", "up", "down", "bfly");
  m.end();
  const [to, value, lane, clamp, mask] = i.operands;
  const [register, inRange] = to.split("|");
  const result = `const ptx::Source source = ptx::source_${mode}(${emit.value(lane, "u32")}, ${emit.value(clamp, "u32")});`;
  const exchange = `const uint32_t got = static_cast<uint32_t>(emu::warp_op(emu::WarpOp::shuffle, ${emit.value(mask, "u32")}, ${
    emit.value(value, "b32")
  }, source.lane, ptx::here("shfl")));`;
  return `{ ${result} ${exchange} ${emit.assign(register, "b32", "got")} ${
    inRange ? emit.assign(inRange, "pred", "source.in_range") : ""
  } }`;
}

function vote(emit: Emitter, i: Instruction): string {
  const [to, value, mask] = i.operands;
  const ballot = (v: string): string =>
    `emu::warp_op(emu::WarpOp::ballot, ${emit.value(mask, "u32")}, ${v}, 0, ptx::here("vote"))`;
  const p = emit.value(value, "pred");
  switch (i.modifiers.join(".")) {
    case "sync.ballot.b32":
      return emit.assign(to, "b32", ballot(p));
    case "sync.any.pred":
      return emit.assign(to, "pred", `${ballot(p)} != 0`);
    case "sync.all.pred":
      return emit.assign(to, "pred", `${ballot(`!${p}`)} == 0`);
  }
  throw new Error("unsupported form");
}

const REDUCTIONS: Record<string, string> = { add: "add", min: "min", max: "max", and: "bit_and", or: "bit_or", xor: "bit_xor" };

function reduce(emit: Emitter, i: Instruction): string {
  const m = new Modifiers(i);
  const type = m.type("s32", "u32", "b32");
  m.required("sync");
  const operation = m.required(...Object.keys(REDUCTIONS));
  m.end();
  const [to, value, mask] = i.operands;
  const wide = `static_cast<uint64_t>(static_cast<int64_t>(${emit.value(value, type)}))`;
  return emit.assign(
    to,
    type,
    `emu::warp_op(emu::WarpOp::${REDUCTIONS[operation]}, ${emit.value(mask, "u32")}, ${wide}, 0, ptx::here("redux"))`,
  );
}

function loadMatrix(emit: Emitter, i: Instruction): string {
  const form = i.modifiers.join(".").match(/^sync\.aligned\.m8n8\.x([124])\.(trans\.)?shared(?:::cta)?\.b16$/);
  if (!form) throw new Error("unsupported form");
  const targets = emit.vector(i.operands[0]);
  const assigns = targets.map((to, n) => emit.assign(to, "b32", `result[${n}]`));
  const transposed = form[2] ? "true" : "false";
  return `{ uint32_t result[${form[1]}]; emu::load_matrices<${form[1]}, ${transposed}>(result, ${
    emit.address(i.operands[1], true)
  }, ptx::here("ldmatrix")); ${assigns.join(" ")} }`;
}

/** m16n8k16 of f16 and bf16, and m16n8k8 of f16 as its lower half with zeros. */
function multiplyMatrices(emit: Emitter, i: Instruction): string {
  const form = i.modifiers.join(".").match(/^sync\.aligned\.m16n8k(16|8)\.row\.col\.f32\.(f16|bf16)\.\2\.f32$/);
  if (!form || (form[1] === "8" && form[2] === "bf16")) throw new Error("unsupported form");
  const [d, a, b, c] = i.operands.map((operand) => emit.vector(operand));
  const array = (type: string, name: string, length: number, values: string[]): string =>
    `${type} ${name}[${length}] = {${values.join(", ")}};`;
  const bits = (registers: string[]): string[] => registers.map((r) => emit.value(r, "b32"));
  return [
    "{ float d[4];",
    array("uint32_t", "a", 4, bits(a)),
    array("uint32_t", "b", 2, bits(b)),
    array("float", "c", 4, c.map((r) => emit.value(r, "f32"))),
    `emu::multiply_accumulate<emu::${form[2] === "f16" ? "half" : "bfloat16"}_to_float>(d, a, b, c, ptx::here("mma"));`,
    ...d.map((to, n) => emit.assign(to, "f32", `d[${n}]`)),
    "}",
  ].join(" ");
}

const end: Translation = () => "return;";

/** Translations by opcode. */
export const COLLECTIVE: Record<string, Translation> = {
  bar: barrier,
  barrier,
  shfl: shuffle,
  vote,
  redux: reduce,
  ldmatrix: loadMatrix,
  mma: multiplyMatrices,
  bra: (_emit, i) => `goto ${labelName(i.operands[0])};`,
  ret: end,
  exit: end,
  trap: () => "__trap();",
  prefetch: () => ";",
};

/** Returns the C++ label of a PTX label. */
export function labelName(label: string): string {
  return "L_" + label.replace(/\$/g, "");
}
