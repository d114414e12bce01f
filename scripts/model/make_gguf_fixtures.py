#!/usr/bin/env python3
"""Write tests/fixtures/gguf/: tiny models as GGUF files, written by gguf-py, with what gguf-py dequantizes and transformers computes from that, and
tokenizers with the ids that Hugging Face tokenizers gives.

gguf-py quantizes no K-quants, so their blocks are random bytes with scales that give sane weights.
"""

import shutil
import tempfile

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from make_encoding_fixtures import sha256
from make_fixtures import FIXTURES, clear_case, float32_list, tensor_json, versions, write_json

OUT = FIXTURES / "gguf"
TYPES = gguf.GGMLQuantizationType
TEXTS = ["In the beginning God created the heaven.", " two  spaces\n\nand 1234567 lines", "naïve café 🙂 don't", "", "a<|end|>b"]


def random_blocks(kind, rows, cols, rng):
    """Blocks of a type that gguf-py does not write; their float16 scales make weights of about 1 / sqrt(cols)."""
    blocks, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows, cols // blocks, size), dtype=np.uint8)
    scale = {TYPES.Q4_K: 4e-4, TYPES.Q5_K: 2e-4, TYPES.Q6_K: 3e-5, TYPES.IQ4_NL: 1e-3}[kind]
    for at in {TYPES.Q4_K: (0, 2), TYPES.Q5_K: (0, 2), TYPES.Q6_K: (208,), TYPES.IQ4_NL: (0,)}[kind]:
        factor = 4 if at == 2 else 1
        values = (scale * factor * (0.5 + rng.random((rows, cols // blocks)))).astype(np.float16)
        data[:, :, at : at + 2] = values.view(np.uint8).reshape(rows, cols // blocks, 2)
    return data.reshape(rows, -1)


def permuted(rows, heads):
    """Which row of a GGUF file of architecture llama is row r of the checkpoint: halves of heads become neighbours."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def train_bpe(pattern, normalizer):
    tokenizer = Tokenizer(models.BPE(ignore_merges=False))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pattern
    tokenizer.decoder = decoders.ByteLevel()
    corpus = (FIXTURES.parent.parent / "models" / "kjv-5m" / "heldout.txt").read_text(encoding="utf-8")
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([corpus], trainer)
    return tokenizer


def byte_level(pattern):
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def write_tokenizer(writer, pre, tokenizer):
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    import json

    merges = [" ".join(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocab["<|begin|>"])
    writer.add_eos_token_id(vocab["<|end|>"])
    writer.add_add_bos_token(True)


def write_model(name, architecture, model_class, config, kinds, pre, tokenizer, seed):
    directory = OUT / name
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(directory / "model.gguf", architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    write_tokenizer(writer, pre, tokenizer)
    model = model_class(config)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), config.num_hidden_layers)
    state, expected = {}, {}
    for key, parameter in model.state_dict().items():
        if config.tie_word_embeddings and key == "lm_head.weight":
            continue
        target = names.get_name(key, try_suffixes=(".weight", ".bias"))
        shape = tuple(parameter.shape)
        kind = next((kind for part, kind in kinds.items() if part in key), TYPES.F32) if len(shape) == 2 else TYPES.F32
        if kind in (TYPES.F32, TYPES.F16, TYPES.BF16, TYPES.Q4_0, TYPES.Q8_0):
            mean = 1.0 if len(shape) == 1 and "bias" not in key else 0.0
            values = (mean + rng.standard_normal(shape) * (0.1 if len(shape) == 1 else 1.4 / np.sqrt(shape[-1]))).astype(np.float32)
            data = values if kind == TYPES.F32 else quantize(values, kind)
        else:
            data = random_blocks(kind, *shape, rng)
        values = data if kind == TYPES.F32 else dequantize(data, kind)
        writer.add_tensor(target, data, raw_dtype=kind)
        values = torch.from_numpy(np.ascontiguousarray(values))
        if kind not in (TYPES.F32, TYPES.F16, TYPES.BF16):
            expected[key] = {"type": kind.name, "shape": list(shape), "sha256": sha256(values), "first": float32_list(values.flatten()[:8])}
        if architecture == "llama" and ("q_proj" in key or "k_proj" in key):
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            values = values[torch.from_numpy(permuted(shape[0], heads))]
        state[key] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        prompt, (prompt_logits, tokens, steps, gaps) = clear_case(temporary, 9, seed=seed, new_tokens=16, candidates=10)
    case = {
        "prompt_ids": prompt, "prompt_logits": tensor_json(prompt_logits), "greedy_ids": tokens, "decode_logits": tensor_json(steps[:4]),
        "margin": min(gaps),
    }
    begin = tokenizer.token_to_id("<|begin|>")
    encoded = [{"text": text, "ids": [begin, *tokenizer.encode(text, add_special_tokens=False).ids]} for text in TEXTS if "<|" not in text]
    write_json(
        directory / "expected.json",
        {"made_with": versions(transformers, torch, tokenizers) | {"gguf": "0.19.0"}, "tensors": expected, "cases": [case], "texts": encoded},
    )
    print(f"{name}: {(directory / 'model.gguf').stat().st_size} bytes, margin {min(gaps):.3f}")


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    write_model(
        "llama", "llama", LlamaForCausalLM,
        LlamaConfig(
            vocab_size=320, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
            head_dim=64, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, **rope,
        ),
        {
            "q_proj": TYPES.Q4_K, "k_proj": TYPES.Q8_0, "v_proj": TYPES.Q6_K, "o_proj": TYPES.Q5_K, "gate_proj": TYPES.Q4_0,
            "up_proj": TYPES.IQ4_NL, "down_proj": TYPES.Q4_K, "embed_tokens": TYPES.Q6_K, "lm_head": TYPES.Q8_0,
        },
        "llama-bpe", train_bpe(byte_level(LLAMA3), None), 31,
    )
    write_model(
        "qwen3", "qwen3", Qwen3ForCausalLM,
        Qwen3Config(
            vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            head_dim=32, max_position_embeddings=128, rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, **rope,
        ),
        {"q_proj": TYPES.F16, "k_proj": TYPES.BF16, "mlp": TYPES.Q8_0, "proj": TYPES.Q4_0, "embed_tokens": TYPES.F16},
        "qwen2", train_bpe(byte_level(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")), normalizers.NFC()), 32,
    )
    for path in OUT.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
