/**
 * Finds the architecture that serves a checkpoint.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { Architecture } from "./architecture.ts";
import { LLAMA } from "./llama.ts";
import { MIXTRAL } from "./mixtral.ts";
import { QWEN2_MOE } from "./qwen2_moe.ts";
import { QWEN3_MOE } from "./qwen3_moe.ts";

const ARCHITECTURES: readonly Architecture[] = [LLAMA, MIXTRAL, QWEN2_MOE, QWEN3_MOE];

/**
 * Returns the architecture that serves the `model_type` of a config.json.
 * @throws {UnsupportedError} where it is missing or unknown.
 */
export function architectureFor(config: Record<string, unknown>): Architecture {
  const modelType = config.model_type;
  const found = ARCHITECTURES.find((architecture) => architecture.modelTypes.some((known) => known === modelType));
  if (found) return found;
  const supported = ARCHITECTURES.flatMap((architecture) => architecture.modelTypes).join(", ");
  throw new UnsupportedError(
    modelType === undefined
      ? `Cannot choose an architecture: config.json has no model_type; supported: ${supported}`
      : `Cannot use architecture ${JSON.stringify(modelType)}: supported: ${supported}`,
  );
}
