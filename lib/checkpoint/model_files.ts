/**
 * The files of a checkpoint that are of use, by name.
 * @module
 */

/** Says what the model is; without it a directory is no checkpoint. */
export const CONFIG_FILE = "config.json";

/** Says how text is generated, among others what ends it; many checkpoints have none. */
export const GENERATION_CONFIG_FILE = "generation_config.json";

/** Say how the weights are quantized where config.json does not, and the `quant_method` each means: of ModelOpt, AutoGPTQ and AutoAWQ. */
export const QUANTIZATION_FILES: Readonly<Record<string, string>> = {
  "hf_quant_config.json": "modelopt",
  "quantize_config.json": "gptq",
  "quant_config.json": "awq",
};

/** All weights in one file, or the list of those that share them. */
export const SINGLE_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";

/** The same as PyTorch writes them; read where a directory has none of the above. */
export const PYTORCH_FILE = "pytorch_model.bin";
export const PYTORCH_INDEX_FILE = "pytorch_model.bin.index.json";

/** What a checkpoint's weights are in: one file, or several that an index lists. Of two kinds the first is read. */
export const WEIGHT_FILES: readonly { single: string; index: string }[] = [
  { single: SINGLE_FILE, index: INDEX_FILE },
  { single: PYTORCH_FILE, index: PYTORCH_INDEX_FILE },
];

/** Folder of chat templates that have a name, such as `tool_use.jinja`. */
export const CHAT_TEMPLATE_FOLDER = "additional_chat_templates";

/** Files that tokenizers and chat templates are made from; a checkpoint has some of them. */
export const TOKENIZER_FILES: readonly string[] = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "tokenizer.model",
  "ice_text.model",
  "tiktoken.model",
  "vocab.json",
  "merges.txt",
];
