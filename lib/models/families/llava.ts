/**
 * The language models of LLaVA, InternVL, SmolVLM and Idefics 3, which are other families' as they are. Follows transformers' `modeling_llava.py`,
 * `modeling_llava_next.py`, `modeling_llava_onevision.py`, `modeling_internvl.py`, `modeling_smolvlm.py` and `modeling_idefics3.py`.
 * @module
 */
import { NESTED, wholeModel, WRAPPED } from "../language_model.ts";
import { LLAMA_LANGUAGE } from "./llama.ts";
import { MISTRAL_LANGUAGE } from "./mistral.ts";
import { QWEN2_LANGUAGE } from "./qwen2.ts";
import { QWEN3_LANGUAGE } from "./qwen3.ts";
import { QWEN3_MOE_LANGUAGE } from "./qwen3_moe.ts";

const FAMILIES = {
  ...{ llama: LLAMA_LANGUAGE, mistral: MISTRAL_LANGUAGE, qwen2: QWEN2_LANGUAGE, qwen3: QWEN3_LANGUAGE },
  qwen3_moe: QWEN3_MOE_LANGUAGE,
};

const NEEDLESS = /^((model\.)?(vision_tower|vision_model|multi_modal_projector)\.|(model\.)?image_newline$)/;

/** LLaVA 1.5 and 1.6, LLaVA-OneVision, Pixtral. */
export const LLAVA = wholeModel({
  modelTypes: ["llava", "llava_next", "llava_onevision"],
  languages: FAMILIES,
  missing: "llama",
  names: [WRAPPED, NESTED],
  needless: NEEDLESS,
});

/** InternVL 2.5 and later, as transformers has them. */
export const INTERNVL = wholeModel({
  modelTypes: ["internvl"],
  languages: FAMILIES,
  missing: "qwen2",
  names: [WRAPPED, NESTED],
  needless: NEEDLESS,
});

/** InternVL 2, 2.5, 3 and 3.5 as they were released, of Llama or Qwen; those of InternLM are refused. */
export const INTERNVL_CHAT = wholeModel({
  modelTypes: ["internvl_chat"],
  key: "llm_config",
  languages: FAMILIES,
  missing: "qwen2",
  names: [WRAPPED],
  needless: /^(vision_model|mlp1)\./,
});

/** SmolVLM and Idefics 3. */
export const SMOLVLM = wholeModel({
  modelTypes: ["smolvlm", "idefics3"],
  languages: FAMILIES,
  missing: "llama",
  names: [{ root: "model.text_model.", head: "lm_head.weight" }],
  needless: /^model\.(vision_model|connector)\./,
});
