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


if __name__ == "__main__":
    main()
