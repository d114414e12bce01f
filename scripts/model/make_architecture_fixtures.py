#!/usr/bin/env python3
"""Write the parity fixtures of the architectures under tests/fixtures/architectures/.

A fixture is a tiny random checkpoint with the keys of the family's released config.json files, and what Hugging Face
transformers (float32, CPU, eager attention) computes from it: logits of prompts, logits of cached steps after them,
greedy tokens. Families that transformers has no code for are made from a family that computes the same, with weights
and config rearranged to how the released checkpoints have them.

    make_architecture_fixtures.py [NAME...]    NAME: family, or family/variant; all without one
"""

import argparse
import dataclasses
import json
import math
import pathlib
import shutil
import tempfile
from typing import Callable

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache

from make_fixtures import FIXTURES, float32_list, tensor_json, versions, write_json

OUT = FIXTURES / "architectures"
VOCABULARY = 96

TINY = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None,
)


@dataclasses.dataclass
class Fixture:
    """How one checkpoint is made."""

    config: transformers.PretrainedConfig
    """What transformers computes with."""
    respell: Callable[[dict], dict] | None = None
    """Turns the config.json that transformers writes into the one that the family's releases have."""
    rearrange: Callable[[dict], dict] | None = None
    """Turns the tensors into the family's, where the reference is another."""
    adjust: Callable[[torch.nn.Module], None] | None = None
    """Changes the reference after it was loaded."""
    norm_mean: float = 1.0
    """Mean of the norms' weights: 0 where the model adds 1."""
    embedding_std: float | None = None
    """Without it small where the embedding gives the logits too, else a token predicts itself forever."""
    prompt_lengths: tuple[int, ...] = (3, 13)
    make_model: Callable | None = None
    """Makes the model where its class is not the one of its config for text."""
    attention: str = "eager"
    """transformers' implementation of attention."""
    adjust: Callable[[torch.nn.Module], None] | None = None
    """Changes the random weights."""
    loading: dict | None = None
    """Arguments with which transformers reads the rearranged checkpoint itself."""
    positions: Callable[[int, int], dict] | None = None
    """Further arguments of a forward pass, from its tokens and those cached before."""


FIXTURES_BY_NAME: dict[str, Callable[[], Fixture]] = {}


def fixture(name):
    def register(make):
        assert name not in FIXTURES_BY_NAME
        FIXTURES_BY_NAME[name] = make
        return make

    return register


# --- making checkpoints -------------------------------------------------------------------------------------


@torch.no_grad()
def random_weights(model, spec, seed):
    """Weights wide enough that logits vary and greedy choices are clear."""
    generator = torch.Generator().manual_seed(seed)
    tied = any(getattr(config, "tie_word_embeddings", False) for config in (model.config, model.config.get_text_config()))
    embedding_std = spec.embedding_std or (0.2 if tied else 1.0)
    normal = lambda like, mean, std: torch.randn(like.shape, generator=generator) * std + mean
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            value = normal(parameter, 0.0, 0.3)
        elif "norm" in name or ".ln_" in name:
            # Of a gated delta net's norm nothing is added to the weight.
            value = normal(parameter, 1.0 if "linear_attn.norm" in name else spec.norm_mean, 0.2)
        elif "embed" in name or "wte" in name:
            value = normal(parameter, 0.0, embedding_std)
        elif "lm_head" in name:
            value = normal(parameter, 0.0, 0.5)
        elif parameter.dim() < 2:
            value = normal(parameter, 0.0, 0.5)
        else:
            value = normal(parameter, 0.0, 1.4 / math.sqrt(parameter.shape[-1]))
        parameter.copy_(value)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(normal(buffer, 0.0, 0.1))
    return model


def v4(removed=(), **keys):
    """The spelling of releases before transformers 5: rotary settings at the top, `torch_dtype`."""

    def respell(config):
        for key in ("rope_parameters", "transformers_version", *removed):
            config.pop(key, None)
        config["torch_dtype"] = config.pop("dtype", "bfloat16")
        return config | keys

    return respell


def write_config(path, config):
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_checkpoint(directory, spec, seed):
    """Writes the checkpoint as transformers has it."""
    model = random_weights((spec.make_model or AutoModelForCausalLM.from_config)(spec.config), spec, seed)
    if spec.adjust:
        spec.adjust(model)
    model.to(torch.bfloat16).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    for file in directory.iterdir():
        file.chmod(0o644)
    return directory


