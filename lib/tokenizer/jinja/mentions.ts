/**
 * Finds the names that a macro's body uses.
 * @module
 */
import type { Statement } from "./syntax.ts";

const found = new WeakMap<readonly Statement[], Set<string>>();

function collect(node: unknown, names: Set<string>): void {
  if (typeof node !== "object" || node === null) return;
  if (node instanceof Map) { for (const pair of node) collect(pair, names); }
  else if (Array.isArray(node)) { for (const item of node) collect(item, names); }
  else {
    const { type, value, computed } = node as { type?: string; value?: unknown; computed?: boolean };
    if (type === "Identifier" && typeof value === "string") names.add(value);
    for (const [key, child] of Object.entries(node)) {
      // The name after a dot and that of a named argument are no variables.
      if (key === "property" ? computed : key !== "key") collect(child, names);
    }
  }
}

/** Returns whether some statements use a variable of a name. */
export function mentions(body: readonly Statement[], name: string): boolean {
  let names = found.get(body);
  if (!names) {
    names = new Set();
    collect(body, names);
    found.set(body, names);
  }
  return names.has(name);
}
