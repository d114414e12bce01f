#!/usr/bin/env python3
"""Write tests/fixtures/gguf_families/: tiny models of the families that GGUF files come in, as llama.cpp's conversion writes them (names of gguf-py;
which rows are turned, merged or split: llama.cpp's `conversion/`), with what transformers computes from the same weights.

Matrices are bfloat16, which loses nothing; what quantized types decode to is tested by make_gguf_fixtures.py. Experts of gpt-oss are MXFP4.

    make_gguf_family_fixtures.py [NAME...]
"""

import argparse
import dataclasses
import pathlib
import shutil
import tempfile
from typing import Callable

import gguf
import numpy as np
import torch
import transformers
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file

from make_architecture_fixtures import FALCON, TINY, VOCABULARY, Fixture, clear_case, save_checkpoint
from make_fixtures import FIXTURES, versions, write_json
from make_hybrid_fixtures import EXPERTS, HYBRID, MROPE, remember
from make_hybrid_fixtures import ROPE as HYBRID_ROPE
from make_moe_fixtures import DEEPSEEK, LLAMA4, LLAMA4_SCALING, MOE, YARN

OUT = FIXTURES / "gguf_families"
TYPES = gguf.GGMLQuantizationType


@dataclasses.dataclass
class Family:
    architecture: str
    fixture: Fixture
    convert: Callable[[str, np.ndarray, object], list] = lambda name, values, config: [(name, values)]
    """Turns a tensor of the checkpoint into those that are stored, by names of gguf-py's tables or of GGUF itself."""
    metadata: Callable = lambda writer, config: None
    extra: Callable = lambda config: {}
    """Tensors that no parameter stands for."""
    layers_ahead: int = 0
    fused: bool = False
    """Whether experts' gates lie above what they multiply, in one stack."""
    pre: str = "llama-bpe"


# --- what the conversion changes ----------------------------------------------------------------------------