# --- what transformers computes -----------------------------------------------------------------------------


def load_float32(path, spec):
    loader = spec.make_model or AutoModelForCausalLM
    model = loader.from_pretrained(path, dtype=torch.float32, attn_implementation=spec.attention, **spec.loading or {})
    if spec.adjust and not spec.loading:
        spec.adjust(model)
    return model.eval()


@torch.no_grad()
def greedy(model, spec, prompts, new_tokens):
    """Prefill in one pass, then cached steps of one token; nothing stops at EOS. Prompts are of one length.

    Returns, for each prompt, the logits of its positions, the chosen tokens, the logits after each of them but the last, and for
    each choice the gap between the best and the second-best logit.
    """
    cache = DynamicCache(config=model.config.get_text_config())
    cached = 0

    def run(ids):
        nonlocal cached
        extra = spec.positions(ids.shape[1], cached) if spec.positions else {}
        cached += ids.shape[1]
        return model(input_ids=ids, past_key_values=cache, use_cache=True, **extra).logits

    prompt_logits = logits = run(torch.tensor(prompts))
    tokens, steps, gaps = [], [], []
    while True:
        top = logits[:, -1].topk(2)
        tokens.append(top.indices[:, 0])
        gaps.append(top.values[:, 0] - top.values[:, 1])
        if len(tokens) == new_tokens:
            break
        logits = run(tokens[-1][:, None])
        steps.append(logits[:, -1])
    columns = [torch.stack(rows, 1) for rows in (tokens, steps, gaps)]
    return list(zip(prompt_logits, *columns))


