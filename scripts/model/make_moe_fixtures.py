#!/usr/bin/env python3
"""Write the parity fixtures of the architectures with routed experts under tests/fixtures/architectures/.

They are made as those of make_architecture_fixtures.py are.

    make_moe_fixtures.py [NAME...]    NAME: family, or family/variant; all without one
"""

import transformers

from make_architecture_fixtures import TINY, Fixture, fixture, main, v4

# Intermediate sizes small, so that eight experts a layer stay a small file.
MOE = TINY | dict(intermediate_size=24, num_hidden_layers=3)


@fixture("mixtral/base")
def mixtral():
    config = transformers.MixtralConfig(**MOE, num_local_experts=8, num_experts_per_tok=2, rms_norm_eps=1e-5)
    return Fixture(
        config,
        v4(("head_dim",), rope_theta=1000000.0, sliding_window=None, output_router_logits=False, router_aux_loss_coef=0.02),
    )


# Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B: a gated shared expert, weights that do not sum to 1.
@fixture("qwen2_moe/base")
def qwen2_moe():
    config = transformers.Qwen2MoeConfig(
        **MOE, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, shared_expert_intermediate_size=40,
        norm_topk_prob=False,
    )
    return Fixture(
        config,
        v4(("layer_types", "qkv_bias", "mlp_only_layers"), rope_theta=1000000.0, sliding_window=32768, max_window_layers=21,
           use_sliding_window=False, decoder_sparse_step=1),
    )


# 30B-A3B and 235B-A22B; one dense layer, as mlp_only_layers may ask.
@fixture("qwen3_moe/base")
def qwen3_moe():
    config = transformers.Qwen3MoeConfig(
        **MOE, head_dim=12, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, norm_topk_prob=True,
        mlp_only_layers=[1],
    )
    return Fixture(
        config,
        v4(("layer_types",), rope_theta=1000000.0, rope_scaling=None, sliding_window=None, use_sliding_window=False,
           max_window_layers=48, decoder_sparse_step=1),
    )


@fixture("granitemoe/base")
def granitemoe():
    config = transformers.GraniteMoeConfig(
        **MOE | dict(intermediate_size=16), num_local_experts=8, num_experts_per_tok=3, embedding_multiplier=12.0,
        logits_scaling=6.0, residual_multiplier=0.22, attention_multiplier=0.125,
    )
    return Fixture(
        config,
        v4(("layer_types",), rope_theta=10000, rope_scaling=None, output_router_logits=False, router_aux_loss_coef=0.0),
        embedding_std=0.1,
    )


# GLM-4.5: norms of queries and keys, heads rotated by half, one dense layer.
@fixture("glm4_moe/base")
def glm4_moe():
    config = transformers.Glm4MoeConfig(
        **MOE, head_dim=12, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=2,
        first_k_dense_replace=1, routed_scaling_factor=2.5, norm_topk_prob=True, use_qk_norm=True, attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
    )
    return Fixture(
        config,
        v4(("num_mtp_layers",), rope_theta=1000000, rope_scaling=None, partial_rotary_factor=0.5, n_group=1, topk_group=1,
           num_nextn_predict_layers=1),
    )


# GLM-4.5-Air: no norms of queries and keys.
@fixture("glm4_moe/air")
def glm4_moe_air():
    config = transformers.Glm4MoeConfig(
        **MOE, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, first_k_dense_replace=1,
        routed_scaling_factor=1.0, attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
    )
    return Fixture(config)


@fixture("gpt_oss/base")
def gpt_oss():
    scaling = {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 16,
    }
    config = transformers.GptOssConfig(
        **MOE | dict(max_position_embeddings=512), head_dim=12, num_local_experts=8, num_experts_per_tok=3, sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=scaling | {"rope_theta": 150000.0},
    )
    return Fixture(
        config,
        v4(("swiglu_alpha",), rope_theta=150000, rope_scaling=scaling, experts_per_token=3, initial_context_length=16,
           output_router_logits=False, router_aux_loss_coef=0.9, swiglu_limit=7.0),
        prompt_lengths=(5, 20),
    )


if __name__ == "__main__":
    main()