def turned(values, heads):
    """Halves of heads become neighbours."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def turn_queries_and_keys(name, values, config):
    if ".q_proj." in name:
        values = turned(values, config.num_attention_heads)
    if ".k_proj." in name:
        values = turned(values, config.num_key_value_heads)
    return [(name, values)]


def split_latent(name, values, config):
    """Keys and values of attention to latents are made by a matrix each, that of keys turned head by head."""
    if not name.endswith("kv_b_proj.weight"):
        return [(name, values)]
    by_head = values.reshape(config.num_attention_heads, config.qk_nope_head_dim + config.v_head_dim, -1)
    keys, rest = np.split(by_head, [config.qk_nope_head_dim], axis=1)
    return [(name.replace("kv_b_proj", "k_b_proj"), keys.swapaxes(1, 2)), (name.replace("kv_b_proj", "v_b_proj"), rest)]


def gpt_oss_tensors(name, values, config):
    if name.endswith(".sinks"):
        return [(name + ".weight", values)]
    for part in ("down_proj", "gate_up_proj"):
        if name.endswith(part):
            name, values = name + ".weight", values.swapaxes(1, 2)
        name = name.replace(f"{part}_bias", f"{part}.bias")
    if "gate_up_proj" not in name:
        return [(name, values)]
    # Rows of gate and up take turns.
    return [(name.replace("gate_up_proj", f"{part}_proj"), values[:, i::2]) for i, part in enumerate(("gate", "up"))]


def llama4_tensors(name, values, config):
    if name.endswith("experts.down_proj"):
        return [(name + ".weight", values.swapaxes(1, 2))]
    if name.endswith("experts.gate_up_proj"):
        halves = np.split(values.swapaxes(1, 2), 2, axis=1)
        return [(name.replace("gate_up_proj", f"{part}_proj.weight"), half) for part, half in zip(("gate", "up"), halves)]
    return [(name, values)]


def granite_tensors(name, values, config):
    if name.endswith("input_linear.weight"):
        layer = name.split(".")[2]
        return [(f"blk.{layer}.ffn_{part}_exps.weight", half) for part, half in zip(("gate", "up"), np.split(values, 2, axis=1))]
    return turn_queries_and_keys(name, values, config)


def falcon_tensors(name, values, config):
    """Queries, keys and values of all heads, each together; the checkpoint has them by key head."""
    if "query_key_value" not in name:
        return [(name, values)]
    kv_heads = config.num_kv_heads if config.new_decoder_architecture else 1
    groups = values.reshape(kv_heads, -1, config.hidden_size // config.num_attention_heads, values.shape[-1])
    parts = [groups[:, :-2], groups[:, -2:-1], groups[:, -1:]]
    return [(name, np.concatenate([part.reshape(-1, values.shape[-1]) for part in parts]))]


def stablelm_tensors(name, values, config):
    """Norms of heads, which are a tensor each, are stacked."""
    return [] if ".norms." in name else [(name, values)]


def stacked_norms(tensors, config):
    stacked = {}
    for layer in range(config.num_hidden_layers):
        for part, heads in (("q", config.num_attention_heads), ("k", getattr(config, "num_key_value_heads", 0))):
            names = [f"model.layers.{layer}.self_attn.{part}_layernorm.norms.{head}.weight" for head in range(heads)]
            if names and names[0] in tensors:
                stacked[f"blk.{layer}.attn_{part}_norm.weight"] = np.stack([tensors[name] for name in names])
    return stacked


def qwen3_next_tensors(name, values, config):
    """Queries, keys and values of a delta net together, each of all heads; the checkpoint has them and the gate by key head."""
    layer = name.split(".")[2] if ".layers." in name else None
    if name.endswith(".A_log"):
        return [(name, -np.exp(values))]
    if name.endswith(".dt_bias"):
        return [(name.replace("dt_bias", "dt_proj.bias"), values)]
    if "conv1d" in name:
        return [(name, values.squeeze(1))]
    if "in_proj_qkvz" in name:
        keys, heads = config.linear_key_head_dim, config.linear_num_key_heads
        shared = config.linear_num_value_heads // heads * config.linear_value_head_dim
        groups = values.reshape(heads, 2 * keys + 2 * shared, -1)
        q, k, v, z = (part.reshape(-1, values.shape[1]) for part in np.split(groups, np.cumsum([keys, keys, shared]), axis=1))
        return [(f"blk.{layer}.attn_qkv.weight", np.concatenate([q, k, v])), (f"blk.{layer}.attn_gate.weight", z)]
    whole = name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight")
    return [(name, values + 1 if whole else values)]


def in_turns(values, config, head_dim, axis=0):
    """Value heads of a delta net that share a key head lie apart, as many as there are key heads."""
    keys, shared = config.linear_num_key_heads, config.linear_num_value_heads // config.linear_num_key_heads
    shape = values.shape
    grouped = values.reshape(*shape[:axis], keys, shared, head_dim, *shape[axis + 1 :])
    return grouped.swapaxes(axis, axis + 1).reshape(shape)


def qwen35_tensors(name, values, config):
    head_dim = config.linear_value_head_dim
    if ".in_proj_qkv." in name or "conv1d" in name:
        values = values.squeeze(1) if "conv1d" in name else values
        first = 2 * config.linear_num_key_heads * config.linear_key_head_dim
        values = np.concatenate([values[:first], in_turns(values[first:], config, head_dim)])
    elif ".in_proj_z." in name:
        values = in_turns(values, config, head_dim)
    elif ".in_proj_a." in name or ".in_proj_b." in name or name.endswith((".A_log", ".dt_bias")):
        values = in_turns(values, config, 1)
    elif ".linear_attn.out_proj." in name:
        values = in_turns(values, config, head_dim, axis=1)
    if name.endswith("conv1d.weight"):
        return [(name, values)]
    return qwen3_next_tensors(name, values, config)


# --- metadata -----------------------------------------------------------------------------------------------


def write_common(writer, config, layers_ahead):
    """What TextModel.set_gguf_parameters of `conversion/base.py` writes."""
    has = lambda *names: next((value for name in names if (value := getattr(config, name, None)) is not None), None)
    writer.add_block_count(config.num_hidden_layers + layers_ahead)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    if (length := has("ffn_hidden_size", "intermediate_size")) is not None:
        writer.add_feed_forward_length(length)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(has("num_key_value_heads") or config.num_attention_heads)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast", 32))
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow", 1))
    if "rope_theta" in rope:
        writer.add_rope_freq_base(rope["rope_theta"])
    if (eps := has("rms_norm_eps")) is not None:
        writer.add_layer_norm_rms_eps(eps)
    if (eps := has("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")) is not None:
        writer.add_layer_norm_eps(eps)
    if (count := has("num_local_experts", "num_experts")) is not None:
        writer.add_expert_count(count)
    if (count := has("num_experts_per_tok")) is not None:
        writer.add_expert_used_count(count)
    if (count := has("n_group")) is not None:
        writer.add_expert_group_count(count)
        writer.add_expert_group_used_count(config.topk_group)
    if (head_dim := has("head_dim")) is not None and not hasattr(config, "kv_lora_rank"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)


def rotary(writer, config):
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(int(head_dim * config.rope_parameters.get("partial_rotary_factor", 1)))


def deepseek(writer, config, split=True):
    writer.add_vocab_size(config.vocab_size)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    if config.q_lora_rank is not None:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    key_dim = config.qk_nope_head_dim + config.qk_rope_head_dim
    if split:
        writer.add_key_length(config.kv_lora_rank + config.qk_rope_head_dim)
        writer.add_value_length(config.kv_lora_rank)
        writer.add_key_length_mla(key_dim)
        writer.add_value_length_mla(config.v_head_dim)
    else:
        writer.add_key_length(key_dim)
        writer.add_value_length(config.v_head_dim)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    if config.norm_topk_prob:
        writer.add_expert_weights_norm(True)
    sigmoid = config.model_type == "deepseek_v3"
    if sigmoid:
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_rope_dimension_count(config.qk_rope_head_dim)
    if "mscale_all_dim" in config.rope_parameters:
        writer.add_rope_scaling_yarn_log_mul(0.1 * config.rope_parameters["mscale_all_dim"])


def glm4_moe(writer, config):
    rotary(writer, config)
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_expert_weights_norm(config.norm_topk_prob)
    writer.add_nextn_predict_layers(1)


def granite(writer, config):
    writer.add_vocab_size(config.vocab_size)
    rotary(writer, config)
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def cohere2(writer, config):
    writer.add_logit_scale(config.logit_scale)
    writer.add_sliding_window(config.sliding_window)
    writer.add_vocab_size(config.vocab_size)
    rotary(writer, config)
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def command_r(writer, config):
    writer.add_logit_scale(config.logit_scale)
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def gpt_oss(writer, config):
    writer.add_sliding_window(config.sliding_window)
    writer.add_expert_feed_forward_length(config.intermediate_size)


def llama4(writer, config):
    writer.add_vocab_size(config.vocab_size)
    rotary(writer, config)
    writer.add_interleave_moe_layer_step(config.interleave_moe_layer_step)
    writer.add_expert_feed_forward_length(config.intermediate_size)
    # The length of a dense layer takes the place of an expert's.
    writer.kv_data[0].pop("llama4.feed_forward_length")
    writer.add_feed_forward_length(config.intermediate_size_mlp)


def llama4_factors(config):
    rope, dim = config.rope_parameters, config.head_dim
    if rope["rope_type"] != "llama3":
        return {}
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    original, factors = rope["original_max_position_embeddings"], []
    for wavelength in 2 * np.pi / frequencies:
        smooth = (original / wavelength - low) / (high - low)
        blended = 1 / ((1 - smooth) / factor + smooth)
        factors.append(1 if wavelength < original / high else factor if wavelength > original / low else blended)
    return {"rope_freqs.weight": np.array(factors, np.float32)}


def stablelm(writer, config):
    rotary(writer, config)
    writer.add_parallel_residual(config.use_parallel_residual)


def falcon(writer, config):
    writer.add_tensor_data_layout("jploski")
    kv_heads = config.num_kv_heads if config.new_decoder_architecture else 1
    writer.kv_data[0].pop("falcon.attention.head_count_kv")
    writer.add_head_count_kv(kv_heads)
    for name in ("key_length", "value_length"):
        writer.kv_data[0].pop(f"falcon.attention.{name}", None)


def qwen3_next(writer, config):
    rotary(writer, config)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    delta_net(writer, config)


def qwen35(writer, config):
    rotary(writer, config)
    delta_net(writer, config)
    writer.add_rope_dimension_sections([1, 1, 0, 0])
    if hasattr(config, "moe_intermediate_size"):
        writer.kv_data[0].pop("qwen35moe.feed_forward_length", None)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    else:
        writer.add_nextn_predict_layers(1)


def delta_net(writer, config):
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
    writer.add_full_attention_interval(4)


def llama_keys(writer, config):
    writer.add_vocab_size(config.vocab_size)
    rotary(writer, config)


def ahead(config):
    """A layer that predicts a token further ahead, of which nothing is used."""
    layer = config.num_hidden_layers
    return {f"blk.{layer}.nextn.eh_proj.weight": np.zeros((4, 8), np.float32), f"blk.{layer}.attn_norm.weight": np.ones(32, np.float32)}


# --- files --------------------------------------------------------------------------------------------------


def write_tokenizer(writer, pre):
    alphabet = list(dict.fromkeys(chr(code) for code in range(33, 127)))[: VOCABULARY - 4]
    tokens = ["<|pad|>", "<|begin|>", "<|end|>", *alphabet, "!!"]
    assert len(tokens) == VOCABULARY
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def stack_experts(tensors):
    """Experts that are a matrix each become stacks, under names of gguf-py's tables."""
    result, stacks = {}, {}
    for name, values in tensors.items():
        parts = name.split(".experts.")
        if len(parts) == 2 and parts[1].split(".")[0].isdigit():
            number, rest = parts[1].split(".", 1)
            stacks.setdefault(f"{parts[0]}.experts.{rest}", {})[int(number)] = values
        else:
            result[name] = values
    return result | {name: np.stack([found[i] for i in range(len(found))]) for name, found in stacks.items()}