def clear_case(directory, spec, length, seed, new_tokens=32, candidates=32, decode_steps=4):
    """Of some random prompts of one length, the one whose greedy path is clearest and not a short loop."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(3, VOCABULARY, (candidates, length), generator=generator).tolist()
    results = greedy(load_float32(directory, spec), spec, prompts, new_tokens)
    scores = [(min(len(set(tokens.tolist())), 12), gaps.min().item()) for _, tokens, _, gaps in results]
    prompt = prompts[scores.index(max(scores))]
    # Alone, and by a fresh model: some keep state from one sequence to the next.
    [(prompt_logits, tokens, steps, gaps)] = greedy(load_float32(directory, spec), spec, [prompt], new_tokens)
    return {
        "prompt_ids": prompt,
        "prompt_logits": tensor_json(prompt_logits),
        "greedy_ids": tokens.tolist(),
        "decode_logits": tensor_json(steps[:decode_steps]),
        "margin": gaps.min().item(),
        "margins": float32_list(gaps),
    }


def make(name, spec, seed):
    directory = OUT / name
    shutil.rmtree(directory, ignore_errors=True)
    with tempfile.TemporaryDirectory() as reference:
        reference = save_checkpoint(pathlib.Path(reference), spec, seed)
        shutil.copytree(reference, directory)
        directory.chmod(0o755)
        config = json.loads((reference / "config.json").read_text())
        if spec.respell:
            config = spec.respell(config)
        write_config(directory / "config.json", config)
        if spec.rearrange:
            tensors = spec.rearrange(load_file(reference / "model.safetensors"))
            save_file({key: value.contiguous() for key, value in tensors.items()}, directory / "model.safetensors")
            (directory / "model.safetensors").chmod(0o644)
        # Where transformers has the family, it reads the very files that the test reads.
        source = reference if spec.rearrange and not spec.loading else directory
        cases = [
            clear_case(source, spec, length, seed=7 * seed + i) for i, length in enumerate(spec.prompt_lengths)
        ]
    write_json(directory / "expected.json", {"made_with": versions(transformers, torch), "cases": cases})
    size = sum(file.stat().st_size for file in directory.iterdir())
    margins = ", ".join(f"{case['margin']:.4f}" for case in cases)
    distinct = ", ".join(str(len(set(case["greedy_ids"]))) for case in cases)
    print(f"{name}: {size} bytes, margins {margins}, distinct tokens {distinct}", flush=True)


# --- families -----------------------------------------------------------------------------------------------


@fixture("mistral/sliding")
def mistral():
    config = transformers.MistralConfig(**TINY, rms_norm_eps=1e-5, sliding_window=8)
    return Fixture(config, v4(("head_dim",), rope_theta=10000.0))


@fixture("qwen2/base")
def qwen2():
    config = transformers.Qwen2Config(**TINY, tie_word_embeddings=True)
    return Fixture(
        config,
        v4(("layer_types",), rope_theta=1000000.0, sliding_window=131072, use_sliding_window=False, max_window_layers=28),
    )


@fixture("qwen2/window")
def qwen2_window():
    config = transformers.Qwen2Config(
        **TINY | dict(num_hidden_layers=3), use_sliding_window=True, sliding_window=8, max_window_layers=1,
    )
    return Fixture(config)


@fixture("qwen2/yarn")
def qwen2_yarn():
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    config = transformers.Qwen2Config(**TINY, rope_parameters=scaling | {"rope_theta": 10000.0})
    return Fixture(
        config,
        v4(("layer_types",), rope_theta=10000.0, use_sliding_window=False,
           rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
        prompt_lengths=(5, 40),
    )


@fixture("qwen3/base")
def qwen3():
    config = transformers.Qwen3Config(**TINY, head_dim=12, tie_word_embeddings=True)
    return Fixture(
        config,
        v4(("layer_types",), rope_theta=1000000.0, rope_scaling=None, sliding_window=None, use_sliding_window=False,
           max_window_layers=28),
    )


@fixture("olmo2/base")
def olmo2():
    return Fixture(transformers.Olmo2Config(**TINY), v4(rope_theta=500000.0, rope_scaling=None))


@fixture("phi3/mini")
def phi3():
    config = transformers.Phi3Config(**TINY, sliding_window=8, original_max_position_embeddings=128)
    return Fixture(
        config,
        v4(("partial_rotary_factor",), rope_theta=10000.0, rope_scaling=None, attention_bias=False, resid_pdrop=0.0,
           embd_pdrop=0.0),
    )


# Phi-3 mini 128k, Phi-3.5 mini; Phi-4 mini rotates three quarters of a head.
@fixture("phi3/longrope")
def phi3_longrope():
    scaling = {
        "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.0, 1.7, 3.5], "type": "longrope",
    }
    config = transformers.Phi3Config(
        **TINY, original_max_position_embeddings=32, tie_word_embeddings=True,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75} | scaling,
    )
    return Fixture(
        config,
        v4(rope_theta=10000.0, partial_rotary_factor=0.75, rope_scaling=scaling, sliding_window=262144,
           attention_bias=False, full_attn_mod=1),
        prompt_lengths=(5, 20, 40),
    )


@fixture("smollm3/base")
def smollm3():
    config = transformers.SmolLM3Config(
        **TINY | dict(num_hidden_layers=3), no_rope_layer_interval=2, tie_word_embeddings=True,
    )
    return Fixture(
        config,
        v4(rope_theta=5000000.0, rope_scaling=None, max_window_layers=28, sliding_window=None, use_sliding_window=False,
           pretraining_tp=2),
    )


@fixture("granite/base")
def granite():
    config = transformers.GraniteConfig(
        **TINY, embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.25,
        tie_word_embeddings=True,
    )
    return Fixture(config, v4(rope_theta=10000.0, rope_scaling=None), embedding_std=0.03)


@fixture("gemma/base")
def gemma():
    config = transformers.GemmaConfig(**TINY | dict(num_key_value_heads=1), head_dim=12)
    return Fixture(
        config, v4(rope_theta=10000.0, rope_scaling=None, hidden_act="gelu", hidden_activation=None),
        norm_mean=0.0, embedding_std=0.05,
    )


@fixture("gemma2/base")
def gemma2():
    config = transformers.Gemma2Config(
        **TINY | dict(num_hidden_layers=3), head_dim=12, query_pre_attn_scalar=10, sliding_window=8,
        attn_logit_softcapping=5.0, final_logit_softcapping=6.0,
    )
    return Fixture(
        config,
        v4(("layer_types",), rope_theta=10000.0, cache_implementation="hybrid", hidden_act="gelu_pytorch_tanh",
           sliding_window_size=8),
        norm_mean=0.0, embedding_std=0.05,
    )


# Gemma 3 1B: v4 spelling with one scaling for the global layers.
@fixture("gemma3_text/v4")
def gemma3_text_v4():
    config = transformers.Gemma3TextConfig(
        **TINY | dict(num_hidden_layers=3), head_dim=12, query_pre_attn_scalar=10, sliding_window=8, sliding_window_pattern=3,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    )
    return Fixture(
        config,
        v4(("layer_types", "_sliding_window_pattern"), rope_theta=1000000, rope_local_base_freq=10000,
           rope_scaling={"factor": 8.0, "rope_type": "linear"}, sliding_window_pattern=3, cache_implementation="hybrid"),
        norm_mean=0.0, embedding_std=0.05,
    )


@fixture("gemma3_text/v5")
def gemma3_text_v5():
    config = transformers.Gemma3TextConfig(
        **TINY | dict(num_hidden_layers=3), head_dim=12, query_pre_attn_scalar=10, sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        final_logit_softcapping=6.0,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    )
    return Fixture(config, norm_mean=0.0, embedding_std=0.05)


@fixture("glm4/base")
def glm4():
    config = transformers.Glm4Config(
        **TINY, head_dim=12, attention_bias=True, rms_norm_eps=1.5625e-7,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )
    return Fixture(config, v4(rope_theta=10000.0, partial_rotary_factor=0.5))


@fixture("glm/base")
def glm():
    config = transformers.GlmConfig(
        **TINY, head_dim=12, attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )
    return Fixture(config)


@fixture("cohere2/base")
def cohere2():
    config = transformers.Cohere2Config(
        **TINY | dict(num_hidden_layers=3), logit_scale=0.25, sliding_window=8, sliding_window_pattern=2,
    )
    return Fixture(
        config,
        v4(("layer_types", "_sliding_window_pattern"), rope_theta=50000, rope_scaling=None, head_dim=8, layer_switch=2,
           sliding_window_pattern=2, order_of_interleaved_layers="local_attn_first", position_embedding_type="rope_gptj",
           rotary_pct=1.0, use_embedding_sharing=True, use_gated_activation=True, use_parallel_block=True,
           use_parallel_embedding=False, use_qk_norm=False, cache_implementation="hybrid"),
    )


# Command R+ has norms of queries and keys, a weight for each head.
@fixture("cohere/base")
def cohere():
    config = transformers.CohereConfig(**TINY, logit_scale=0.0625, use_qk_norm=True)
    return Fixture(config, v4(rope_theta=75000000.0))


@fixture("stablelm/base")
def stablelm():
    config = transformers.StableLmConfig(
        **TINY, use_qkv_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    )
    return Fixture(config, v4(rope_theta=10000, partial_rotary_factor=0.25))


# StableLM 2 12B.
@fixture("stablelm/parallel")
def stablelm_parallel():
    config = transformers.StableLmConfig(
        **TINY, use_qkv_bias=False, use_parallel_residual=True, qk_layernorm=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    )
    return Fixture(config, v4(rope_theta=10000, partial_rotary_factor=0.25))


@fixture("starcoder2/base")
def starcoder2():
    config = transformers.Starcoder2Config(**TINY, sliding_window=8)
    return Fixture(
        config,
        v4(rope_theta=100000.0, attention_softmax_in_fp32=True, activation_function="gelu", layer_norm_epsilon=1e-5,
           mlp_type="default", norm_type="layer_norm", scale_attention_softmax_in_fp32=True, scale_attn_weights=True),
    )


FALCON = {key: TINY[key] for key in TINY if key not in ("num_key_value_heads", "intermediate_size")}


# 40B and 180B: two norms beside each other, grouped heads.
@fixture("falcon/new")
def falcon():
    config = transformers.FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=False)
    return Fixture(config, v4(("max_position_embeddings",), rope_theta=10000.0))


# Falcon 2 11B: the new architecture with one norm.
@fixture("falcon/one_norm")
def falcon_one_norm():
    config = transformers.FalconConfig(
        **FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, ffn_hidden_size=80,
        tie_word_embeddings=False,
    )
    return Fixture(config)


# 7B: one key head for all, one norm.
@fixture("falcon/multi_query")
def falcon_multi_query():
    config = transformers.FalconConfig(**FALCON, multi_query=True, parallel_attn=True, bias=False)
    return Fixture(config, v4(("num_kv_heads", "ffn_hidden_size", "activation", "max_position_embeddings"), rope_theta=10000.0))


# RW 1B and 7B: ALiBi, biases, sublayers in sequence.
@fixture("falcon/alibi")
def falcon_alibi():
    config = transformers.FalconConfig(
        **FALCON | dict(num_attention_heads=6, hidden_size=36), alibi=True, multi_query=False, parallel_attn=False, bias=True,
    )
    # The eager implementation of transformers 5 adds ALiBi twice: in the mask and in the layer.
    return Fixture(config, attention="sdpa")


@fixture("internlm3/base")
def internlm3():
    scaling = {"rope_type": "dynamic", "factor": 6.0}
    config = transformers.LlamaConfig(
        **TINY | dict(max_position_embeddings=32), head_dim=12, rope_parameters=scaling | {"rope_theta": 50000000},
    )
    respell = lambda config: v4(
        ("attention_bias", "mlp_bias", "pretraining_tp"), model_type="internlm3", architectures=["InternLM3ForCausalLM"],
        bias=False, qkv_bias=False, rope_theta=50000000, rope_scaling=scaling,
    )(config)
    return Fixture(config, respell, rearrange=lambda tensors: tensors, prompt_lengths=(3, 20))


def internlm2_names(tensors, heads=4, kv_heads=2, head_dim=8):
    """InternLM2 keeps queries, keys and values in one matrix, by groups of heads that share a key head."""
    names = {
        "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
        "model.embed_tokens": "model.tok_embeddings", "lm_head": "output",
    }
    result = {}
    for name, tensor in tensors.items():
        if "q_proj" in name:
            part = lambda kind: tensors[name.replace("q_proj", kind)]
            groups = [
                part("q_proj").view(kv_heads, heads // kv_heads, head_dim, -1),
                part("k_proj").view(kv_heads, 1, head_dim, -1),
                part("v_proj").view(kv_heads, 1, head_dim, -1),
            ]
            result[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(groups, 1).flatten(0, 2)
        elif "k_proj" not in name and "v_proj" not in name:
            for old, new in names.items():
                name = name.replace(old, new)
            result[name] = tensor
    return result


@fixture("internlm2/base")
def internlm2():
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    config = transformers.LlamaConfig(
        **TINY | dict(max_position_embeddings=32), rope_parameters=scaling | {"rope_theta": 1000000},
    )
    respell = lambda config: v4(
        ("attention_bias", "mlp_bias", "pretraining_tp", "head_dim"), model_type="internlm2",
        architectures=["InternLM2ForCausalLM"], bias=False, rope_theta=1000000,
        rope_scaling={"type": "dynamic", "factor": 2.0}, attn_implementation="eager", pretraining_tp=1,
    )(config)
    return Fixture(config, respell, rearrange=internlm2_names, prompt_lengths=(3, 20))


def baichuan_names(tensors):
    """Baichuan keeps queries, keys and values in one matrix, one below the other."""
    result = {}
    for name, tensor in tensors.items():
        if "q_proj" in name:
            parts = [tensors[name.replace("q_proj", kind)] for kind in ("q_proj", "k_proj", "v_proj")]
            result[name.replace("q_proj", "W_pack")] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            result[name] = tensor
    return result


BAICHUAN_REMOVED = (
    "attention_bias", "mlp_bias", "pretraining_tp", "head_dim", "num_key_value_heads", "attention_dropout", "rope_theta",
)
BAICHUAN = dict(model_type="baichuan", architectures=["BaichuanForCausalLM"])


def baichuan_config(**changes):
    return transformers.LlamaConfig(**TINY | dict(num_key_value_heads=4) | changes)


@fixture("baichuan/rope")
def baichuan():
    return Fixture(baichuan_config(), v4(BAICHUAN_REMOVED, **BAICHUAN), rearrange=baichuan_names)


# Baichuan 2: the head's rows are scaled to unit length. A setting of its training tells it from the first release.
@fixture("baichuan/unit_rows")
def baichuan_unit_rows():
    def adjust(model):
        model.lm_head.weight.data = torch.nn.functional.normalize(model.lm_head.weight.data)

    respell = v4(BAICHUAN_REMOVED, model_max_length=128, z_loss_weight=0, **BAICHUAN)
    return Fixture(baichuan_config(), respell, rearrange=baichuan_names, adjust=adjust)


def alibi_positions(heads):
    """Llama computes with ALiBi where every token is at position 0 and the mask carries the distances."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]
    slopes = torch.tensor(slopes).view(-1, 1, 1)

    def positions(tokens, cached):
        query, key = torch.arange(cached, cached + tokens).view(-1, 1), torch.arange(cached + tokens)
        mask = slopes * (key - query) + torch.where(key > query, torch.finfo(torch.float32).min, 0.0)
        return {"attention_mask": mask[None], "position_ids": torch.zeros(1, tokens, dtype=torch.long)}

    return positions


