/**
 * Reads PTX as nvcc writes it: variables, kernels, and in each kernel its declarations and statements.
 * @module
 */

/** A type of PTX without its dot: "u32", "f16x2", "pred". */
export type PtxType = string;

/** Bits of each type that a register or a memory access can have; b8 registers do not exist but accesses do. */
export const TYPE_BITS: Record<PtxType, number> = Object.fromEntries([
  ["pred", 1],
  ...["u8", "s8", "b8"].map((t) => [t, 8]),
  ...["u16", "s16", "b16", "f16", "bf16"].map((t) => [t, 16]),
  ...["u32", "s32", "b32", "f32", "f16x2", "bf16x2"].map((t) => [t, 32]),
  ...["u64", "s64", "b64", "f64"].map((t) => [t, 64]),
]);

/** A variable in memory. */
export interface Variable {
  space: "global" | "const" | "shared" | "local";
  type: PtxType;
  name: string;
  alignBytes: number;
  /** Elements; 0 for dynamic shared memory. */
  count: number;
  /** Initial values as written, where there are any. */
  values: string[];
}

/** One instruction: `@!%p1 ld.global.f32 %f1, [%rd1];`. */
export interface Instruction {
  text: string;
  guard?: { register: string; negated: boolean };
  opcode: string;
  /** What follows the opcode, type included: ["global", "f32"]. */
  modifiers: string[];
  operands: string[];
}

/** A statement of a kernel's body, in order. */
export type Statement = { label: string } | { instruction: Instruction };

/** A kernel. */
export interface Kernel {
  name: string;
  parameters: { name: string; bytes: number }[];
  /** From __launch_bounds__, else 1024. */
  maxThreads: number;
  /** Type by register, or by prefix for `%r<27>`. */
  registers: Map<string, PtxType>;
  variables: Variable[];
  statements: Statement[];
}

/** A PTX file. */
export interface Module {
  variables: Variable[];
  kernels: Kernel[];
}

const VARIABLE =
  /^\.?(?:(?:visible|weak|extern)\s+\.)*(global|const|shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?(?:\s*=\s*(\{[^}]*\}|[^;]+))?$/;

/** Splits at commas outside of brackets. */
export function splitOperands(text: string): string[] {
  const parts: string[] = [];
  let depth = 0, part = "";
  for (const c of text) {
    if ("{[(".includes(c)) depth++;
    if ("}])".includes(c)) depth--;
    if (c === "," && depth === 0) {
      parts.push(part.trim());
      part = "";
    } else part += c;
  }
  if (part.trim()) parts.push(part.trim());
  return parts;
}

function parseVariable(text: string): Variable | undefined {
  const m = text.match(VARIABLE);
  if (!m) return undefined;
  const [, space, align, type, name, count, initial] = m;
  if (!(type in TYPE_BITS)) throw new Error(`Cannot translate PTX: variable ${name} is of unknown type .${type}`);
  return {
    space: space as Variable["space"],
    type,
    name,
    alignBytes: Number(align ?? Math.max(1, TYPE_BITS[type] / 8)),
    count: count === undefined ? 1 : Number(count),
    values: initial ? splitOperands(initial.replace(/^\{|\}$/g, "")) : [],
  };
}

/** Reads an instruction without its semicolon. */
export function parseInstruction(text: string): Instruction {
  const m = text.match(/^(?:@(!?)([%\w$]+)\s+)?([a-z][\w]*)((?:\.[\w:]+)*)\s*([\s\S]*)$/);
  if (!m) throw new Error(`Cannot translate PTX: no instruction: ${text}`);
  const [, negation, register, opcode, modifiers, operands] = m;
  return {
    text,
    guard: register ? { register, negated: negation === "!" } : undefined,
    opcode,
    modifiers: modifiers.split(".").filter(Boolean),
    operands: splitOperands(operands),
  };
}

/** Reads the statements of a kernel; names declared in an inner block (inline assembly has those) get a suffix of their own. */
class BodyReader {
  readonly registers = new Map<string, PtxType>();
  readonly variables: Variable[] = [];
  readonly statements: Statement[] = [];
  #scopes: Map<string, string>[] = [];
  #scopeCount = 0;

