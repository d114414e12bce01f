// Measures llama.cpp through node-llama-cpp and prints one JSON object. Run by Node, as a child of peer.ts:
//
//   node llama_cpp.mjs MODULE_FOLDER MODEL.gguf THREADS PROMPT_TOKENS TOKENS ROUNDS [lazy]
//
// MODULE_FOLDER: where node-llama-cpp was installed. lazy: have tensors read when they are first needed, by mmap.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, modelPath, ...rest] = process.argv.slice(2);
const [threads, promptTokens, maxTokens, rounds] = rest.map(Number), lazyMode = rest[4] === "lazy";
const module = join(folder, "node_modules/node-llama-cpp/dist/index.js");
const { getLlama } = await import(pathToFileURL(module).href);

const logged = [];
const llama = await getLlama({
  gpu: false,
  build: "never",
  maxThreads: threads,
  logLevel: "info",
  logger: (_level, message) => logged.push(message),
});
const loadStart = performance.now();
const model = await llama.loadModel({ modelPath, gpuLayers: 0, lazyMode, ignoreMemorySafetyChecks: true });
const context = await model.createContext({
  contextSize: promptTokens + maxTokens + 8,
  batchSize: Math.max(promptTokens, 8),
  threads,
  performanceTracking: true,
  ignoreMemorySafetyChecks: true,
});
const loadSeconds = (performance.now() - loadStart) / 1000;
const sequence = context.getSequence();
const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + (i * 7919) % 30000);

// The lines of llama.cpp's own clock: "prompt eval time = 12809.61 ms / 512 tokens", "eval time = 2893.80 ms / 31 runs".
async function ownTimings() {
  logged.length = 0;
  await context.printTimings();
  const text = logged.join("\n");
  const milliseconds = (line) => {
    const found = text.match(new RegExp(`(?:^|[^t] )${line}\\s*=\\s*([0-9.]+) ms\\s*/\\s*([0-9]+)`, "m"));
    return found === null ? undefined : { seconds: Number(found[1]) / 1000, count: Number(found[2]) };
  };
  return { prompt: milliseconds("prompt eval time"), decode: milliseconds("eval time"), text };
}

const results = [];
for (let round = 0; round < rounds; round++) {
  await sequence.clearHistory();
  await ownTimings();
  const tokenSeconds = [];
  let previous = performance.now(), prefillSeconds;
  for await (const _token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    const now = performance.now();
    if (prefillSeconds === undefined) prefillSeconds = (now - previous) / 1000;
    else tokenSeconds.push((now - previous) / 1000);
    previous = now;
    if (tokenSeconds.length === maxTokens - 1) break;
  }
  const own = await ownTimings();
  results.push({
    prefillSeconds,
    decodeSeconds: tokenSeconds.reduce((a, b) => a + b, 0),
    decodedTokens: tokenSeconds.length,
    own,
  });
}
const peakRssBytes = 1024 * Number(readFileSync("/proc/self/status", "utf8").match(/VmHWM:\s*(\d+)/)[1]);
console.log(
  JSON.stringify({ systemInfo: llama.systemInfo, llamaCpp: llama.llamaCppRelease, loadSeconds, results, peakRssBytes }),
);
process.exit(0);