# 13B: ALiBi, and a number of heads that is no power of two.
@fixture("baichuan/alibi")
def baichuan_alibi():
    config = baichuan_config(num_attention_heads=6, num_key_value_heads=6, hidden_size=36)
    respell = lambda config: v4((*BAICHUAN_REMOVED, "max_position_embeddings"), model_max_length=128, **BAICHUAN)(config)
    return Fixture(config, respell, rearrange=baichuan_names, positions=alibi_positions(6))


def chatglm_names(tensors):
    """ChatGLM keeps queries, keys and values in one matrix, one below the other, under names of Megatron."""
    names = {
        "model.layers": "transformer.encoder.layers", "self_attn.o_proj": "self_attention.dense",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h",
        "model.norm": "transformer.encoder.final_layernorm", "lm_head": "transformer.output_layer",
        "model.embed_tokens": "transformer.embedding.word_embeddings", "self_attn.": "self_attention.",
    }
    result = {"transformer.rotary_pos_emb.inv_freq": torch.ones(3)}
    for name, tensor in tensors.items():
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            tensor = torch.cat([tensors[name.replace("q_proj", kind)] for kind in ("q_proj", "k_proj", "v_proj")])
            name = name.replace("q_proj", "query_key_value")
        for old, new in names.items():
            name = name.replace(old, new)
        result[name] = tensor
    return result


