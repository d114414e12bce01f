/**
 * What the translation of every instruction builds on: registers, operands, addresses and assignments as C++.
 * @module
 */
import { type Instruction, type Kernel, type PtxType, splitOperands, TYPE_BITS } from "./module.ts";

/** The C++ type that holds a value of each PTX type; 16-bit floats and pairs are kept as their bits. */
export function cppType(type: PtxType): string {
  if (type === "pred") return "bool";
  if (type === "f32") return "float";
  if (type === "f64") return "double";
  const bits = TYPE_BITS[type];
  if (!bits) throw new Error(`unknown type .${type}`);
  return `${type.startsWith("s") ? "" : "u"}int${bits}_t`;
}

/** The unsigned type of the same width: arithmetic in it wraps, as PTX does. */
export function unsignedType(type: PtxType): string {
  return `uint${TYPE_BITS[type]}_t`;
}

/** Whether a type is an integer or plain bits. */
export function isInteger(type: PtxType): boolean {
  return /^[usb]\d+$/.test(type);
}

const SPECIAL: Record<string, string> = {
  "%laneid": "emu::lane()",
  "WARP_SZ": "32",
  ...Object.fromEntries(
    [["tid", "threadIdx"], ["ntid", "blockDim"], ["ctaid", "blockIdx"], ["nctaid", "gridDim"]].flatMap(([ptx, cuda]) =>
      ["x", "y", "z"].map((axis) => [`%${ptx}.${axis}`, `${cuda}.${axis}`])
    ),
  ),
};

/** Translates the operands of one kernel's instructions. */
export class Emitter {
  /** C++ variable and type of each register used so far. */
  readonly used = new Map<string, string>();

  constructor(
    readonly kernel: Kernel,
    /** Offsets of shared variables in the block's buffer. */
    readonly sharedOffsets: Map<string, number>,
    /** Names of variables in global, constant or local memory. */
    readonly memoryNames: Set<string>,
  ) {}

  /** Returns the C++ variable of a register. */
  register(name: string): string {
    const type = this.kernel.registers.get(name) ?? this.kernel.registers.get(name.replace(/\d+$/, ""));
    if (!type) throw new Error(`unknown register ${name}`);
    const variable = "R_" + name.replace(/^%/, "");
    this.used.set(variable, type === "pred" || type === "f32" || type === "f64" ? cppType(type) : unsignedType(type));
    return variable;
  }

  /** Returns an operand as a C++ value of `type`. */
  value(operand: string, type: PtxType): string {
    const cpp = cppType(type);
    if (operand.startsWith("!")) return `(!${this.value(operand.slice(1), type)})`;
    if (operand in SPECIAL) return `static_cast<${cpp}>(${SPECIAL[operand]})`;
    if (/^0[fF][0-9a-fA-F]{8}$/.test(operand)) return `ptx::as<${cpp}>(uint32_t{0x${operand.slice(2)}u})`;
    if (/^0[dD][0-9a-fA-F]{16}$/.test(operand)) return `ptx::as<${cpp}>(uint64_t{0x${operand.slice(2)}ull})`;
    if (/^-?\d+U?$/.test(operand) || /^-?0[xX][0-9a-fA-F]+U?$/.test(operand)) {
      const literal = operand.replace(/U$/, "");
      const wide = BigInt(literal.replace(/^-/, "")) > 0x7fffffffffffffffn ? "ull" : "ll";
      return type === "pred" ? `(${literal} != 0)` : `static_cast<${cpp}>(${literal}${wide})`;
    }
    if (this.sharedOffsets.has(operand)) return `static_cast<${cpp}>(${this.sharedOffsets.get(operand)})`;
    if (this.memoryNames.has(operand)) return `static_cast<${cpp}>(reinterpret_cast<uint64_t>(&M_${operand}[0]))`;
    const parameter = this.parameter(operand);
    if (parameter) return `static_cast<${cpp}>(reinterpret_cast<uint64_t>(${parameter}))`;
    return `ptx::as<${cpp}>(${this.register(operand)})`;
  }

  /** Returns the address of a parameter of this name as a `void *`; undefined where there is none. */
  parameter(name: string): string | undefined {
    const index = this.kernel.parameters.findIndex((p) => p.name === name);
    return index < 0 ? undefined : `arguments[${index}]`;
  }

  /** Returns `[register + offset]` as a `char *`. */
  address(operand: string, shared: boolean): string {
    const m = operand.replace(/\s/g, "").match(/^\[([^+\]]+)(?:\+(-?\d+))?\]$/);
    if (!m) throw new Error(`unknown address ${operand}`);
    const offset = m[2] ?? "0";
    // Without a base register the offset within the space is all there is.
    return shared
      ? `(ptx::shared() + (${this.value(m[1], "u32")} + (${offset})))`
      : `(reinterpret_cast<char *>(${this.value(m[1], "u64")}) + (${offset}))`;
  }

  /** Assigns a C++ value of `type` to a register; `_` takes what is not wanted. */
  assign(register: string, type: PtxType, value: string): string {
    if (register === "_") return `static_cast<void>(${value});`;
    return `ptx::put<${cppType(type)}>(${this.register(register)}, static_cast<${cppType(type)}>(${value}));`;
  }

  /** Returns the operands in braces, or the operand itself alone. */
  vector(operand: string): string[] {
    return operand.startsWith("{") ? splitOperands(operand.slice(1, -1)) : [operand];
  }
}

/** Translates one instruction; what it does not know it does not accept. */
export type Translation = (emit: Emitter, instruction: Instruction) => string;

/** The modifiers of an instruction, to be taken one by one; what is left over in the end is an error. */
export class Modifiers {
  #left: string[];
  constructor(instruction: Instruction) {
    this.#left = [...instruction.modifiers];
  }
  /** Takes any of `names` that are there. */
  optional(...names: (string | RegExp)[]): string | undefined {
    const at = this.#left.findIndex((m) => names.some((n) => typeof n === "string" ? n === m : n.test(m)));
    return at < 0 ? undefined : this.#left.splice(at, 1)[0];
  }
  /** Takes all of `names` that are there, for those that change nothing here. */
  ignore(...names: (string | RegExp)[]): void {
    while (this.optional(...names)) { /* one after another */ }
  }
  /** Takes one of `names`, which must be there. */
  required(...names: (string | RegExp)[]): string {
    const found = this.optional(...names);
    if (!found) throw new Error(`expected one of ${names.join(", ")}`);
    return found;
  }
  /** Takes the last one, which must be one of `types`, else any. */
  type(...types: PtxType[]): PtxType {
    const type = this.#left.pop();
    if (!type || !(type in TYPE_BITS) || (types.length && !types.includes(type))) throw new Error(`unsupported type .${type}`);
    return type;
  }
  end(): void {
    if (this.#left.length) throw new Error(`unsupported modifier .${this.#left.join(".")}`);
  }
}
