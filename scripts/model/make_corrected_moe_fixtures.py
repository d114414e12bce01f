#!/usr/bin/env python3
"""Write the parity fixtures of the architectures that choose experts by corrected scores under tests/fixtures/architectures/.

They are made as those of make_architecture_fixtures.py are. DeepSeek's are in make_moe_fixtures.py.

    make_corrected_moe_fixtures.py [NAME...]    NAME: family, or family/variant; all without one, those of make_architecture_fixtures.py too
"""

import torch
import transformers

from fp8_weights import QUANTIZATION, as_fp8, round_to_fp8
from make_architecture_fixtures import TINY, Fixture, fixture, main, v4

# Intermediate sizes small, so that eight experts a layer stay a small file.
MOE = TINY | dict(intermediate_size=24, num_hidden_layers=3)
ROUTED = dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=1)


# As it is released: in FP8, rotary_dim in the place of a share.
@fixture("minimax_m2/fp8")
def minimax_m2():
    config = transformers.MiniMaxM2Config(
        **MOE | dict(intermediate_size=16), head_dim=12, num_local_experts=8, num_experts_per_tok=3,
        rope_parameters={"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5},
    )
    return Fixture(
        config,
        v4(rope_theta=5000000, rotary_dim=6, attn_type_list=[1, 1, 1], use_qk_norm=True, qk_norm_type="per_layer",
           use_routing_bias=True, scoring_func="sigmoid", shared_intermediate_size=0, sliding_window=None, use_mtp=True,
           num_mtp_modules=3, mtp_transformer_layers=1, layernorm_full_attention_beta=1.0, layernorm_mlp_beta=1.0,
           layernorm_linear_attention_beta=1.0, quantization_config=QUANTIZATION | {"modules_to_not_convert": ["gate", "lm_head"]}),
        adjust=round_to_fp8, rearrange=as_fp8,
    )


# 21B-A3B ties embedding and head. Corrections small, since the scores of a softmax are.
@fixture("ernie4_5_moe/base")
def ernie4_5_moe():
    config = transformers.Ernie4_5_MoeConfig(
        **MOE, moe_num_experts=8, moe_k=3, moe_intermediate_size=16, moe_num_shared_experts=2, moe_layer_start_index=1,
        tie_word_embeddings=True,
    )

    @torch.no_grad()
    def small_corrections(model):
        for name, parameter in model.named_parameters():
            if name.endswith("e_score_correction_bias"):
                parameter.clamp_(-0.0625, 0.0625)

    def with_prediction(tensors):
        return tensors | {"model.mtp_emb_norm.0.weight": torch.ones(32, dtype=torch.bfloat16)}

    return Fixture(
        config,
        v4(rope_theta=500000.0, moe_capacity=[64, 64, 64], moe_gate="topk", moe_use_aux_free=True, num_nextn_predict_layers=1),
        adjust=small_corrections, rearrange=with_prediction,
    )


@fixture("dots1/base")
def dots1():
    config = transformers.Dots1Config(
        **MOE | ROUTED | dict(n_shared_experts=2), first_k_dense_replace=1, routed_scaling_factor=2.5, norm_topk_prob=True,
        sliding_window=8, max_window_layers=2,
    )
    return Fixture(
        config,
        v4(("layer_types",), rope_theta=10000000, rope_scaling=None, moe_layer_freq=1, scoring_func="noaux_tc", topk_method="noaux_tc"),
    )


@fixture("exaone_moe/base")
def exaone_moe():
    config = transformers.ExaoneMoeConfig(
        **MOE | dict(num_hidden_layers=4), head_dim=12, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16,
        sliding_window=8, first_k_dense_replace=1, routed_scaling_factor=2.5,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )

    def with_prediction(tensors):
        return tensors | {"mtp.norm.weight": torch.ones(32, dtype=torch.bfloat16)}

    return Fixture(
        config,
        v4(rope_theta=1000000, rope_scaling=None, sliding_window_pattern="LLLG", scoring_func="sigmoid", topk_method="noaux_tc",
           num_nextn_predict_layers=1),
        rearrange=with_prediction,
    )


@fixture("solar_open/base")
def solar_open():
    scaling = {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}
    config = transformers.SolarOpenConfig(
        **MOE | ROUTED | dict(intermediate_size=99), head_dim=12, routed_scaling_factor=1.0,
        rope_parameters=scaling | {"rope_type": "yarn", "rope_theta": 1000000.0},
    )
    return Fixture(
        config,
        v4(rope_theta=1000000, rope_scaling=scaling, partial_rotary_factor=1.0, first_k_dense_replace=0, use_qk_norm=False),
        prompt_lengths=(5, 40),
    )


# Trinity: embeddings scaled, two dense layers, windows in three of four.
@fixture("afmoe/base")
def afmoe():
    config = transformers.AfmoeConfig(
        **MOE | dict(num_hidden_layers=4), head_dim=12, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16,
        num_shared_experts=1, num_dense_layers=2, route_scale=2.826, sliding_window=8, mup_enabled=True,
    )
    return Fixture(
        config,
        v4(rope_theta=10000, rope_scaling=None, score_func="sigmoid", route_norm=True, n_group=1, topk_group=1, num_expert_groups=1,
           num_limited_groups=1, load_balance_coeff=0.001),
        embedding_std=0.2,
    )


# Values narrower than keys, twice the key heads in layers with a window.
@fixture("mimo_v2_flash/base")
def mimo_v2_flash():
    config = transformers.MiMoV2FlashConfig(
        **MOE | ROUTED | dict(num_hidden_layers=4, num_key_value_heads=1, n_shared_experts=None), head_dim=12, v_head_dim=8,
        sliding_window_size=8, layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    )
    return Fixture(
        config,
        v4(("layer_types", "mlp_layer_types", "sliding_window_size", "rms_norm_eps", "n_shared_experts"), rope_theta=5000000,
           swa_rope_theta=10000, partial_rotary_factor=0.334, hybrid_layer_pattern=[0, 1, 1, 0], moe_layer_freq=[0, 1, 1, 1],
           sliding_window_size=8, sliding_window=8, attention_chunk_size=8, add_swa_attention_sink_bias=True,
           add_full_attention_sink_bias=False, swa_num_key_value_heads=2, swa_num_attention_heads=4, swa_head_dim=12, swa_v_head_dim=8,
           layernorm_epsilon=1e-5, routed_scaling_factor=None, scoring_func="sigmoid", topk_method="noaux_tc"),
        # transformers knows no hybrid_layer_pattern.
        rearrange=lambda tensors: tensors,
    )


LATENT = dict(num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)
LATENT_REMOVED = ("qk_head_dim", "head_dim", "mlp_layer_types", "rope_interleave", "layer_types")


# GLM-4.7-Flash, with what predicts further tokens.
@fixture("glm4_moe_lite/base")
def glm4_moe_lite():
    config = transformers.Glm4MoeLiteConfig(
        **MOE | ROUTED | LATENT, routed_scaling_factor=1.8, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )

    def with_extra_layer(tensors):
        return tensors | {"model.layers.3.enorm.weight": torch.ones(32, dtype=torch.bfloat16)}

    return Fixture(
        config,
        v4(LATENT_REMOVED, rope_theta=1000000, rope_scaling=None, partial_rotary_factor=1.0, first_k_dense_replace=1, n_group=1,
           topk_group=1, topk_method="noaux_tc", num_nextn_predict_layers=1),
        rearrange=with_extra_layer, prompt_lengths=(5, 20),
    )


# Sequences no longer than what the indexer chooses.
INDEXER = dict(index_topk=128, index_head_dim=8, index_n_heads=2)


@fixture("deepseek_v32/base")
def deepseek_v32():
    yarn = {
        "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 16,
    }
    config = transformers.DeepseekV32Config(
        **MOE | ROUTED | LATENT | INDEXER | dict(max_position_embeddings=640), first_k_dense_replace=1, n_group=4, topk_group=2,
        rope_parameters=yarn | {"rope_type": "yarn", "rope_theta": 10000.0},
    )
    return Fixture(
        config,
        v4(LATENT_REMOVED, rope_theta=10000, rope_scaling=yarn, scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1,
           num_nextn_predict_layers=1, ep_size=1),
        prompt_lengths=(5, 20),
    )


# GLM-5; one layer takes the choice of the layer before, and has no indexer.
@fixture("glm_moe_dsa/base")
def glm_moe_dsa():
    config = transformers.GlmMoeDsaConfig(
        **MOE | ROUTED | LATENT | INDEXER, first_k_dense_replace=1, indexer_types=["full", "shared", "full"],
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )
    return Fixture(
        config,
        v4(("qk_head_dim", "mlp_layer_types", "layer_types", "rope_interleave"), head_dim=4,
           rope_parameters={"rope_type": "default", "rope_theta": 1000000}, indexer_rope_interleave=True, scoring_func="sigmoid",
           topk_method="noaux_tc", moe_layer_freq=1, num_nextn_predict_layers=1),
        prompt_lengths=(5, 20),
    )


@fixture("hy_v3/base")
def hy_v3():
    config = transformers.HYV3Config(
        **MOE, head_dim=12, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, num_shared_experts=1,
    )
    return Fixture(config, v4(rope_theta=11158840.0, first_k_dense_replace=1, qk_norm=True, num_nextn_predict_layers=1))


if __name__ == "__main__":
    main()