# ChatGLM 2 and 3, and GLM-4-9B as it was first released. transformers' `glm` is the same model under other names.
@fixture("chatglm/base")
def chatglm():
    config = transformers.GlmConfig(
        **TINY, head_dim=12, attention_bias=True, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5},
    )
    keys = dict(
        model_type="chatglm", architectures=["ChatGLMModel"], add_bias_linear=False, add_qkv_bias=True,
        apply_query_key_layer_scaling=True, apply_residual_connection_post_layernorm=False, attention_dropout=0.0,
        attention_softmax_in_fp32=True, bias_dropout_fusion=True, ffn_hidden_size=TINY["intermediate_size"],
        fp32_residual_connection=False, hidden_dropout=0.0, hidden_size=TINY["hidden_size"], kv_channels=12,
        layernorm_epsilon=1e-5, multi_query_attention=True, multi_query_group_num=TINY["num_key_value_heads"],
        num_attention_heads=TINY["num_attention_heads"], num_layers=TINY["num_hidden_layers"], original_rope=True,
        padded_vocab_size=VOCABULARY, post_layer_norm=True, rmsnorm=True, rope_ratio=500, seq_length=128, use_cache=True,
        torch_dtype="bfloat16", tie_word_embeddings=False, eos_token_id=[2], pad_token_id=0,
    )
    return Fixture(config, lambda _: keys, rearrange=chatglm_names)


