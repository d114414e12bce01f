#!/usr/bin/env python3
"""Write the parity fixtures of the architectures with routed experts under tests/fixtures/architectures/.

They are made as those of make_architecture_fixtures.py are.

    make_moe_fixtures.py [NAME...]    NAME: family, or family/variant; all without one
"""

import torch
import transformers

import int4_weights
from fp8_weights import QUANTIZATION, as_fp8, round_to_fp8
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


# Granite 3.2's with a shared expert.
@fixture("granitemoeshared/base")
def granitemoeshared():
    config = transformers.GraniteMoeSharedConfig(
        **MOE | dict(intermediate_size=16), num_local_experts=8, num_experts_per_tok=3, shared_intermediate_size=20,
        embedding_multiplier=12.0, logits_scaling=6.0, residual_multiplier=0.22, attention_multiplier=0.125,
    )
    return Fixture(
        config,
        v4(("layer_types",), rope_theta=10000, rope_scaling=None, output_router_logits=False, router_aux_loss_coef=0.0),
        embedding_std=0.1,
    )


@fixture("olmoe/base")
def olmoe():
    config = transformers.OlmoeConfig(
        **MOE | dict(intermediate_size=16, num_key_value_heads=4), num_experts=8, num_experts_per_tok=3, norm_topk_prob=False,
    )
    return Fixture(config, v4(rope_theta=10000.0, rope_scaling=None, clip_qkv=None, attention_bias=False))


# Phi 3.5 MoE; several experts nearly as good as the best.
@fixture("phimoe/base")
def phimoe():
    scaling = {
        "type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 1.7, 3.5, 6.0],
        "short_mscale": 1.24, "long_mscale": 1.24, "original_max_position_embeddings": 64,
    }
    config = transformers.PhimoeConfig(
        **MOE | dict(intermediate_size=16), num_local_experts=8, num_experts_per_tok=2, router_jitter_noise=0.2,
        attention_bias=True, lm_head_bias=True, sliding_window=24,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0} | scaling,
    )
    return Fixture(
        config,
        v4(("head_dim",), rope_theta=10000.0, rope_scaling=scaling, original_max_position_embeddings=64, input_jitter_noise=0.01,
           hidden_dropout=0.0, attention_dropout=0.0),
        prompt_lengths=(5, 20),
    )