def stored_as(name, values, family):
    if values.ndim < 2 or "ffn_gate_inp." in name or "norm" in name or name.endswith(".bias") or "ssm_conv1d" in name:
        return np.ascontiguousarray(values, np.float32), TYPES.F32
    kind = TYPES.MXFP4 if family.architecture == "gpt-oss" and "_exps" in name else TYPES.BF16
    data = quantize(np.ascontiguousarray(values, np.float32), kind)
    assert np.array_equal(dequantize(data, kind).reshape(values.shape), values), name
    return data, kind


def write_gguf(path, family, config, checkpoint):
    arch = next(arch for arch, found in gguf.MODEL_ARCH_NAMES.items() if found == family.architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers + family.layers_ahead)
    writer = gguf.GGUFWriter(path, family.architecture)
    write_common(writer, config, family.layers_ahead)
    family.metadata(writer, config)
    write_tokenizer(writer, family.pre)
    tensors = stack_experts({name: tensor.float().numpy() for name, tensor in checkpoint.items()})
    stored = dict(family.extra(config)) | stacked_norms(tensors, config)
    for key, values in tensors.items():
        key = key.replace("e_score_correction_bias", "e_score_correction.bias")
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        for name, part in family.convert(key, values, config):
            target = name if name.startswith("blk.") else names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert target is not None and target not in stored, name
            stored[target] = part
    if family.fused:
        for gate in [name for name in stored if "ffn_gate_exps" in name]:
            parts = [stored.pop(gate), stored.pop(gate.replace("gate", "up"))]
            stored[gate.replace("gate", "gate_up")] = np.concatenate(parts, axis=1)
    for name, values in stored.items():
        data, kind = stored_as(name, values, family)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def round_experts(path):
    """Rounds experts' matrices of a checkpoint of gpt-oss to MXFP4."""
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            values = np.ascontiguousarray(tensor.float().numpy().swapaxes(1, 2))
            rounded = dequantize(quantize(values, TYPES.MXFP4), TYPES.MXFP4).reshape(values.shape).swapaxes(1, 2)
            tensors[name] = torch.from_numpy(np.ascontiguousarray(rounded)).to(torch.bfloat16)
    save_file(tensors, path, metadata={"format": "pt"})