  read(body: string): void {
    let at = 0;
    while (at < body.length) {
      const rest = body.slice(at);
      const skipped = rest.match(/^[\s;]+/)?.[0].length ?? 0;
      if (skipped) {
        at += skipped;
        continue;
      }
      if (body[at] === "{") {
        this.#scopes.push(new Map());
        this.#scopeCount++;
        at++;
      } else if (body[at] === "}") {
        this.#scopes.pop();
        at++;
      } else {
        const label = rest.match(/^([\w$]+):(?!:)/);
        if (label) {
          this.statements.push({ label: label[1] });
          at += label[0].length;
        } else {
          const end = body.indexOf(";", at);
          this.#statement(body.slice(at, end).replace(/\s+/g, " ").trim());
          at = end + 1;
        }
      }
    }
  }

  #statement(text: string): void {
    const registers = text.match(/^\.reg\s+\.(\w+)\s+(.*)$/);
    const variable = registers ? undefined : parseVariable(text);
    if (registers) {
      for (const declared of splitOperands(registers[2])) this.#declare(declared, registers[1]);
    } else if (variable) {
      this.variables.push(variable);
    } else if (/^\.(pragma|loc|file)\b/.test(text)) {
      // hints for ptxas and debuggers
    } else if (text.startsWith(".")) {
      throw new Error(`Cannot translate PTX: unknown directive: ${text}`);
    } else {
      this.statements.push({ instruction: parseInstruction(this.#renamed(text)) });
    }
  }

  #declare(declared: string, type: PtxType): void {
    if (!(type in TYPE_BITS)) throw new Error(`Cannot translate PTX: register ${declared} is of unknown type .${type}`);
    const scope = this.#scopes.at(-1);
    const name = declared.replace(/<\d+>$/, "");
    if (!scope) {
      this.registers.set(name, type);
    } else {
      const unique = `${name}_scope${this.#scopeCount}`;
      scope.set(name, unique);
      this.registers.set(unique, type);
    }
  }

  #renamed(text: string): string {
    return text.replace(/[%\w$]+/g, (word) => {
      for (let s = this.#scopes.length - 1; s >= 0; s--) {
        const unique = this.#scopes[s].get(word);
        if (unique) return unique;
      }
      return word;
    });
  }
}

function parseParameter(text: string): { name: string; bytes: number } {
  const m = text.match(/^\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr\s+(?:\.\w+\s+(?:\d+\s+)?)*)?([\w$]+)(?:\[(\d+)\])?$/);
  if (!m) throw new Error(`Cannot translate PTX: unknown parameter: ${text}`);
  return { name: m[2], bytes: TYPE_BITS[m[1]] / 8 * Number(m[3] ?? 1) };
}

/**
 * Returns the variables and kernels of a PTX file.
 *
 * @throws {Error} where it holds something unknown.
 */
export function parsePtx(source: string): Module {
  const text = source.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\/\/[^\n]*/g, "");
  const module: Module = { variables: [], kernels: [] };
  const entry = /(?:\.(?:visible|weak)\s+)?\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{/g;
  let outside = "", from = 0;
  for (let m = entry.exec(text); m; m = entry.exec(text)) {
    outside += text.slice(from, m.index);
    let depth = 1, end = entry.lastIndex;
    for (; depth > 0; end++) depth += text[end] === "{" ? 1 : text[end] === "}" ? -1 : 0;
    const body = new BodyReader();
    body.read(text.slice(entry.lastIndex, end - 1));
    const bounds = m[3].match(/\.(?:maxntid|reqntid)\s+([\d,\s]+)/);
    module.kernels.push({
      name: m[1],
      parameters: splitOperands(m[2]).map((p) => parseParameter(p.replace(/\s+/g, " "))),
      maxThreads: bounds ? bounds[1].split(",").map(Number).reduce((a, b) => a * b) : 1024,
      registers: body.registers,
      variables: body.variables,
      statements: body.statements,
    });
    from = entry.lastIndex = end;
  }
  outside += text.slice(from);
  if (/\.func\b/.test(outside)) throw new Error("Cannot translate PTX: it has functions that were not inlined (.func)");
  for (const statement of outside.split(";")) {
    const line = statement.replace(/\s+/g, " ").replace(/^ ?\.version \S+ \.target [^.]+(?:\.address_size \d+)? ?/, "").trim();
    if (!line) continue;
    const variable = parseVariable(line);
    if (!variable) throw new Error(`Cannot translate PTX: unknown directive: ${line}`);
    module.variables.push(variable);
  }
  return module;
}
