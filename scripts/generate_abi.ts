/**
 * Generates lib/ffi/abi.ts, the symbol table for Deno.dlopen, from cuda/airkern.h.
 *
 * `deno run -A scripts/generate_abi.ts [--check]`; with --check nothing is written and a stale file is an error.
 */
import { fileURLToPath } from "node:url";

const HEADER = fileURLToPath(new URL("../cuda/airkern.h", import.meta.url));
const OUTPUT = fileURLToPath(new URL("../lib/ffi/abi.ts", import.meta.url));

/** Maps a C type of the header to its FFI type; anything else is an error, so a new type is a decision made here. */
function ffiType(type: string, where: string): string {
  const plain = type.replace(/\bconst\b/g, "").replace(/\s+/g, " ").trim();
  if (/^airk_(context|stream|event) ?\*$/.test(plain)) return "pointer";
  if (/\* ?\*$/.test(plain)) return "buffer"; // an out-parameter that receives a handle or an address
  if (/^void ?\*$/.test(plain)) return "pointer"; // host memory from airk_host_alloc
  if (/^(char|u?int(8|16|32|64)_t|float|double|airk_ptr) ?\*$/.test(plain)) return "buffer";
  const scalars: Record<string, string> = {
    int32_t: "i32",
    uint32_t: "u32",
    int64_t: "i64",
    uint64_t: "u64",
    uint8_t: "u8",
    float: "f32",
    double: "f64",
    airk_ptr: "u64",
    airk_status: "i32",
    void: "void",
  };
  if (plain in scalars) return scalars[plain];
  throw new Error(`Cannot generate ${where}: unknown C type "${type}"`);
}

function generate(header: string): string {
  const version = /#define AIRK_ABI_VERSION (\d+)/.exec(header)?.[1];
  if (!version) throw new Error("Cannot generate the table: AIRK_ABI_VERSION is missing");
  const lines: string[] = [];
  // A comment counts for the prototypes that follow it directly; only its [waits] marker matters here.
  const pattern = /\/\*([\s\S]*?)\*\/|AIRK_API\s+([\w ]+?)\s*\b(airk_\w+)\(([^)]*)\);/g;
  let waits = false;
  for (const match of header.matchAll(pattern)) {
    if (match[1] !== undefined) {
      waits = /^\s*\[waits\]/.test(match[1]) || /^[\s*]*\[waits\]/.test(match[1]);
      continue;
    }
    const [, , result, name, parameterText] = match;
    const parameters = parameterText.trim() === "void" ? [] : parameterText.split(",").map((text) => {
      const parameter = /^(.*?)(\w+)$/.exec(text.trim());
      if (!parameter) throw new Error(`Cannot generate ${name}: parameter "${text.trim()}" has no name`);
      return `"${ffiType(parameter[1], name)}"`;
    });
    const nonblocking = waits ? ", nonblocking: true" : "";
    lines.push(`  ${name}: { parameters: [${parameters.join(", ")}], result: "${ffiType(result, name)}"${nonblocking} },`);
    waits = false;
  }
  const enumerators = [...header.matchAll(/\b(AIRK_[A-Z0-9_]+) = (\d+)/g)]
    .map(([, name, value]) => `export const ${name} = ${value};`);
  return `// GENERATED from cuda/airkern.h by scripts/generate_abi.ts. Do not edit: run \`deno task generate\`.
// deno-fmt-ignore-file

export const AIRK_ABI_VERSION = ${version};
${enumerators.join("\n")}

export const SYMBOLS = {
${lines.join("\n")}
} as const;
`;
}

const generated = generate(Deno.readTextFileSync(HEADER));
let current = "";
try {
  current = Deno.readTextFileSync(OUTPUT);
} catch (error) {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
if (Deno.args.includes("--check")) {
  if (current !== generated) {
    console.error("lib/ffi/abi.ts is stale: run `deno task generate`");
    Deno.exit(1);
  }
} else if (current !== generated) {
  Deno.writeTextFileSync(OUTPUT, generated);
}
