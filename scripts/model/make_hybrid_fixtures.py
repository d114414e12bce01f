#!/usr/bin/env python3
"""Write the parity fixtures of the architectures with gated delta nets under tests/fixtures/architectures/.

They are made as those of make_architecture_fixtures.py are.

    make_hybrid_fixtures.py [NAME...]    NAME: family, or family/variant; all without one
"""

import torch
import transformers

from fp8_weights import QUANTIZATION, as_fp8, round_to_fp8
from make_architecture_fixtures import TINY, Fixture, fixture, main, v4

HYBRID = TINY | dict(
    num_hidden_layers=4, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
    linear_value_head_dim=12, linear_conv_kernel_dim=4,
)
EXPERTS = dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, shared_expert_intermediate_size=24)
ROPE = {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25}
MROPE = ROPE | {"mrope_interleaved": True, "mrope_section": [1, 1, 0]}


@torch.no_grad()
def remember(model):
    """States that last for more than a few tokens."""
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):
            parameter.clamp_(max=-1.0)


def with_tensors(**further):
    """Adds tensors that releases have and the language model does not use."""

    def rearrange(tensors):
        return tensors | {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in further.items()}

    return rearrange


# 80B-A3B; a prompt longer than the 64 tokens that transformers computes at once.
@fixture("qwen3_next/base")
def qwen3_next():
    config = transformers.Qwen3NextConfig(**HYBRID, **EXPERTS, rope_parameters=ROPE)
    return Fixture(
        config,
        v4(("layer_types",), full_attention_interval=4, rope_theta=10000000, partial_rotary_factor=0.25, rope_scaling=None,
           use_sliding_window=False, decoder_sparse_step=1),
        rearrange=with_tensors(**{"mtp.fc.weight": (4, 4), "mtp.layers.0.input_layernorm.weight": (32,)}),
        adjust=remember, norm_mean=0.0, prompt_lengths=(5, 70),
    )


# As it is released in FP8.
@fixture("qwen3_next/fp8")
def qwen3_next_fp8():
    config = transformers.Qwen3NextConfig(**HYBRID, **EXPERTS, rope_parameters=ROPE)

    def adjust(model):
        remember(model)
        round_to_fp8(model)

    return Fixture(
        config,
        v4(("layer_types",), full_attention_interval=4, rope_theta=10000000, partial_rotary_factor=0.25, rope_scaling=None,
           quantization_config=QUANTIZATION),
        rearrange=as_fp8, adjust=adjust, norm_mean=0.0,
    )


# What its config can say beside: biases, layers in another order, a dense one, weights that do not sum to 1, stretched positions.
@fixture("qwen3_next/yarn")
def qwen3_next_yarn():
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    config = transformers.Qwen3NextConfig(
        **HYBRID, **EXPERTS | dict(mlp_only_layers=[1]), norm_topk_prob=False, attention_bias=True, rope_parameters=ROPE | scaling,
        layer_types=["full_attention", "linear_attention", "full_attention", "linear_attention"],
    )
    return Fixture(config, adjust=remember, norm_mean=0.0, prompt_lengths=(5, 40))


# 27B by itself.
@fixture("qwen3_5_text/base")
def qwen3_5_text():
    config = transformers.Qwen3_5TextConfig(**HYBRID, rope_parameters=MROPE)
    return Fixture(config, adjust=remember, norm_mean=0.0)


# 35B-A3B by itself, each expert with tensors of its own, as releases in FP8 have them.
@fixture("qwen3_5_moe_text/base")
def qwen3_5_moe_text():
    keys = {key: value for key, value in HYBRID.items() if key != "intermediate_size"}
    config = transformers.Qwen3_5MoeTextConfig(**keys, **EXPERTS, rope_parameters=MROPE)
    return Fixture(config, adjust=remember, norm_mean=0.0)


VISION = dict(
    depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=32, patch_size=2, num_position_embeddings=4,
    temporal_patch_size=1, spatial_merge_size=1,
)
TOKENS = dict(image_token_id=95, video_token_id=94, vision_start_token_id=93, vision_end_token_id=92)
# Keys of releases beyond those of transformers.
RELEASED = dict(
    attn_output_gate=True, full_attention_interval=4, mamba_ssm_dtype="float32", mtp_num_hidden_layers=1,
    mtp_use_dedicated_embeddings=False, partial_rotary_factor=0.25,
)


def released(**keys):
    def respell(config):
        config["text_config"] |= RELEASED | keys
        return config

    return respell


# As released: within a model that also sees images, with what predicts further tokens; small ones take the embedding for the head too.
@fixture("qwen3_5/base")
def qwen3_5():
    text = transformers.Qwen3_5TextConfig(**HYBRID, rope_parameters=MROPE, tie_word_embeddings=True)
    config = transformers.Qwen3_5Config(text_config=text.to_dict(), vision_config=VISION, tie_word_embeddings=True, **TOKENS)
    return Fixture(
        config, released(), rearrange=with_tensors(**{"mtp.fc.weight": (4, 4)}), adjust=remember, norm_mean=0.0,
        make_model=transformers.Qwen3_5ForConditionalGeneration,
    )


# As released: experts stacked, decays and the norms of delta nets in float32.
@fixture("qwen3_5_moe/base")
def qwen3_5_moe():
    keys = {key: value for key, value in HYBRID.items() if key != "intermediate_size"}
    text = transformers.Qwen3_5MoeTextConfig(**keys, **EXPERTS, rope_parameters=MROPE)
    config = transformers.Qwen3_5MoeConfig(text_config=text.to_dict(), vision_config=VISION, **TOKENS)

    def as_released(tensors):
        is_float32 = lambda name: name.endswith(("A_log", "linear_attn.norm.weight"))
        whole = {name: tensor.float() if is_float32(name) else tensor for name, tensor in tensors.items() if ".experts." not in name}
        for layer in range(HYBRID["num_hidden_layers"]):
            experts = f"model.language_model.layers.{layer}.mlp.experts"
            stack = lambda part: torch.stack([tensors[f"{experts}.{i}.{part}_proj.weight"] for i in range(EXPERTS["num_experts"])])
            whole[f"{experts}.gate_up_proj"] = torch.cat([stack("gate"), stack("up")], 1)
            whole[f"{experts}.down_proj"] = stack("down")
        return whole

    return Fixture(
        config, released(mlp_only_layers=[]), rearrange=as_released, adjust=remember, norm_mean=0.0,
        make_model=transformers.Qwen3_5MoeForConditionalGeneration,
    )


if __name__ == "__main__":
    main()
