/**
 * Quantizes a checkpoint: what `deno task quantize MODEL_DIR --out DIR` calls, the command line's `quantize`.
 * @module
 */
import { main } from "../lib/cli/main.ts";

await main(["quantize", ...Deno.args]);