def make(name, family, seed):
    directory, spec = OUT / name, family.fixture
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        reference = save_checkpoint(pathlib.Path(temporary), spec, seed)
        if family.architecture == "gpt-oss":
            round_experts(reference / "model.safetensors")
        write_gguf(directory / "model.gguf", family, spec.config, load_file(reference / "model.safetensors"))
        cases = [clear_case(reference, spec, length, seed=7 * seed + i) for i, length in enumerate(spec.prompt_lengths)]
    made_with = versions(transformers, torch) | {"gguf": "0.19.0"}
    write_json(directory / "expected.json", {"made_with": made_with, "cases": cases})
    for path in directory.iterdir():
        path.chmod(0o644)
    size = (directory / "model.gguf").stat().st_size
    margins = ", ".join(f"{case['margin']:.4f}" for case in cases)
    print(f"{name}: {size} bytes, margins {margins}", flush=True)


def theta(value, **keys):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": value} | keys}


def deepseek_v2(**changes):
    sizes = DEEPSEEK | dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, first_k_dense_replace=1, norm_topk_prob=False)
    return transformers.DeepseekV2Config(**sizes | changes)


def deepseek_v3():
    return transformers.DeepseekV3Config(
        **DEEPSEEK, q_lora_rank=12, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=1,
        first_k_dense_replace=1, n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True,
        rope_parameters=YARN | {"rope_type": "yarn", "rope_theta": 10000.0},
    )