# Gemma 3 4B and larger hold an image tower beside the text model.
@fixture("gemma3/images")
def gemma3():
    text = transformers.Gemma3TextConfig(
        **TINY | dict(num_hidden_layers=3), head_dim=12, query_pre_attn_scalar=10, sliding_window=8, sliding_window_pattern=3,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    )
    vision = dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
        model_type="siglip_vision_model", vision_use_head=False,
    )
    config = transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4, image_token_index=95, boi_token_index=94,
        eoi_token_index=93,
    )

    def respell(config):
        config["text_config"] = {
            key: config["text_config"][key]
            for key in TINY | dict(head_dim=0, query_pre_attn_scalar=0, sliding_window=0, sliding_window_pattern=0, model_type=0)
        } | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
        return v4()(config)

    return Fixture(
        config, respell, norm_mean=0.0, embedding_std=0.05, make_model=transformers.Gemma3ForConditionalGeneration,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    wanted = parser.parse_args().names
    for name, make_spec in FIXTURES_BY_NAME.items():
        if not wanted or name in wanted or name.split("/")[0] in wanted:
            # A seed of its own name, so that a fixture does not change when others are added.
            make(name, make_spec(), seed=sum(ord(c) * (i + 1) for i, c in enumerate(name)))


if __name__ == "__main__":
    main()
