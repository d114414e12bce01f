/** Times what importing the library takes. Run alone: other tests beside it would be measured too. */
import assert from "node:assert/strict";
import { ROOT } from "../shipped_model.ts";

Deno.test("importing mod.ts takes less than 100 ms, the best of 5 processes", async () => {
  const script = `const start = performance.now(); await import("./mod.ts"); console.log(performance.now() - start);`;
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["eval", script], cwd: ROOT }).output();
    times.push(Number(new TextDecoder().decode(stdout)));
  }
  assert.ok(Math.min(...times) < 100, `${times.map((ms) => ms.toFixed(0)).join(", ")} ms`);
});
