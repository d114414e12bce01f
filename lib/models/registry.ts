/**
 * Finds the architecture that serves a checkpoint.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { Architecture } from "./architecture.ts";
import { AFMOE } from "./families/afmoe.ts";
import { APERTUS } from "./families/apertus.ts";
import { BAICHUAN } from "./families/baichuan.ts";
import { BLOOM } from "./families/bloom.ts";
import { CHATGLM } from "./families/chatglm.ts";
import { CHATGLM_1 } from "./families/chatglm_1.ts";
import { COHERE, COHERE2 } from "./families/cohere.ts";
import { EXAONE } from "./families/exaone.ts";
import { EXAONE4 } from "./families/exaone4.ts";
import { DEEPSEEK_V2, DEEPSEEK_V3, DEEPSEEK_V32, KIMI_K25 } from "./families/deepseek.ts";
import { DOTS1 } from "./families/dots1.ts";
import { ERNIE4_5_MOE } from "./families/ernie4_5_moe.ts";
import { EXAONE_MOE } from "./families/exaone_moe.ts";
import { FALCON } from "./families/falcon.ts";
import { GEMMA } from "./families/gemma.ts";
import { GEMMA2, VAULTGEMMA } from "./families/gemma2.ts";
import { GEMMA3, GEMMA3_TEXT } from "./families/gemma3.ts";
import { GEMMA4, GEMMA4_TEXT } from "./families/gemma4.ts";
import { GLM, GLM4, GLM4V } from "./families/glm4.ts";
import { GLM4_MOE, GLM4V_MOE } from "./families/glm4_moe.ts";
import { GPT2, GPT_BIGCODE, GPT_NEO } from "./families/gpt2.ts";
import { GPT_NEOX } from "./families/gpt_neox.ts";
import { CODEGEN, GPTJ } from "./families/gptj.ts";
import { GLM4_MOE_LITE, GLM_MOE_DSA } from "./families/glm4_moe_lite.ts";
import { GPT_OSS } from "./families/gpt_oss.ts";
import { GRANITE } from "./families/granite.ts";
import { GRANITEMOE, GRANITEMOESHARED } from "./families/granitemoe.ts";
import { HUNYUAN_V1_DENSE } from "./families/hunyuan_v1_dense.ts";
import { HUNYUAN_V1_MOE } from "./families/hunyuan_v1_moe.ts";
import { HY_V3 } from "./families/hy_v3.ts";
import { GRANITEMOEHYBRID } from "./families/granitemoehybrid.ts";
import { INTERNLM, INTERNLM2, INTERNLM3 } from "./families/internlm.ts";
import { LFM2, LFM2_MOE } from "./families/lfm2.ts";
import { LLAMA, MLLAMA } from "./families/llama.ts";
import { ARCEE, ERNIE4_5, HELIUM, SEED_OSS } from "./families/llama_kin.ts";
import { LLAMA4, LLAMA4_TEXT } from "./families/llama4.ts";
import { INTERNVL, INTERNVL_CHAT, LLAVA, SMOLVLM } from "./families/llava.ts";
import { MINISTRAL, MINISTRAL3, MISTRAL, MISTRAL3 } from "./families/mistral.ts";
import { MIMO_V2_FLASH } from "./families/mimo_v2_flash.ts";
import { MINIMAX_M2 } from "./families/minimax_m2.ts";
import { MIXTRAL } from "./families/mixtral.ts";
import { MPT } from "./families/mpt.ts";
import { NANOCHAT } from "./families/nanochat.ts";
import { NEMOTRON } from "./families/nemotron.ts";
import { NEMOTRON_H } from "./families/nemotron_h.ts";
import { OLMO } from "./families/olmo.ts";
import { OLMO2, OLMO3 } from "./families/olmo2.ts";
import { OLMOE } from "./families/olmoe.ts";
import { OPT } from "./families/opt.ts";
import { PHI } from "./families/phi.ts";
import { PHI3 } from "./families/phi3.ts";
import { QWEN } from "./families/qwen.ts";
import { QWEN2, QWEN2_VL } from "./families/qwen2.ts";
import { PHIMOE } from "./families/phimoe.ts";
import { QWEN2_MOE } from "./families/qwen2_moe.ts";
import { QWEN3, QWEN3_VL } from "./families/qwen3.ts";
import { QWEN3_5, QWEN3_5_MOE, QWEN3_5_MOE_TEXT, QWEN3_5_TEXT } from "./families/qwen3_5.ts";
import { QWEN3_MOE, QWEN3_VL_MOE } from "./families/qwen3_moe.ts";
import { QWEN3_NEXT } from "./families/qwen3_next.ts";
import { SMOLLM3 } from "./families/smollm3.ts";
import { SOLAR_OPEN } from "./families/solar_open.ts";
import { STABLELM } from "./families/stablelm.ts";
import { STARCODER2 } from "./families/starcoder2.ts";

const ARCHITECTURES: readonly Architecture[] = [
  ...[LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3_TEXT, GEMMA3, PHI3, OLMO2, GRANITE, SMOLLM3, GLM, GLM4],
  // The first goes before the others of its name.
  ...[CHATGLM_1, CHATGLM],
  ...[INTERNLM2, INTERNLM3, BAICHUAN, COHERE, COHERE2, STABLELM, STARCODER2, FALCON],
  ...[MIXTRAL, QWEN2_MOE, QWEN3_MOE, GRANITEMOE, GLM4_MOE, GPT_OSS, DEEPSEEK_V2, DEEPSEEK_V3, DEEPSEEK_V32, LLAMA4, LLAMA4_TEXT],
  ...[MINIMAX_M2, ERNIE4_5_MOE, HUNYUAN_V1_MOE, HY_V3, DOTS1, OLMOE, EXAONE_MOE, SOLAR_OPEN, AFMOE, GRANITEMOESHARED, PHIMOE],
  ...[GLM4_MOE_LITE, GLM_MOE_DSA, MIMO_V2_FLASH],
  ...[LFM2, LFM2_MOE, GRANITEMOEHYBRID, NEMOTRON_H, GEMMA4_TEXT, GEMMA4],
  ...[QWEN3_NEXT, QWEN3_5, QWEN3_5_TEXT, QWEN3_5_MOE, QWEN3_5_MOE_TEXT],
  ...[OLMO3, SEED_OSS, EXAONE4, ERNIE4_5, HUNYUAN_V1_DENSE, ARCEE, NEMOTRON, HELIUM, VAULTGEMMA],
  ...[PHI, GPT_NEOX, GPTJ, CODEGEN, GPT2, GPT_NEO, GPT_BIGCODE, OPT, BLOOM, NANOCHAT, MPT, OLMO, APERTUS],
  ...[QWEN, INTERNLM, EXAONE, MINISTRAL],
  // Language models of what also sees images.
  ...[
    MISTRAL3,
    MINISTRAL3,
    QWEN2_VL,
    QWEN3_VL,
    QWEN3_VL_MOE,
    GLM4V,
    GLM4V_MOE,
    KIMI_K25,
    LLAVA,
    INTERNVL,
    INTERNVL_CHAT,
    SMOLVLM,
    MLLAMA,
  ],
];

/** All architectures. */
export function architectures(): readonly Architecture[] {
  return ARCHITECTURES;
}

/**
 * Returns the architecture that serves the `model_type` of a config.json.
 * @throws {UnsupportedError} where it is missing or unknown.
 */
export function architectureFor(config: Record<string, unknown>): Architecture {
  const modelType = config.model_type;
  const found = ARCHITECTURES.find(({ modelTypes, serves }) =>
    modelTypes.some((known) => known === modelType) && (serves?.(config) ?? true)
  );
  if (found) return found;
  const supported = [...new Set(ARCHITECTURES.flatMap((architecture) => architecture.modelTypes))].join(", ");
  throw new UnsupportedError(
    modelType === undefined
      ? `Cannot choose an architecture: config.json has no model_type; supported: ${supported}`
      : `Cannot use architecture ${JSON.stringify(modelType)}: supported: ${supported}`,
  );
}
