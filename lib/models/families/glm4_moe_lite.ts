/**
 * GLM-4.7-Flash and GLM-5: DeepSeek-V3's attention to latents with GLM-4.5's experts; in GLM-5 an indexer chooses the tokens that are attended to. Follows
 * transformers' `modeling_glm4_moe_lite.py` and `modeling_glm_moe_dsa.py`.
 * @module
 */
import type { RouterConfig } from "../../layers/router.ts";
import type { ConfigReader } from "../config_reader.ts";
import { deepseek } from "./deepseek.ts";
import { languageModel } from "../language_model.ts";
import { correctedRouter } from "../moe_config.ts";

/** Returns the reader of a router without groups. */
function ungroupedRouter(scale: number) {
  return (config: ConfigReader, experts: Pick<RouterConfig, "numExperts" | "topK">): RouterConfig =>
    correctedRouter(config, experts, { groups: { count: 1, kept: 1 }, scale });
}

const SIZES = { contextTokens: 202_752, plainDim: 192, valueDim: 256, eps: 1e-5, sharedExperts: 1 };

/** GLM-4.7-Flash. */
export const GLM4_MOE_LITE = languageModel(
  ["glm4_moe_lite"],
  deepseek({
    missing: { ...SIZES, queryRank: 768, numExperts: 64, topK: 4, denseLayers: 1, expertSize: 1536 },
    router: ungroupedRouter(1.8),
    choosesPairs: true,
  }),
);

/** GLM-5, in sequences of which its indexer chooses every token, whichever layers have one. */
export const GLM_MOE_DSA = languageModel(
  ["glm_moe_dsa"],
  deepseek({
    missing: { ...SIZES, queryRank: 2048, numExperts: 256, topK: 8, denseLayers: 3, expertSize: 2048 },
    router: ungroupedRouter(2.5),
    choosesPairs: false,
    choosesTokens: true,
  }),
);
