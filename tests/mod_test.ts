import assert from "node:assert/strict";
import { ROOT } from "./shipped_model.ts";

/** A module as `deno info --json` describes it. */
interface ModuleInfo {
  specifier: string;
  dependencies?: { specifier: string; isDynamic?: boolean; code?: { specifier: string } }[];
}

Deno.test("importing mod.ts loads neither the command line nor any package", async () => {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json", "mod.ts"], cwd: ROOT }).output();
  const { roots, modules } = JSON.parse(new TextDecoder().decode(stdout)) as { roots: string[]; modules: ModuleInfo[] };
  const bySpecifier = new Map(modules.map((module) => [module.specifier, module]));
  const loaded = new Set(roots);
  for (const specifier of loaded) {
    for (const { isDynamic, code } of bySpecifier.get(specifier)?.dependencies ?? []) {
      if (!isDynamic && code) loaded.add(code.specifier);
    }
  }
  assert.ok(loaded.size > 20);
  assert.deepEqual([...loaded].filter((specifier) => /\/lib\/cli\/|^npm:/.test(specifier)), []);
});
