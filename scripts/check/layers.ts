/**
 * Enforces who may import whom, so that ARCHITECTURE.md cannot drift from the code.
 *
 * `deno run -A scripts/check/layers.ts`; prints each breach as `file:line: reason` and exits with 1 if there are any.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Folders of lib/ from which each folder may import; `type:` allows type-only imports. A folder may always import from itself. */
const ALLOWED: Record<string, string[]> = {
  "errors.ts": [],
  ffi: ["errors.ts"],
  checkpoint: ["errors.ts"],
  encodings: ["errors.ts", "checkpoint", "type:shard"],
  hub: ["errors.ts", "checkpoint"],
  memory: ["errors.ts"],
  tokenizer: ["errors.ts"],
  layers: ["errors.ts", "type:ffi"],
  cache: ["errors.ts", "ffi"],
  models: ["errors.ts", "layers"],
  shard: ["errors.ts", "checkpoint", "encodings", "models", "memory", "ffi"],
  stream: ["errors.ts", "shard", "memory", "ffi"],
  engine: ["errors.ts", "checkpoint", "models", "layers", "cache", "stream", "shard", "memory", "ffi"],
  generate: ["errors.ts", "engine", "tokenizer", "type:memory", "type:models"],
  "auto_model.ts": ["errors.ts", "generate", "engine", "tokenizer", "shard", "hub", "checkpoint", "memory", "ffi"],
  cli: [
    "errors.ts",
    "auto_model.ts",
    "generate",
    "engine",
    "tokenizer",
    "shard",
    "hub",
    "checkpoint",
    "stream",
    "memory",
    "models",
    "ffi",
  ],
};

/** Single files with a stricter rule than their folder: the planner is pure, the sampler knows numbers only. May name files. */
const STRICTER: Record<string, string[]> = {
  "memory/planner.ts": ["errors.ts", "memory/bytes.ts", "type:memory"],
  "memory/bytes.ts": ["errors.ts"],
  "memory/plan.ts": [],
  "generate/sampler.ts": ["errors.ts", "generate"],
  "generate/processors.ts": ["errors.ts", "generate"],
};

interface Import {
  line: number;
  specifier: string;
  typeOnly: boolean;
}

/** Lists the static and dynamic imports and re-exports of a module. */
function importsOf(source: string): Import[] {
  const found: Import[] = [];
  const pattern = /\b(import|export)\s+(type\s+)?(?:[\w*{}\s,$]+?\s+from\s+)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/g;
  const withoutComments = source.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, (comment) => comment.replace(/[^\n]/g, " "));
  for (const match of withoutComments.matchAll(pattern)) {
    const clause = match[0];
    // `import { type A, type B }` is as free of run-time dependencies as `import type`.
    const names = /\{([^}]*)\}/.exec(clause)?.[1].split(",").map((name) => name.trim()).filter(Boolean);
    const allTypes = match[2] !== undefined ||
      (names !== undefined && names.length > 0 && names.every((n) => n.startsWith("type ")));
    found.push({
      line: withoutComments.slice(0, match.index).split("\n").length,
      specifier: match[3] ?? match[4],
      typeOnly: allTypes,
    });
  }
  return found;
}

function* typescriptFiles(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* typescriptFiles(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

const breaches: string[] = [];
const lib = join(ROOT, "lib");
for (const path of typescriptFiles(lib)) {
  const name = relative(lib, path);
  const room = name.split("/")[0];
  const allowed = STRICTER[name] ?? ALLOWED[room];
  const where = (line: number) => `${relative(ROOT, path)}:${line}`;
  if (allowed === undefined) {
    breaches.push(`${where(1)}: lib/${room} has no rule in scripts/check/layers.ts`);
    continue;
  }
  const source = readFileSync(path, "utf8");
  for (const { line, specifier, typeOnly } of importsOf(source)) {
    if (/^(jsr:|https?:)/.test(specifier)) breaches.push(`${where(line)}: imports ${specifier}; only npm: and node: are allowed`);
    if (!specifier.startsWith(".")) continue;
    const target = relative(lib, join(dirname(path), specifier));
    const targetRoom = target.startsWith("..") ? "outside lib" : target.split("/")[0];
    if (targetRoom === room && STRICTER[name] === undefined) continue;
    if (allowed.includes(targetRoom) || allowed.includes(target) || (typeOnly && allowed.includes(`type:${targetRoom}`))) {
      continue;
    }
    breaches.push(`${where(line)}: lib/${STRICTER[name] ? name : room} may not import ${typeOnly ? "types of " : ""}${target}`);
  }
  if (room !== "ffi") {
    source.split("\n").forEach((text, index) => {
      if (/\bDeno\.(Unsafe|dlopen)/.test(text)) {
        breaches.push(`${where(index + 1)}: only lib/ffi may say Deno.Unsafe* or Deno.dlopen`);
      }
    });
  }
}
for (const breach of breaches) console.error(breach);
if (breaches.length > 0) Deno.exit(1);
