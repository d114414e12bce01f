/**
 * Translates loads, stores, moves, atomics and asynchronous copies.
 * @module
 */
import { cppType, type Emitter, Modifiers, type Translation } from "./emitter.ts";
import { type Instruction, type PtxType, TYPE_BITS } from "./module.ts";

/** Cache and ordering hints: the emulator has no cache, and its fibers see every write at once. */
const HINTS = [/^(ca|cg|cs|cv|lu|wb|wt|nc|volatile|relaxed|weak|cta|gpu|sys)$/, /^L[12]::/];

interface Access {
  shared: boolean;
  type: PtxType;
  elements: number;
}

function access(i: Instruction): Access {
  const m = new Modifiers(i);
  const type = m.type();
  const space = m.optional("global", "shared", "const", "local", /^shared::cta$/);
  const vector = m.optional("v2", "v4");
  m.ignore(...HINTS);
  m.end();
  return { shared: space?.startsWith("shared") ?? false, type, elements: vector ? Number(vector[1]) : 1 };
}

function load(emit: Emitter, i: Instruction): string {
  if (i.modifiers[0] === "param") return loadParameter(emit, i);
  const { shared, type, elements } = access(i);
  const targets = emit.vector(i.operands[0]);
  if (targets.length !== elements) throw new Error("a vector of another length");
  const bytes = TYPE_BITS[type] / 8 * elements;
  const assigns = targets.map((to, n) => emit.assign(to, type, `ptx::load<${cppType(type)}>(from, ${n})`));
  return `{ const char *from = ptx::aligned(${emit.address(i.operands[1], shared)}, ${bytes}); ${assigns.join(" ")} }`;
}

/** From a parameter by its name, or from an address of one that `mov` has put into a register. */
function loadParameter(emit: Emitter, i: Instruction): string {
  const type = i.modifiers.at(-1)!, vector = i.modifiers.length === 3 ? i.modifiers[1] : undefined;
  if (!(type in TYPE_BITS) || i.modifiers.length > 3 || (vector && !/^v[24]$/.test(vector))) throw new Error("unsupported form");
  const named = i.operands[1].match(/^\[([\w$]+)(?:\+(\d+))?\]$/);
  const parameter = named ? emit.parameter(named[1]) : undefined;
  const from = parameter ? `static_cast<const char *>(${parameter}) + ${named![2] ?? 0}` : emit.address(i.operands[1], false);
  const assigns = emit.vector(i.operands[0]).map((to, n) => emit.assign(to, type, `ptx::load<${cppType(type)}>(from, ${n})`));
  return `{ const char *from = ${from}; ${assigns.join(" ")} }`;
}

function store(emit: Emitter, i: Instruction): string {
  const { shared, type, elements } = access(i);
  const values = emit.vector(i.operands[1]);
  if (values.length !== elements) throw new Error("a vector of another length");
  const bytes = TYPE_BITS[type] / 8 * elements;
  const stores = values.map((value, n) => `ptx::store<${cppType(type)}>(to, ${n}, ${emit.value(value, type)});`);
  return `{ char *to = ptx::aligned(${emit.address(i.operands[0], shared)}, ${bytes}); ${stores.join(" ")} }`;
}

/** A register, or the parts of one in braces: { low, high }. */
function move(emit: Emitter, i: Instruction): string {
  const m = new Modifiers(i);
  const type = m.type();
  m.end();
  const [to, from] = i.operands;
  if (!to.startsWith("{") && !from.startsWith("{")) return emit.assign(to, type, emit.value(from, type));
  const parts = emit.vector(to.startsWith("{") ? to : from);
  const partBits = TYPE_BITS[type] / parts.length, part = `b${partBits}`, whole = cppType(type);
  if (!(part in TYPE_BITS)) throw new Error("unsupported form");
  if (to.startsWith("{")) {
    const assigns = parts.map((p, n) => emit.assign(p, part, `whole >> ${partBits * n}`));
    return `{ const ${whole} whole = ${emit.value(from, type)}; ${assigns.join(" ")} }`;
  }
  return emit.assign(
    to,
    type,
    parts.map((p, n) => `static_cast<${whole}>(${emit.value(p, part)}) << ${partBits * n}`).join(" | "),
  );
}

/** Between an address in a space and one in all memory. Only shared addresses differ. */
function convertAddress(emit: Emitter, i: Instruction): string {
  const m = new Modifiers(i);
  const type = m.type("u64"), to = m.optional("to"), space = m.required("global", "shared", "const", "local", "param");
  m.end();
  const address = emit.value(i.operands[1], type), base = "reinterpret_cast<uint64_t>(ptx::shared())";
  return emit.assign(i.operands[0], type, space !== "shared" ? address : to ? `${address} - ${base}` : `${address} + ${base}`);
}

const ATOMICS: Record<string, string> = {
  add: "atomicAdd",
  min: "atomicMin",
  max: "atomicMax",
  and: "atomicAnd",
  or: "atomicOr",
  xor: "atomicXor",
  exch: "atomicExch",
  inc: "atomicInc",
  cas: "atomicCAS",
};
const ATOMIC_TYPES: Record<PtxType, string> = {
  s32: "int",
  u32: "unsigned",
  b32: "unsigned",
  u64: "unsigned long long",
  b64: "unsigned long long",
  f32: "float",
  f64: "double",
};

/** atom, and red, which returns nothing. */
function atomic(emit: Emitter, i: Instruction): string {
  const m = new Modifiers(i);
  const type = m.type(...Object.keys(ATOMIC_TYPES)),
    space = m.optional("global", "shared"),
    operation = m.required(...Object.keys(ATOMICS));
  m.ignore("relaxed", "gpu", "cta", "sys");
  m.end();
  const [to, address, ...values] = i.opcode === "red" ? ["_", ...i.operands] : i.operands;
  const cpp = ATOMIC_TYPES[type], bytes = TYPE_BITS[type] / 8;
  const pointer = `reinterpret_cast<${cpp} *>(ptx::aligned(${emit.address(address, space === "shared")}, ${bytes}))`;
  const call = `${ATOMICS[operation]}(${
    [pointer, ...values.map((v) => `static_cast<${cpp}>(${emit.value(v, type)})`)].join(", ")
  })`;
  return emit.assign(to, type, call);
}

/** cp.async: a copy, the end of a group, a wait for groups. */
function asyncCopy(emit: Emitter, i: Instruction): string {
  const form = i.modifiers.join(".");
  if (form === "async.commit_group") return "emu::async_commit();";
  if (form === "async.wait_group") return `emu::async_wait(${Number(i.operands[0])});`;
  if (form === "async.wait_all") return "emu::async_commit(); emu::async_wait(0);";
  const m = new Modifiers(i);
  m.required("async");
  m.required("ca", "cg");
  m.required("shared", "shared::cta");
  m.required("global");
  m.ignore(/^L2::/);
  m.end();
  const [to, from, bytes, validBytes] = i.operands;
  const valid = validBytes === undefined ? bytes : emit.value(validBytes, "u32");
  return `emu::async_copy(${emit.address(to, true)}, ${emit.address(from, false)}, ${
    Number(bytes)
  }, static_cast<int>(${valid}), ptx::here("${i.opcode}"));`;
}

const fence: Translation = () => "__threadfence();";

/** Translations by opcode. */
export const MEMORY: Record<string, Translation> = {
  ld: load,
  ldu: load,
  st: store,
  mov: move,
  cvta: convertAddress,
  atom: atomic,
  red: atomic,
  cp: asyncCopy,
  membar: fence,
  fence,
};
