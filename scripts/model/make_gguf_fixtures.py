#!/usr/bin/env python3
"""Write tests/fixtures/gguf/: tiny models as GGUF files, written by gguf-py with the keys that llama.cpp's conversion writes, with what gguf-py
dequantizes and transformers computes from that, and tokenizers with the ids that Hugging Face tokenizers gives. Where transformers reads GGUF files of
an architecture itself, it must compute the same from the file.

gguf-py quantizes no K-quants, so their blocks are random bytes with scales that give sane weights.
"""

import argparse
import dataclasses
import pathlib
import shutil
import tempfile
from typing import Callable

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM

from make_encoding_fixtures import sha256
from make_fixtures import FIXTURES, clear_case, float32_list, tensor_json, versions, write_json

OUT = FIXTURES / "gguf"
TYPES = gguf.GGMLQuantizationType
TEXTS = ["In the beginning God created the heaven.", " two  spaces\n\nand 1234567 lines", "naïve café 🙂 don't", "", "a<|end|>b"]


# Where blocks have their float16 numbers, the first a scale, and a scale that makes weights of about 1 / 16.
SCALES = {
    TYPES.Q2_K: ((80, 82), 7e-3), TYPES.Q3_K: ((108,), 1.4e-3), TYPES.Q4_K: ((0, 2), 4e-4), TYPES.Q5_K: ((0, 2), 2e-4), TYPES.Q6_K: ((208,), 3e-5),
    TYPES.IQ4_NL: ((0,), 1e-3), TYPES.IQ4_XS: ((0,), 5e-5), TYPES.IQ2_XXS: ((0,), 1e-3), TYPES.IQ2_XS: ((0,), 1e-3), TYPES.IQ2_S: ((0,), 1e-3),
    TYPES.IQ3_XXS: ((0,), 4e-4), TYPES.IQ3_S: ((0,), 4e-4), TYPES.IQ1_S: ((0,), 8e-3), TYPES.IQ1_M: ((), 8e-3),
}


