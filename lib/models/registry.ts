/**
 * Finds the architecture that serves a checkpoint.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { Architecture } from "./architecture.ts";
import { AFMOE } from "./afmoe.ts";
import { APERTUS } from "./apertus.ts";
import { BAICHUAN } from "./baichuan.ts";
import { BLOOM } from "./bloom.ts";
import { CHATGLM } from "./chatglm.ts";
import { CHATGLM_1 } from "./chatglm_1.ts";
import { COHERE, COHERE2 } from "./cohere.ts";
import { EXAONE } from "./exaone.ts";
import { EXAONE4 } from "./exaone4.ts";
import { DEEPSEEK_V2, DEEPSEEK_V3, DEEPSEEK_V32, KIMI_K25 } from "./deepseek.ts";
import { DOTS1 } from "./dots1.ts";
import { ERNIE4_5_MOE } from "./ernie4_5_moe.ts";
import { EXAONE_MOE } from "./exaone_moe.ts";
import { FALCON } from "./falcon.ts";
import { GEMMA } from "./gemma.ts";
import { GEMMA2, VAULTGEMMA } from "./gemma2.ts";
import { GEMMA3, GEMMA3_TEXT } from "./gemma3.ts";
import { GEMMA4, GEMMA4_TEXT } from "./gemma4.ts";
import { GLM, GLM4, GLM4V } from "./glm4.ts";
import { GLM4_MOE, GLM4V_MOE } from "./glm4_moe.ts";
import { GPT2, GPT_BIGCODE, GPT_NEO } from "./gpt2.ts";
import { GPT_NEOX } from "./gpt_neox.ts";
import { CODEGEN, GPTJ } from "./gptj.ts";
import { GLM4_MOE_LITE, GLM_MOE_DSA } from "./glm4_moe_lite.ts";
import { GPT_OSS } from "./gpt_oss.ts";
import { GRANITE } from "./granite.ts";
import { GRANITEMOE, GRANITEMOESHARED } from "./granitemoe.ts";
import { HUNYUAN_V1_DENSE } from "./hunyuan_v1_dense.ts";
import { HUNYUAN_V1_MOE } from "./hunyuan_v1_moe.ts";
import { HY_V3 } from "./hy_v3.ts";
import { GRANITEMOEHYBRID } from "./granitemoehybrid.ts";
import { INTERNLM, INTERNLM2, INTERNLM3 } from "./internlm.ts";
import { LFM2, LFM2_MOE } from "./lfm2.ts";
import { LLAMA, MLLAMA } from "./llama.ts";
import { ARCEE, ERNIE4_5, HELIUM, SEED_OSS } from "./llama_kin.ts";
import { LLAMA4, LLAMA4_TEXT } from "./llama4.ts";
import { INTERNVL, INTERNVL_CHAT, LLAVA, SMOLVLM } from "./llava.ts";
import { MINISTRAL, MINISTRAL3, MISTRAL, MISTRAL3 } from "./mistral.ts";
import { MIMO_V2_FLASH } from "./mimo_v2_flash.ts";
import { MINIMAX_M2 } from "./minimax_m2.ts";
import { MIXTRAL } from "./mixtral.ts";
import { MPT } from "./mpt.ts";
import { NANOCHAT } from "./nanochat.ts";
import { NEMOTRON } from "./nemotron.ts";
import { NEMOTRON_H } from "./nemotron_h.ts";
import { OLMO } from "./olmo.ts";
import { OLMO2, OLMO3 } from "./olmo2.ts";
import { OLMOE } from "./olmoe.ts";
import { OPT } from "./opt.ts";
import { PHI } from "./phi.ts";
import { PHI3 } from "./phi3.ts";
import { QWEN } from "./qwen.ts";
import { QWEN2, QWEN2_VL } from "./qwen2.ts";
import { PHIMOE } from "./phimoe.ts";
import { QWEN2_MOE } from "./qwen2_moe.ts";
import { QWEN3, QWEN3_VL } from "./qwen3.ts";
import { QWEN3_5, QWEN3_5_MOE, QWEN3_5_MOE_TEXT, QWEN3_5_TEXT } from "./qwen3_5.ts";
import { QWEN3_MOE, QWEN3_VL_MOE } from "./qwen3_moe.ts";
import { QWEN3_NEXT } from "./qwen3_next.ts";
import { SMOLLM3 } from "./smollm3.ts";
import { SOLAR_OPEN } from "./solar_open.ts";
import { STABLELM } from "./stablelm.ts";
import { STARCODER2 } from "./starcoder2.ts";

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
