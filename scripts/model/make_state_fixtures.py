#!/usr/bin/env python3
"""Write the parity fixtures of the architectures with short convolutions or state spaces under tests/fixtures/architectures/.

They are made as those of make_architecture_fixtures.py are.

    make_state_fixtures.py [NAME...]    NAME: family, or family/variant; all without one, those of make_architecture_fixtures.py too
"""

import torch
import transformers

from make_architecture_fixtures import TINY, Fixture, fixture, main, v4


@fixture("lfm2/base")
def lfm2():
    config = transformers.Lfm2Config(
        **TINY | dict(num_hidden_layers=4), conv_L_cache=3, block_multiple_of=8, block_ffn_dim_multiplier=1.0,
        layer_types=["conv", "conv", "full_attention", "conv"], tie_word_embeddings=False,
    )
    return Fixture(
        config,
        v4(("layer_types", "tie_word_embeddings"), rope_theta=1000000.0, full_attn_idxs=[2], tie_embedding=False, block_dim=32, block_ff_dim=48,
           conv_dim=32, conv_dim_out=32, block_use_swiglu=True, block_norm_eps=1e-5, use_pos_enc=True),
    )


# 8B-A1B.
@fixture("lfm2_moe/base")
def lfm2_moe():
    config = transformers.Lfm2MoeConfig(
        **TINY | dict(num_hidden_layers=4, intermediate_size=24), conv_L_cache=3, num_dense_layers=2, num_experts=8,
        num_experts_per_tok=3, moe_intermediate_size=16, layer_types=["conv", "full_attention", "conv", "full_attention"],
        tie_word_embeddings=False,
    )
    return Fixture(config, v4(rope_theta=1000000.0, conv_dim=32, use_pos_enc=True))


GRANITE4 = TINY | dict(
    num_hidden_layers=4, mamba_n_heads=8, mamba_d_state=12, mamba_d_conv=4, mamba_expand=2, mamba_conv_bias=True,
    embedding_multiplier=12.0, logits_scaling=6.0, residual_multiplier=0.22, attention_multiplier=0.125,
)


def granite4(legacy, removed=(), **keys):
    """Kinds of layers as releases write them."""
    return lambda config: v4(("time_step_limit", *removed), rope_scaling=None, layer_types=legacy, **keys)(config)


@torch.no_grad()
def remember(model):
    """States that last for more than a few tokens."""
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):
            parameter.clamp_(max=-1.0)


# H Tiny and Small: experts, no positions; a prompt longer than what transformers computes at once.
@fixture("granitemoehybrid/h_moe")
def granite4_h_moe():
    config = transformers.GraniteMoeHybridConfig(
        **GRANITE4 | dict(intermediate_size=16, num_hidden_layers=3), num_local_experts=8, num_experts_per_tok=3, shared_intermediate_size=20,
        mamba_chunk_size=16, layer_types=["linear_attention", "full_attention", "linear_attention"],
    )
    return Fixture(
        config,
        granite4(["mamba", "attention", "mamba"], position_embedding_type="nope", rope_theta=10000, normalization_function="rmsnorm"),
        adjust=remember, embedding_std=0.1, prompt_lengths=(5, 24),
    )


# H Micro and 1B: no experts; groups.
@fixture("granitemoehybrid/h_dense")
def granite4_h_dense():
    config = transformers.GraniteMoeHybridConfig(
        **GRANITE4, num_local_experts=0, shared_intermediate_size=48, mamba_n_groups=2, mamba_chunk_size=16,
        layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    )
    return Fixture(
        config, granite4(["mamba", "attention", "mamba", "mamba"], position_embedding_type="nope", rope_theta=10000),
        adjust=remember, embedding_std=0.1,
    )


# Micro and 1B: attention alone.
@fixture("granitemoehybrid/attention")
def granite4_attention():
    config = transformers.GraniteMoeHybridConfig(
        **GRANITE4 | dict(num_hidden_layers=2), num_local_experts=0, shared_intermediate_size=48, position_embedding_type="rope",
        layer_types=["full_attention", "full_attention"], rope_parameters={"rope_type": "default", "rope_theta": 10000000.0},
    )
    return Fixture(config, granite4(["attention", "attention"], rope_theta=10000000), embedding_std=0.1)


NEMOTRON = TINY | dict(
    head_dim=8, mamba_num_heads=8, mamba_head_dim=6, n_groups=2, ssm_state_size=12, conv_kernel=4, chunk_size=16, intermediate_size=24,
)
NEMOTRON.pop("num_hidden_layers")


@torch.no_grad()
def take_steps(model):
    """States that last, and steps above time_step_min."""
    remember(model)
    for name, parameter in model.named_parameters():
        if name.endswith("dt_bias"):
            parameter.clamp_(min=0.0)


# Nemotron 3 Nano: experts; one state space without a layer behind it.
@fixture("nemotron_h/moe")
def nemotron_h_moe():
    config = transformers.NemotronHConfig(
        **NEMOTRON, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, moe_shared_expert_intermediate_size=20,
        routed_scaling_factor=2.5, layers_block_type=["linear_attention", "moe", "linear_attention", "full_attention", "moe"],
    )
    return Fixture(
        config,
        v4(("layers_block_type", "layer_types", "mtp_layers_block_type", "time_step_limit"), hybrid_override_pattern="MEM*E", num_hidden_layers=5,
           rope_theta=10000, partial_rotary_factor=1.0),
        adjust=take_steps, prompt_lengths=(5, 24),
    )


# Nemotron H 8B and 47B, Nano 9B v2.
@fixture("nemotron_h/dense")
def nemotron_h_dense():
    config = transformers.NemotronHConfig(
        **NEMOTRON, layers_block_type=["linear_attention", "mlp", "linear_attention", "full_attention", "mlp"],
    )
    return Fixture(
        config,
        v4(("layers_block_type", "layer_types", "mtp_layers_block_type", "time_step_limit"), hybrid_override_pattern="M-M*-", num_hidden_layers=5),
        adjust=take_steps,
    )


if __name__ == "__main__":
    main()