def random_blocks(kind, rows, cols, rng):
    """Blocks of a type that gguf-py does not write."""
    blocks, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows, cols // blocks, size), dtype=np.uint8)
    places, scale = SCALES[kind]
    for at in places:
        # A minimum is as large as the mean of what it is taken from.
        factor = 1 if at == places[0] else 1.5 if kind == TYPES.Q2_K else 4
        values = (scale * factor * (0.5 + rng.random((rows, cols // blocks)))).astype(np.float16)
        data[:, :, at : at + 2] = values.view(np.uint8).reshape(rows, cols // blocks, 2)
    if kind == TYPES.IQ1_M:
        # The scale's four times four bits lie above those of the steps.
        values = (scale * (0.5 + rng.random((rows, cols // blocks)))).astype(np.float16).view(np.uint16)
        for i in range(4):
            data[:, :, 49 + 2 * i] = data[:, :, 49 + 2 * i] & 15 | (values >> (4 * i) & 15).astype(np.uint8) << 4
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


@dataclasses.dataclass
class Spec:
    architecture: str
    config: transformers.PretrainedConfig
    """The model; `read_as` where transformers takes another from the file."""
    kinds: dict
    """Types of matrices by a part of their names, the first that fits."""
    metadata: Callable = lambda writer, config: None
    """Writes what is the architecture's own."""
    by_transformers: bool = True
    """Whether transformers reads files of the architecture."""
    norm_shift: float = 0.0
    """What the conversion adds to the weights of norms."""
    extra: Callable = lambda config: {}
    """Tensors that no parameter stands for."""
    split: int = 0
    """Tensors a part where the file is split."""
    pre: str = "llama-bpe"


RNG = np.random.default_rng


def random_tensor(kind, shape, is_bias, rng):
    """A tensor as it is stored, and its values."""
    rows = shape if len(shape) == 2 else (int(np.prod(shape[:-1])), shape[-1])
    if kind not in SCALES:
        mean = 1.0 if len(shape) == 1 and not is_bias else 0.0
        values = (mean + rng.standard_normal(shape) * (0.1 if len(shape) == 1 else 1.4 / np.sqrt(shape[-1]))).astype(np.float32)
        data = values if kind == TYPES.F32 else quantize(values, kind)
    else:
        data = random_blocks(kind, *rows, rng)
        data = data.reshape(*shape[:-1], -1)
    return data, data if kind == TYPES.F32 else dequantize(data, kind).reshape(shape)


def stored_parts(key, shape):
    """What GGUF files store a parameter as: names of gguf-py's tables, shapes, and the names of the parts in released checkpoints."""
    if key.endswith("mlp.experts.gate_up_proj"):
        half = (shape[0], shape[1] // 2, shape[2])
        return [(key.replace("gate_up_proj", part) + ".weight", half) for part in ("gate_proj", "up_proj")]
    if key.endswith("mlp.experts.down_proj"):
        return [(f"{key}.weight", shape)]
    return [(key, shape)]


def write_file(path, spec, tokenizer, tensors, split=0):
    config = spec.config
    writer = gguf.GGUFWriter(path, spec.architecture, split_max_tensors=split)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    spec.metadata(writer, config)
    write_tokenizer(writer, spec.pre, tokenizer)
    for name, data, kind in tensors:
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_model(name, spec, tokenizer, seed):
    config, architecture = spec.config, spec.architecture
    directory = OUT / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    rng = RNG(seed)
    model = AutoModelForCausalLM.from_config(config)
    arch = next(arch for arch, found in gguf.MODEL_ARCH_NAMES.items() if found == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    state, expected = {}, {}
    tensors = [(target, values, TYPES.F32) for target, values in spec.extra(config).items()]
    for key, parameter in model.state_dict().items():
        if config.tie_word_embeddings and key == "lm_head.weight":
            continue
        parts = []
        for part, shape in stored_parts(key, tuple(parameter.shape)):
            target = names.get_name(part, try_suffixes=(".weight", ".bias"))
            # Routers and what gates a shared expert stay in float32, the latter as a vector.
            gate = part.endswith((".mlp.gate.weight", ".shared_expert_gate.weight"))
            kind = next((kind for piece, kind in spec.kinds.items() if piece in part), TYPES.F32) if len(shape) > 1 and not gate else TYPES.F32
            data, values = random_tensor(kind, shape, "bias" in part, rng)
            tensors.append((target, data[0] if part.endswith("shared_expert_gate.weight") else data, kind))
            values = torch.from_numpy(np.ascontiguousarray(values))
            if kind not in (TYPES.F32, TYPES.F16, TYPES.BF16):
                for name_of_one, one in stored_matrices(part, values, config):
                    expected[name_of_one] = {
                        "type": kind.name, "shape": list(one.shape), "sha256": sha256(one), "first": float32_list(one.flatten()[:8])
                    }
            parts.append(values)
        values = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        if architecture == "llama" and ("q_proj" in key or "k_proj" in key):
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            values = values[torch.from_numpy(permuted(values.shape[0], heads))]
        state[key] = values - spec.norm_shift if key.endswith("norm.weight") else values
    write_file(directory / "model.gguf", spec, tokenizer, tensors, spec.split)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        prompt, (prompt_logits, tokens, steps, gaps) = clear_case(temporary, 20, seed=seed, new_tokens=16, candidates=10)
        read = "not by transformers"
        if spec.by_transformers:
            # In one file, which is what it reads.
            write_file(pathlib.Path(temporary) / "model.gguf", spec, tokenizer, tensors)
            own = AutoModelForCausalLM.from_pretrained(
                temporary, gguf_file="model.gguf", config=config, dtype=torch.float32, attn_implementation="eager"
            )
    if spec.by_transformers:
        error = (own(input_ids=torch.tensor([prompt])).logits[0] - prompt_logits).abs().max() / prompt_logits.abs().max()
        assert error < 1e-5, f"transformers reads another model from the file: {error}"
        read = f"by transformers too, within {error:.1e}"
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
    size = sum(file.stat().st_size for file in directory.glob("*.gguf"))
    print(f"{name}: {size} bytes, margin {min(gaps):.3f}, {len(set(tokens))} tokens, {read}")


def stored_matrices(part, values, config):
    """The matrices of a stored tensor by the names that AirKern stores them under."""
    fused = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
    for name, parts in fused.items():
        if f".{name}." in part:
            rows = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
            sizes = [values.shape[0] - 2 * rows, rows, rows] if len(parts) == 3 else values.shape[0] // 2
            return [(part.replace(name, one), matrix) for one, matrix in zip(parts, values.split(sizes), strict=True)]
    if ".experts." not in part:
        return [(part, values)]
    return [(part.replace(".experts.", f".experts.{expert}."), matrix) for expert, matrix in enumerate(values)]


# --- models -------------------------------------------------------------------------------------------------

SIZES = dict(vocab_size=320, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=None)
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
SMALL = SIZES | dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def llama_keys(writer, config):
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def qwen_keys(writer, config):
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)


def expert_keys(writer, config):
    writer.add_expert_count(getattr(config, "num_experts", None) or config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)


def mixtral_keys(writer, config):
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    expert_keys(writer, config)


def qwen_moe_keys(writer, config):
    qwen_keys(writer, config)
    expert_keys(writer, config)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if hasattr(config, "shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)


def gemma_keys(writer, config):
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)


def gemma2_keys(writer, config):
    gemma_keys(writer, config)
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)


def gemma3_keys(writer, config):
    gemma_keys(writer, config)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(config.rope_parameters["full_attention"]["factor"])
    writer.add_sliding_window(config.sliding_window)


def phi3_keys(writer, config):
    parameters = config.rope_parameters
    writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    writer.add_rope_dimension_count(int(parameters["partial_rotary_factor"] * config.hidden_size) // config.num_attention_heads)
    writer.add_rope_freq_base(parameters["rope_theta"])
    writer.add_sliding_window(config.sliding_window or 0)
    scale = config.max_position_embeddings / config.original_max_position_embeddings
    writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(scale) / np.log(config.original_max_position_embeddings))))


def phi3_factors(config):
    factors = {length: np.array(config.rope_parameters[f"{length}_factor"], np.float32) for length in ("long", "short")}
    return {f"rope_factors_{length}.weight": values for length, values in factors.items()}


LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
LONGROPE |= {"short_factor": [1.0, 1.1, 1.2, 1.25, 1.3, 1.5], "long_factor": [1.0, 1.7, 3.5, 4.0, 4.5, 5.0]}
EIGHT_BIT = {"embed_tokens": TYPES.Q8_0, "proj": TYPES.Q4_0, "lm_head": TYPES.Q8_0}

MODELS = {
    "llama": lambda: Spec(
        "llama",
        transformers.LlamaConfig(
            **SIZES, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
            rms_norm_eps=1e-5, tie_word_embeddings=False, **ROPE,
        ),
        {
            "q_proj": TYPES.Q4_K, "k_proj": TYPES.Q8_0, "v_proj": TYPES.Q6_K, "o_proj": TYPES.Q5_K, "gate_proj": TYPES.Q4_0,
            "up_proj": TYPES.IQ4_NL, "down_proj": TYPES.Q4_K, "embed_tokens": TYPES.Q6_K, "lm_head": TYPES.Q8_0,
        },
        llama_keys,
    ),
    # The types that the first has not.
    "types": lambda: Spec(
        "llama",
        transformers.LlamaConfig(
            **SIZES, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
            rms_norm_eps=1e-5, tie_word_embeddings=False, **ROPE,
        ),
        {
            "q_proj": TYPES.Q2_K, "k_proj": TYPES.Q3_K, "v_proj": TYPES.IQ4_XS, "o_proj": TYPES.MXFP4, "gate_proj": TYPES.Q4_1,
            "up_proj": TYPES.Q5_0, "down_proj": TYPES.TQ2_0, "embed_tokens": TYPES.TQ1_0, "lm_head": TYPES.Q5_1,
        },
        llama_keys, by_transformers=False,
    ),
    "points": lambda: Spec(
        "llama",
        transformers.LlamaConfig(
            **SIZES, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
            rms_norm_eps=1e-5, tie_word_embeddings=False, **ROPE,
        ),
        {
            "q_proj": TYPES.IQ1_S, "k_proj": TYPES.IQ1_M, "v_proj": TYPES.IQ3_S, "o_proj": TYPES.IQ3_XXS, "gate_proj": TYPES.IQ2_XXS,
            "up_proj": TYPES.IQ2_XS, "down_proj": TYPES.IQ2_S, "embed_tokens": TYPES.Q2_K, "lm_head": TYPES.Q6_K,
        },
        llama_keys, by_transformers=False,
    ),
    "qwen3": lambda: Spec(
        "qwen3",
        transformers.Qwen3Config(
            **SIZES, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
            rms_norm_eps=1e-6, tie_word_embeddings=True, **ROPE,
        ),
        {"q_proj": TYPES.F16, "k_proj": TYPES.BF16, "mlp": TYPES.Q8_0, "proj": TYPES.Q4_0, "embed_tokens": TYPES.F16},
        qwen_keys, pre="qwen2",
    ),
    "qwen2": lambda: Spec(
        "qwen2", transformers.Qwen2Config(**SMALL, rms_norm_eps=1e-6, tie_word_embeddings=False, **ROPE), EIGHT_BIT, qwen_keys, split=7,
        pre="qwen2",
    ),
    "mixtral": lambda: Spec(
        "llama",
        transformers.MixtralConfig(
            **SMALL | dict(hidden_size=256, intermediate_size=64, num_hidden_layers=1), num_local_experts=4, num_experts_per_tok=2,
            rms_norm_eps=1e-5, sliding_window=None, **ROPE,
        ),
        {"experts.gate": TYPES.Q4_K, "experts.up": TYPES.Q6_K, "experts.down": TYPES.IQ4_NL, "": TYPES.Q8_0},
        mixtral_keys, by_transformers=False,
    ),
    "qwen2moe": lambda: Spec(
        "qwen2moe",
        transformers.Qwen2MoeConfig(
            **SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=64, norm_topk_prob=False,
            rms_norm_eps=1e-6, tie_word_embeddings=False, **ROPE,
        ),
        EIGHT_BIT, qwen_moe_keys, pre="qwen2",
    ),
    "qwen3moe": lambda: Spec(
        "qwen3moe",
        transformers.Qwen3MoeConfig(
            **SMALL, head_dim=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True, rms_norm_eps=1e-6,
            tie_word_embeddings=False, **ROPE,
        ),
        EIGHT_BIT, qwen_moe_keys, pre="qwen2",
    ),
    "gemma": lambda: Spec(
        "gemma", transformers.GemmaConfig(**SMALL, head_dim=32, rms_norm_eps=1e-6, **ROPE), EIGHT_BIT, gemma_keys, by_transformers=False,
        norm_shift=1.0,
    ),
    "gemma2": lambda: Spec(
        "gemma2",
        transformers.Gemma2Config(
            **SMALL, head_dim=32, query_pre_attn_scalar=32, attn_logit_softcapping=50.0, final_logit_softcapping=30.0, sliding_window=8,
            rms_norm_eps=1e-6, **ROPE,
        ),
        EIGHT_BIT, gemma2_keys, norm_shift=1.0,
    ),
    # The seventh layer is the first but one that sees all.
    "gemma3": lambda: Spec(
        "gemma3",
        transformers.Gemma3TextConfig(
            **SMALL | dict(num_hidden_layers=7, hidden_size=32, intermediate_size=32), head_dim=32, query_pre_attn_scalar=32, sliding_window=8,
            rms_norm_eps=1e-6,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ),
        EIGHT_BIT, gemma3_keys, norm_shift=1.0,
    ),
    "phi3": lambda: Spec(
        "phi3",
        transformers.Phi3Config(
            **SMALL, sliding_window=None, original_max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False,
            rope_parameters=LONGROPE,
        ),
        EIGHT_BIT, phi3_keys, extra=phi3_factors,
    ),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *MODELS], help="what to write; default all")
    made = {"llama-bpe": train_bpe(byte_level(LLAMA3), None)}
    made["qwen2"] = train_bpe(byte_level(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")), normalizers.NFC())
    for chosen in parser.parse_args().names or MODELS:
        spec = MODELS[chosen]()
        # A seed of its own name, so that a fixture does not change when others are added.
        write_model(chosen, spec, made[spec.pre], seed=sum(ord(c) * (i + 1) for i, c in enumerate(chosen)))
    for path in OUT.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
