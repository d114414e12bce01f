"""Writes a GGUF file of the Llama-2-7B shape with random Q4_0 weights (Q6_K head), the peer's side of the memory-limited comparison.

    pip install numpy gguf
    python scripts/bench/synthesize_gguf.py OUT.gguf [--layers 32]

Only speed can be measured with it: the weights are random.
"""

import argparse

import gguf
import numpy as np

HIDDEN, INTERMEDIATE, HEADS, VOCABULARY, CONTEXT = 4096, 11008, 32, 32000, 4096
# (bytes a block, weights a block, position of the block's float16 scale), from ggml-common.h
BLOCKS = {gguf.GGMLQuantizationType.Q4_0: (18, 32, 0), gguf.GGMLQuantizationType.Q6_K: (210, 256, 208)}


def random_matrix(rng: np.random.Generator, rows: int, cols: int, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    block_bytes, block_weights, scale_at = BLOCKS[kind]
    blocks = rng.integers(0, 256, (rows, cols // block_weights, block_bytes), dtype=np.uint8)
    # Random bits could read as infinities; every block gets one small scale instead.
    scale = np.array([0.002 if kind == gguf.GGMLQuantizationType.Q4_0 else 1e-5], np.float16).view(np.uint8)
    blocks[:, :, scale_at : scale_at + 2] = scale
    return blocks.reshape(rows, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="file to write, about 3.8 GB for 32 layers")
    parser.add_argument("--layers", type=int, default=32)
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(arguments.out, "llama", use_temp_file=False)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(arguments.layers)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    control, byte, normal = gguf.TokenType.CONTROL, gguf.TokenType.BYTE, gguf.TokenType.NORMAL
    tokens = [b"<unk>", b"<s>", b"</s>"] + [f"<0x{value:02X}>".encode() for value in range(256)]
    types = [gguf.TokenType.UNKNOWN, control, control] + [byte] * 256
    while len(tokens) < VOCABULARY:
        tokens.append(f"\u2581w{len(tokens)}".encode())
        types.append(normal)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    q4, q6 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q6_K

    def add(name: str, rows: int, cols: int, kind: gguf.GGMLQuantizationType) -> None:
        writer.add_tensor(name, random_matrix(rng, rows, cols, kind), raw_dtype=kind)

    ones = np.ones(HIDDEN, np.float32)
    add("token_embd.weight", VOCABULARY, HIDDEN, q4)
    for layer in range(arguments.layers):
        prefix = f"blk.{layer}."
        writer.add_tensor(prefix + "attn_norm.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(prefix + name + ".weight", HIDDEN, HIDDEN, q4)
        writer.add_tensor(prefix + "ffn_norm.weight", ones)
        add(prefix + "ffn_gate.weight", INTERMEDIATE, HIDDEN, q4)
        add(prefix + "ffn_up.weight", INTERMEDIATE, HIDDEN, q4)
        add(prefix + "ffn_down.weight", HIDDEN, INTERMEDIATE, q4)
    writer.add_tensor("output_norm.weight", ones)
    add("output.weight", VOCABULARY, HIDDEN, q6)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=False)
    writer.close()


if __name__ == "__main__":
    main()
