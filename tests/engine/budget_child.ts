/**
 * Run by budget_test.ts as a process of its own: generates within a budget and prints what it took. Arguments: directory, budget in bytes.
 */
import { Engine } from "../../lib/engine/engine.ts";

const [path, ramBytes] = Deno.args;
await using engine = await Engine.open(path, { ramBytes: Number(ramBytes), contextTokens: 256, passTokens: 128, threads: 2 });
using sequence = engine.openSequence();
let tokens = Array.from({ length: 100 }, (_, i) => (i * 53) % 256);
for (let i = 0; i < 24; i++) {
  const [{ argmax }] = await engine.pass([{ sequence, tokens, logits: "last", output: "argmax" }]);
  tokens = [argmax![0]];
}
const { resident: _, ...plan } = engine.plan;
console.log(JSON.stringify({ plan, statistics: engine.statistics }));