YARN_V2 = {key: value for key, value in YARN.items() if key != "type"} | {"rope_type": "yarn", "rope_theta": 10000.0, "mscale": 0.707, "mscale_all_dim": 0.707}
GPT_OSS_ROPE = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 16,
    "rope_theta": 150000.0,
}
# What the conversion does not write: llama.cpp has these of the releases.
LLAMA4_FIXED = LLAMA4 | dict(attention_chunk_size=8192, floor_scale=8192, head_dim=8)
LONG = (5, 20)

FAMILIES = {
    "deepseek_v2": lambda: Family(
        "deepseek2",
        Fixture(
            deepseek_v2(
                q_lora_rank=12, n_shared_experts=2, n_group=4, topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=16.0,
                rope_parameters=YARN_V2,
            ),
            prompt_lengths=LONG,
        ),
        split_latent, deepseek, pre="deepseek-llm",
    ),
    "deepseek_v2_lite": lambda: Family(
        "deepseek2",
        Fixture(deepseek_v2(q_lora_rank=None, n_shared_experts=1, n_group=1, topk_group=1, topk_method="greedy", routed_scaling_factor=1.0)),
        split_latent, deepseek, pre="deepseek-llm",
    ),
    "deepseek_v3": lambda: Family("deepseek2", Fixture(deepseek_v3(), prompt_lengths=LONG), split_latent, deepseek, pre="deepseek-v3"),
    # As files were before keys and values were split.
    "deepseek_v3_merged": lambda: Family(
        "deepseek2", Fixture(deepseek_v3()), metadata=lambda writer, config: deepseek(writer, config, False), pre="deepseek-v3"
    ),
    "gpt_oss": lambda: Family(
        "gpt-oss",
        Fixture(
            transformers.GptOssConfig(
                **MOE | dict(max_position_embeddings=512, hidden_size=64, intermediate_size=32), head_dim=12, num_local_experts=8,
                num_experts_per_tok=3, sliding_window=8, rope_parameters=GPT_OSS_ROPE,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            ),
            prompt_lengths=LONG,
        ),
        gpt_oss_tensors, gpt_oss, pre="gpt-4o",
    ),
    "glm4_moe": lambda: Family(
        "glm4moe",
        Fixture(
            transformers.Glm4MoeConfig(
                **MOE, head_dim=12, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=2,
                first_k_dense_replace=1, routed_scaling_factor=2.5, norm_topk_prob=True, use_qk_norm=True, attention_bias=True,
                **theta(1000000.0, partial_rotary_factor=0.5),
            )
        ),
        metadata=glm4_moe, extra=ahead, layers_ahead=1, pre="glm4",
    ),
    "glm4": lambda: Family(
        "glm4",
        Fixture(
            transformers.Glm4Config(
                **TINY, head_dim=12, attention_bias=True, tie_word_embeddings=False, **theta(10000.0, partial_rotary_factor=0.5)
            )
        ),
        metadata=rotary, pre="glm4",
    ),
    "granite": lambda: Family(
        "granite",
        Fixture(
            transformers.GraniteConfig(
                **TINY, embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.25,
                tie_word_embeddings=True, **theta(10000.0),
            ),
            embedding_std=0.1,
        ),
        turn_queries_and_keys, granite, pre="refact",
    ),
    "granitemoe": lambda: Family(
        "granitemoe",
        Fixture(
            transformers.GraniteMoeConfig(
                **MOE | dict(intermediate_size=16), num_local_experts=8, num_experts_per_tok=3, embedding_multiplier=12.0,
                logits_scaling=6.0, residual_multiplier=0.22, attention_multiplier=0.125, **theta(10000.0),
            ),
            embedding_std=0.1,
        ),
        granite_tensors, granite, pre="refact",
    ),
    "command_r": lambda: Family(
        "command-r", Fixture(transformers.CohereConfig(**TINY, logit_scale=0.0625, use_qk_norm=True, **theta(75000000.0))),
        metadata=command_r, pre="command-r",
    ),
    "cohere2": lambda: Family(
        "cohere2",
        Fixture(
            transformers.Cohere2Config(
                **TINY | dict(num_hidden_layers=4), logit_scale=0.25, sliding_window=8, sliding_window_pattern=4, **theta(50000.0)
            )
        ),
        metadata=cohere2, pre="command-r",
    ),
    "llama4_scout": lambda: Family(
        "llama4",
        Fixture(
            transformers.Llama4TextConfig(
                **LLAMA4_FIXED, interleave_moe_layer_step=1, use_qk_norm=True, attn_temperature_tuning=True,
                rope_parameters=LLAMA4_SCALING | {"rope_theta": 500000.0},
            ),
            prompt_lengths=LONG,
        ),
        llama4_tensors, llama4, llama4_factors, pre="llama4",
    ),
    "llama4_maverick": lambda: Family(
        "llama4",
        Fixture(
            transformers.Llama4TextConfig(
                **LLAMA4_FIXED | dict(num_local_experts=128, intermediate_size=2, num_hidden_layers=4), interleave_moe_layer_step=2,
                use_qk_norm=False, attn_temperature_tuning=True, **theta(500000.0),
            )
        ),
        llama4_tensors, llama4, pre="llama4",
    ),
    "olmo2": lambda: Family("olmo2", Fixture(transformers.Olmo2Config(**TINY, tie_word_embeddings=False, **theta(500000.0))), pre="dbrx"),
    "stablelm": lambda: Family(
        "stablelm", Fixture(transformers.StableLmConfig(**TINY, use_qkv_bias=True, **theta(10000.0, partial_rotary_factor=0.25))),
        metadata=stablelm, pre="stablelm2",
    ),
    "stablelm_parallel": lambda: Family(
        "stablelm",
        Fixture(
            transformers.StableLmConfig(
                **TINY, use_qkv_bias=False, use_parallel_residual=True, qk_layernorm=True, **theta(10000.0, partial_rotary_factor=0.25)
            )
        ),
        stablelm_tensors, stablelm, pre="stablelm2",
    ),
    "starcoder2": lambda: Family(
        "starcoder2", Fixture(transformers.Starcoder2Config(**TINY, sliding_window=4096, **theta(100000.0))), pre="starcoder"
    ),
    "falcon": lambda: Family(
        "falcon", Fixture(transformers.FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=False)),
        falcon_tensors, falcon, pre="falcon",
    ),
    "falcon_one_norm": lambda: Family(
        "falcon",
        Fixture(
            transformers.FalconConfig(
                **FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, tie_word_embeddings=False, bias=False
            )
        ),
        falcon_tensors, falcon, pre="falcon",
    ),
    "falcon_multi_query": lambda: Family(
        "falcon", Fixture(transformers.FalconConfig(**FALCON, multi_query=True, parallel_attn=True, bias=False)),
        falcon_tensors, falcon, pre="falcon",
    ),
    "internlm2": lambda: Family(
        "internlm2", Fixture(transformers.LlamaConfig(**TINY, tie_word_embeddings=False, **theta(1000000.0))), turn_queries_and_keys,
    ),
    "baichuan": lambda: Family(
        "baichuan", Fixture(transformers.LlamaConfig(**TINY | dict(num_key_value_heads=4), tie_word_embeddings=False, **theta(10000.0))),
        turn_queries_and_keys, lambda writer, config: writer.add_tensor_data_layout("Meta AI original pth"),
    ),
    "smollm3": lambda: Family(
        "smollm3",
        Fixture(
            transformers.SmolLM3Config(
                **TINY | dict(num_hidden_layers=4), no_rope_layer_interval=4, tie_word_embeddings=True, **theta(5000000.0)
            )
        ),
        turn_queries_and_keys, llama_keys, pre="smaug-bpe",
    ),
    "qwen3_next": lambda: Family(
        "qwen3next",
        Fixture(
            transformers.Qwen3NextConfig(**HYBRID, **EXPERTS, rope_parameters=HYBRID_ROPE), adjust=remember, norm_mean=0.0, prompt_lengths=(5, 70)
        ),
        qwen3_next_tensors, qwen3_next, pre="qwen2",
    ),
    "qwen35": lambda: Family(
        "qwen35",
        Fixture(transformers.Qwen3_5TextConfig(**HYBRID, rope_parameters=MROPE), adjust=remember, norm_mean=0.0, prompt_lengths=(5, 70)),
        qwen35_tensors, qwen35, extra=ahead, layers_ahead=1, pre="qwen35",
    ),
    "qwen35moe": lambda: Family(
        "qwen35moe",
        Fixture(
            transformers.Qwen3_5MoeTextConfig(**HYBRID, **EXPERTS, rope_parameters=MROPE), adjust=remember, norm_mean=0.0, prompt_lengths=(5, 70)
        ),
        qwen35_tensors, qwen35, fused=True, pre="qwen35",
    ),
    "qwen2_yarn": lambda: Family(
        "qwen2",
        Fixture(
            transformers.Qwen2Config(
                **TINY | dict(max_position_embeddings=128), tie_word_embeddings=False,
                rope_parameters={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1000000.0},
            ),
            prompt_lengths=LONG,
        ),
        pre="qwen2",
    ),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *FAMILIES], help="what to write; default all")
    for chosen in parser.parse_args().names or FAMILIES:
        # A seed of its own name, so that a fixture does not change when others are added.
        make(chosen, FAMILIES[chosen](), seed=sum(ord(c) * (i + 1) for i, c in enumerate(chosen)))