# Hunyuan A13B: norms behind the rotation, whose base is stretched, lists of a number a layer.
@fixture("hunyuan_v1_moe/base")
def hunyuan_v1_moe():
    scaling = {
        "type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
    }
    config = transformers.HunYuanMoEV1Config(
        **MOE | dict(intermediate_size=16), head_dim=12, num_experts=8, moe_topk=[3, 3, 3], tie_word_embeddings=True,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0} | scaling,
    )
    return Fixture(
        config,
        v4(rope_theta=10000.0, rope_scaling=scaling, moe_intermediate_size=[16, 16, 16], num_shared_expert=[1, 1, 1],
           moe_topk=[3, 3, 3], num_experts=8, use_qk_norm=True, use_cla=False, cla_share_factor=2, use_mixed_mlp_moe=True,
           moe_layer_num_skipped=0, norm_type="rms", routed_scaling_factor=False, use_rotary_pos_emb=True, mlp_bias=False),
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


def gpt_oss(*, sizes={}, keys={}, **options):
    scaling = {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 16,
    }
    config = transformers.GptOssConfig(
        **MOE | dict(max_position_embeddings=512) | sizes, head_dim=12, num_local_experts=8, num_experts_per_tok=3, sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=scaling | {"rope_theta": 150000.0},
    )
    return Fixture(
        config,
        v4(("swiglu_alpha",), rope_theta=150000, rope_scaling=scaling, experts_per_token=3, initial_context_length=16,
           output_router_logits=False, router_aux_loss_coef=0.9, swiglu_limit=7.0, **keys),
        prompt_lengths=(5, 20), **options,
    )


@fixture("gpt_oss/base")
def gpt_oss_base():
    return gpt_oss()


def is_gpt_oss_expert(name):
    return name.endswith((".gate_up_proj", ".down_proj"))


def as_mxfp4(tensors):
    """The experts' matrices [n, cols, rows] as blocks of 32 columns: codes of two a byte, and exponents of two."""
    result = {}
    for name, tensor in tensors.items():
        if not is_gpt_oss_expert(name):
            result[name] = tensor
            continue
        blocks = tensor.float().transpose(1, 2)
        blocks = blocks.reshape(*blocks.shape[:2], -1, 32)
        exponents = torch.floor(torch.log2(blocks.abs().amax(-1))) - 2
        values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
        scaled = blocks / 2.0 ** exponents[..., None]
        codes = (scaled.abs()[..., None] - values).abs().argmin(-1) + 8 * (scaled < 0)
        result[f"{name}_blocks"] = (codes[..., ::2] + 16 * codes[..., 1::2]).to(torch.uint8)
        result[f"{name}_scales"] = (exponents + 127).to(torch.uint8)
    return result


# As it is released: the experts in MXFP4.
@fixture("gpt_oss/mxfp4")
def gpt_oss_mxfp4():
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    return gpt_oss(
        sizes=dict(hidden_size=64, intermediate_size=32), keys={"quantization_config": {"modules_to_not_convert": skipped, "quant_method": "mxfp4"}},
        rearrange=as_mxfp4, loading={"quantization_config": transformers.Mxfp4Config(dequantize=True)},
    )


LATENT = dict(kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)
YARN = {
    "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 16,
}
DEEPSEEK = MOE | LATENT | dict(num_key_value_heads=4, max_position_embeddings=640)
DEEPSEEK_REMOVED = ("head_dim", "qk_head_dim", "num_mtp_layers", "rope_interleave")


def deepseek_v4(removed=(), **keys):
    return v4((*DEEPSEEK_REMOVED, *removed), rope_theta=10000, moe_layer_freq=1, ep_size=1, seq_aux=True, aux_loss_alpha=0.001, **keys)


# V2: queries through a narrow layer, experts from the best groups.
@fixture("deepseek_v2/base")
def deepseek_v2():
    yarn = YARN | dict(mscale=0.707, mscale_all_dim=0.707)
    config = transformers.DeepseekV2Config(
        **DEEPSEEK, q_lora_rank=12, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=2,
        first_k_dense_replace=1, n_group=4, topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=16.0,
        norm_topk_prob=False, rope_parameters=yarn | {"rope_type": "yarn", "rope_theta": 10000.0},
    )
    return Fixture(config, deepseek_v4(rope_scaling=yarn, scoring_func="softmax"), prompt_lengths=(5, 20))


# V2-Lite: queries at once, experts from all.
@fixture("deepseek_v2/lite")
def deepseek_v2_lite():
    config = transformers.DeepseekV2Config(
        **DEEPSEEK, q_lora_rank=None, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=1,
        first_k_dense_replace=1, topk_method="greedy", routed_scaling_factor=1.0, norm_topk_prob=False,
    )
    return Fixture(config, deepseek_v4(rope_scaling=None, scoring_func="softmax", n_group=1, topk_group=1))


# V3 and R1, with what predicts further tokens: a layer that is not used.
@fixture("deepseek_v3/base")
def deepseek_v3():
    config = transformers.DeepseekV3Config(
        **DEEPSEEK, q_lora_rank=12, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=1,
        first_k_dense_replace=1, n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True,
        rope_parameters=YARN | {"rope_type": "yarn", "rope_theta": 10000.0},
    )

    def with_extra_layer(tensors):
        return tensors | {"model.layers.3.enorm.weight": torch.ones(32, dtype=torch.bfloat16)}

    return Fixture(
        config,
        deepseek_v4(rope_scaling=YARN, scoring_func="sigmoid", topk_method="noaux_tc", num_nextn_predict_layers=1),
        rearrange=with_extra_layer, prompt_lengths=(5, 20),
    )


# V3 as it is released: in FP8, the tensor that keys and values are made with too.
@fixture("deepseek_v3/fp8")
def deepseek_v3_fp8():
    config = transformers.DeepseekV3Config(
        **DEEPSEEK, q_lora_rank=12, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=1,
        first_k_dense_replace=1, n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True,
        rope_parameters=YARN | {"rope_type": "yarn", "rope_theta": 10000.0},
    )
    return Fixture(
        config,
        deepseek_v4(rope_scaling=YARN, scoring_func="sigmoid", topk_method="noaux_tc", quantization_config=QUANTIZATION),
        adjust=round_to_fp8, rearrange=as_fp8, prompt_lengths=(5, 20),
    )


# Kimi K2 is DeepSeek-V3 with one group and more experts.
@fixture("kimi_k2/base")
def kimi_k2():
    yarn = YARN | dict(factor=32.0, beta_fast=1.0, beta_slow=1.0)
    config = transformers.DeepseekV3Config(
        **DEEPSEEK, q_lora_rank=12, n_routed_experts=12, num_experts_per_tok=4, moe_intermediate_size=8, n_shared_experts=1,
        first_k_dense_replace=1, n_group=1, topk_group=1, routed_scaling_factor=2.827, norm_topk_prob=True,
        rope_parameters=yarn | {"rope_type": "yarn", "rope_theta": 50000.0},
    )
    respell = lambda config: deepseek_v4(model_type="kimi_k2", rope_scaling=yarn, scoring_func="sigmoid", topk_method="noaux_tc")(
        config
    ) | {"rope_theta": 50000.0}
    return Fixture(config, respell, rearrange=lambda tensors: tensors, prompt_lengths=(5, 20))


# Kimi K2 Thinking: its experts in 4 bits.
@fixture("kimi_k2/int4")
def kimi_k2_int4():
    yarn = YARN | dict(factor=32.0, beta_fast=1.0, beta_slow=1.0)
    config = transformers.DeepseekV3Config(
        **DEEPSEEK | dict(hidden_size=64), q_lora_rank=12, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=64, n_shared_experts=1,
        first_k_dense_replace=1, n_group=1, topk_group=1, routed_scaling_factor=2.827, norm_topk_prob=True,
        rope_parameters=yarn | {"rope_type": "yarn", "rope_theta": 50000.0},
    )
    keys = {"rope_theta": 50000.0, "quantization_config": int4_weights.QUANTIZATION}
    respell = lambda config: deepseek_v4(model_type="kimi_k2", rope_scaling=yarn, scoring_func="sigmoid", topk_method="noaux_tc")(config) | keys
    return Fixture(config, respell, adjust=int4_weights.round_to_int4, rearrange=int4_weights.as_int4, prompt_lengths=(5, 20))


LLAMA4 = MOE | dict(
    num_hidden_layers=4, intermediate_size=16, intermediate_size_mlp=24, num_local_experts=8, num_experts_per_tok=1,
    attention_chunk_size=8, floor_scale=4, attn_scale=0.1,
)
LLAMA4_SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


# Scout: experts in every layer, norms of queries and keys.
@fixture("llama4_text/scout")
def llama4_scout():
    config = transformers.Llama4TextConfig(
        **LLAMA4, head_dim=8, interleave_moe_layer_step=1, use_qk_norm=True, attn_temperature_tuning=True,
        rope_parameters=LLAMA4_SCALING | {"rope_theta": 500000.0},
    )
    return Fixture(config, v4(rope_theta=500000.0, rope_scaling=LLAMA4_SCALING, for_llm_compressor=False), prompt_lengths=(5, 20))


# Maverick: experts in every second layer, no norms of queries and keys.
@fixture("llama4_text/maverick")
def llama4_maverick():
    config = transformers.Llama4TextConfig(
        **LLAMA4, head_dim=8, interleave_moe_layer_step=2, use_qk_norm=False, attn_temperature_tuning=True,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    return Fixture(
        config, v4(("layer_types",), rope_theta=500000.0, rope_scaling=None), prompt_lengths=(5, 20)
    )


# As it is released: the language model within one that also sees images, whose weights are passed over.
@fixture("llama4/base")
def llama4():
    config = transformers.Llama4TextConfig(**LLAMA4, head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    respell = lambda text: {
        "model_type": "llama4", "architectures": ["Llama4ForConditionalGeneration"], "torch_dtype": "bfloat16",
        "image_token_index": 90, "tie_word_embeddings": False, "vision_config": {"model_type": "llama4_vision_model"},
        "text_config": v4(rope_theta=500000.0)(text),
    }

    def within_whole_model(tensors):
        whole = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
        return whole | {"multi_modal_projector.linear_1.weight": torch.zeros(4, 4, dtype=torch.bfloat16)}

    return Fixture(config, respell, rearrange=within_whole_model, prompt_lengths=(5, 20))


if __name__ == "__main__":
    main()
