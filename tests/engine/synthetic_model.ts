/**
 * Shard directories of random q4o weights, large enough that a budget has to stream them.
 */
import { synthesizeModel } from "../../scripts/synthesize_model.ts";

/** A layer takes 6.9 MB. */
const CONFIG = {
  model_type: "llama",
  hidden_act: "silu",
  hidden_size: 1024,
  intermediate_size: 2816,
  num_attention_heads: 16,
  num_key_value_heads: 4,
  vocab_size: 1000,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  bos_token_id: 256,
  eos_token_id: 257,
};

/** Writes a model of `layers` layers; with `linkLayers` they are links of one. Removed when disposed of. */
export async function syntheticModel(layers: number, linkLayers: boolean): Promise<{ path: string } & Disposable> {
  const path = Deno.makeTempDirSync({ prefix: "airkern-synthetic-" });
  await synthesizeModel({
    config: { ...CONFIG, num_hidden_layers: layers },
    name: "test",
    out: path,
    compression: "q4o",
    linkLayers,
    seed: 1,
  });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}
