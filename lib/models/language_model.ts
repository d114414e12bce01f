/**
 * Whole models that also see or hear, of which the language model alone is used: where their config.json has its settings, and under which names their
 * checkpoints have its tensors.
 * @module
 */
import type { Architecture, ModelConfig } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture, type DecoderFamily, type DecoderNames } from "./decoder.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

/** A family that a language model within a whole model may be of. */
export interface LanguageFamily
  extends Pick<DecoderFamily, "layerSource" | "otherLayerSource" | "refusesExport" | "ignoredTensorReason"> {
  /**
   * Parses the language model's settings.
   * @param modelType What the configuration is called: the `model_type` of the whole model, or of the language model by itself.
   * @throws {UnsupportedError}
   */
  parse(config: ConfigReader, modelType: string): ModelConfig;
  /** Values of the sizes that a `text_config` leaves out where they are those of transformers' configuration class. */
  sizes?: Readonly<Record<string, number>>;
}

/** A whole model. */
export interface WholeModel {
  /** Values of `model_type` it has. */
  modelTypes: string[];
  /** The families that its language model may be of, by the `model_type` of `text_config`. */
  languages: Readonly<Record<string, LanguageFamily>>;
  /** That of a `text_config` without one. */
  missing: string;
  /** The names that checkpoints have, those of releases first. */
  names: readonly LanguageNames[];
  /** Names of the tensors that only images or sounds go through. */
  needless: RegExp;
  /** The key of the language model's settings; `text_config` without it. */
  key?: string;
  /** Whether releases have the settings of the language model beside those of the whole, without a `text_config`. */
  flat?: boolean;
  /** What `tie_word_embeddings` is where it is set nowhere. */
  tied?: boolean;
}

/** Names of a language model's tensors: what stands in the place of `model.`, and its head. */
export interface LanguageNames {
  root: string;
  head: string;
}

/** As whole models have them that are made of whole language models. */
export const WRAPPED: LanguageNames = { root: "language_model.model.", head: "language_model.lm_head.weight" };

/** As transformers has had them since version 4.52. */
export const NESTED: LanguageNames = { root: "model.language_model.", head: "lm_head.weight" };

/** As a language model by itself has them. */
export const BARE: LanguageNames = { root: "model.", head: "lm_head.weight" };

/** Tensors outside of layers. */
const ROOT_NAMES = ["embed_tokens.weight", "norm.weight", "norm.bias"];

function decoderNames({ root, head }: LanguageNames): DecoderNames {
  return {
    layerPrefix: (layer) => `${root}layers.${layer}.`,
    rootNames: { "lm_head.weight": head, ...Object.fromEntries(ROOT_NAMES.map((name) => [`model.${name}`, root + name])) },
  };
}

/** Returns a language model by itself. */
export function languageModel(modelTypes: string[], family: LanguageFamily): Architecture {
  const { parse, sizes: _sizes, ...rest } = family;
  return decoderArchitecture({
    ...rest,
    modelTypes,
    parseConfig: (values) => {
      const config = new ConfigReader(values, "config.json");
      return parse(config, String(config.raw("model_type")));
    },
  });
}

/** Returns whether the embedding gives the logits too, which both the whole model's config and the language model's may say. @throws {UnsupportedError} */
function readTied(config: ConfigReader, text: ConfigReader, missing: boolean): boolean {
  const inText = text.boolean("tie_word_embeddings", missing), tied = config.boolean("tie_word_embeddings", inText);
  // transformers writes its default beside text_config, which is often true; releases tie where one of both says so.
  if (inText && !tied) throw text.refuse("tie_word_embeddings", "the same as beside text_config (false)");
  return tied;
}

/** Returns the architecture of a whole model's language model. */
export function wholeModel(
  { modelTypes, languages, missing, names, needless, flat, key = "text_config", tied = false }: WholeModel,
): Architecture {
  const familyOf = ({ languageModelType }: ModelConfig): LanguageFamily => languages[languageModelType!];
  const [first, ...otherNames] = names.map(decoderNames);

  function parseConfig(values: Record<string, unknown>): ModelConfig {
    const config = new ConfigReader(values, "config.json"), found = config.object(key);
    if (!found && !flat) throw config.refuse(key, "an object");
    if (found) refuseUnimplemented(config);
    const text = found ?? config;
    const type = found?.has("model_type") ? found.raw("model_type") : missing;
    if (typeof type !== "string" || !Object.hasOwn(languages, type)) {
      throw text.refuse("model_type", Object.keys(languages).map((known) => JSON.stringify(known)).join(" or "));
    }
    const settings = text.withMissing(languages[type].sizes ?? {}).with({ tie_word_embeddings: readTied(config, text, tied) });
    return { ...languages[type].parse(settings, String(config.raw("model_type"))), languageModelType: type };
  }

  function ignoredTensorReason(name: string, config: ModelConfig): string | undefined {
    if (needless.test(name)) return "images and sounds are not used, the language model is used alone";
    const root = names.map(({ root }) => root).find((root) => name.startsWith(root));
    return root && familyOf(config).ignoredTensorReason?.(`model.${name.slice(root.length)}`, config);
  }

  return decoderArchitecture({
    modelTypes,
    parseConfig,
    ...first,
    otherNames,
    layerSource: (name, config, layer) => familyOf(config).layerSource?.(name, config, layer),
    otherLayerSource: (name, config, layer) => familyOf(config).otherLayerSource?.(name, config, layer),
    ignoredTensorReason,
  });
}
