#!/usr/bin/env python3
"""Write the parity fixtures of further dense architectures under tests/fixtures/architectures/.

They are made as those of make_architecture_fixtures.py are.

    make_dense_fixtures.py [NAME...]    NAME: family, or family/variant; all without one
"""

import torch
import transformers

from make_architecture_fixtures import TINY, Fixture, fixture, main, v4

OLMO3_YARN = {
    "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 32, "beta_slow": 1,
    "attention_factor": 1.2079441541679836,
}


# OLMo 3: every fourth layer sees all, with YaRN.
@fixture("olmo3/base")
def olmo3():
    config = transformers.Olmo3Config(
        **TINY | dict(num_hidden_layers=4), sliding_window=8, rms_norm_eps=1e-6,
        rope_parameters={
            "full_attention": OLMO3_YARN | {"rope_theta": 500000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
        },
    )
    return Fixture(config, v4(rope_theta=500000, rope_scaling=OLMO3_YARN, attention_bias=False), prompt_lengths=(5, 20))


# The same as transformers 5 writes it, with what it says when no key does.
@fixture("olmo3/v5")
def olmo3_v5():
    config = transformers.Olmo3Config(**TINY | dict(num_hidden_layers=4), sliding_window=8)

    def respell(config):
        config.pop("layer_types")
        return config

    return Fixture(config, respell)


# 36B.
@fixture("seed_oss/base")
def seed_oss():
    config = transformers.SeedOssConfig(**TINY, head_dim=12, attention_bias=True, attention_out_bias=False)
    return Fixture(config, v4(rope_theta=10000000.0, rope_scaling={"rope_type": "default"}))


# 32B: layers that see all have no positions.
@fixture("exaone4/base")
def exaone4():
    config = transformers.Exaone4Config(**TINY | dict(num_hidden_layers=4), sliding_window=8, sliding_window_pattern=4)
    scaling = {
        "rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    return Fixture(config, v4(rope_theta=1000000, rope_scaling=scaling, sliding_window_pattern="LLLG"))


# 1.2B: all layers see all, with positions.
@fixture("exaone4/whole")
def exaone4_whole():
    config = transformers.Exaone4Config(
        **TINY, sliding_window=None, layer_types=["full_attention"] * 2, tie_word_embeddings=True,
    )
    return Fixture(config, v4(rope_theta=1000000, sliding_window_pattern=None))


@fixture("ernie4_5/base")
def ernie4_5():
    config = transformers.Ernie4_5Config(**TINY, head_dim=12, tie_word_embeddings=True)
    return Fixture(config, v4(rope_theta=500000.0, compression_ratio=1.0))


@fixture("ernie4_5/bias")
def ernie4_5_bias():
    return Fixture(transformers.Ernie4_5Config(**TINY, head_dim=12, use_bias=True, tie_word_embeddings=False))


# Hunyuan 0.5B to 7B: a rotation that is stretched once and for all.
@fixture("hunyuan_v1_dense/base")
def hunyuan_v1_dense():
    scaling = {"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
    config = transformers.HunYuanDenseV1Config(**TINY, head_dim=12, tie_word_embeddings=True)
    return Fixture(
        config, v4(rope_theta=10000.0, rope_scaling=scaling, use_qk_norm=True, use_cla=False, norm_type="rms"),
    )


# AFM 4.5B.
@fixture("arcee/base")
def arcee():
    scaling = {
        "rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
        "original_max_position_embeddings": 32,
    }
    config = transformers.ArceeConfig(**TINY, rope_parameters=scaling | {"rope_theta": 10000.0})
    return Fixture(config, v4(rope_theta=10000.0, rope_scaling=scaling))


# Minitron and Nemotron-4.
@fixture("nemotron/base")
def nemotron():
    config = transformers.NemotronConfig(
        **TINY, head_dim=12, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )
    return Fixture(config, v4(rope_theta=10000.0, rope_percent=0.5, partial_rotary_factor=0.5), norm_mean=0.0)


@fixture("helium/base")
def helium():
    config = transformers.HeliumConfig(**TINY | dict(num_key_value_heads=4), head_dim=8)
    return Fixture(config, v4(rope_theta=100000.0))


@fixture("vaultgemma/base")
def vaultgemma():
    config = transformers.VaultGemmaConfig(
        **TINY | dict(num_hidden_layers=3), head_dim=12, query_pre_attn_scalar=10, sliding_window=8, attn_logit_softcapping=5.0,
        final_logit_softcapping=6.0,
    )
    return Fixture(config, v4(rope_theta=10000.0), norm_mean=0.0, embedding_std=0.05)


SIZES = {key: TINY[key] for key in TINY if key != "num_key_value_heads"}
GPT = dict(
    vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2, pad_token_id=None,
)


# Phi 1, 1.5, 2.
@fixture("phi/base")
def phi():
    config = transformers.PhiConfig(
        **SIZES, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )
    return Fixture(config, v4(rope_theta=10000.0, rope_scaling=None, partial_rotary_factor=0.5, qk_layernorm=False))


# Pythia, GPT-NeoX 20B; with the masks that releases have stored.
@fixture("gpt_neox/base")
def gpt_neox():
    config = transformers.GPTNeoXConfig(
        **SIZES, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    )

    def with_masks(tensors):
        return tensors | {
            "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
            "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
            "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(1),
        }

    return Fixture(config, v4(rotary_emb_base=10000, rotary_pct=0.25), rearrange=with_masks)


# RedPajama-INCITE: sublayers in sequence, heads rotated whole.
@fixture("gpt_neox/sequence")
def gpt_neox_sequence():
    config = transformers.GPTNeoXConfig(
        **SIZES, use_parallel_residual=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    )
    return Fixture(config)


@fixture("gptj/base")
def gptj():
    return Fixture(transformers.GPTJConfig(**GPT, rotary_dim=4), v4(scale_attn_weights=True))


@fixture("codegen/base")
def codegen():
    return Fixture(transformers.CodeGenConfig(**GPT, rotary_dim=4), v4(scale_attn_weights=True))


# The releases, from GPT-2 to GPT-2 XL: tensors without a prefix, and stored masks.
@fixture("gpt2/base")
def gpt2():
    def as_released(tensors):
        return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()} | {
            "h.0.attn.bias": torch.ones(1, 1, 8, 8),
        }

    return Fixture(transformers.GPT2Config(**GPT), v4(n_ctx=128), rearrange=as_released, embedding_std=0.1)


# Stanford's; and as transformers saves it.
@fixture("gpt2/inverse")
def gpt2_inverse():
    config = transformers.GPT2Config(**GPT | dict(n_layer=3), scale_attn_by_inverse_layer_idx=True, n_inner=40)
    return Fixture(config, embedding_std=0.1)


@fixture("gpt_neo/base")
def gpt_neo():
    config = transformers.GPTNeoConfig(
        vocab_size=96, hidden_size=32, num_layers=4, num_heads=4, max_position_embeddings=128, window_size=8,
        attention_types=[[["global", "local"], 2]], bos_token_id=1, eos_token_id=2,
    )
    return Fixture(config, v4(attention_layers=["global", "local"] * 2))


# StarCoder 1: one key head for all.
@fixture("gpt_bigcode/base")
def gpt_bigcode():
    return Fixture(transformers.GPTBigCodeConfig(**GPT), v4(n_inner=128, attention_softmax_in_fp32=True), embedding_std=0.1)


@fixture("gpt_bigcode/heads")
def gpt_bigcode_heads():
    return Fixture(transformers.GPTBigCodeConfig(**GPT, multi_query=False), embedding_std=0.1)


OPT = {key: SIZES[key] for key in SIZES if key != "intermediate_size"} | dict(max_position_embeddings=128, ffn_dim=48)


@fixture("opt/base")
def opt():
    config = transformers.OPTConfig(**OPT, word_embed_proj_dim=32)
    return Fixture(config, v4(prefix="</s>", do_layer_norm_before=True), embedding_std=0.1)


# Galactica: no biases, norms without weights; tensors as older releases name them.
@fixture("opt/galactica")
def opt_galactica():
    config = transformers.OPTConfig(
        **OPT, activation_function="gelu", enable_bias=False, layer_norm_elementwise_affine=False,
    )
    older = lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return Fixture(config, rearrange=older)


def quieter_embeddings(model):
    """Else a token, whose normed embedding is the largest part of what the head sees, predicts itself forever."""
    norm = model.transformer.word_embeddings_layernorm
    norm.weight.data.clamp_(max=0.25)
    norm.bias.data.clamp_(min=-0.125, max=0.125)


# A number of heads that is no power of two; tensors without a prefix.
@fixture("bloom/base")
def bloom():
    config = transformers.BloomConfig(
        vocab_size=96, hidden_size=36, n_layer=2, n_head=6, bos_token_id=1, eos_token_id=2, pad_token_id=None,
    )

    def respell(config):
        config["n_embed"] = config.pop("hidden_size")
        config["num_attention_heads"] = config.pop("n_head")
        return v4(seq_length=128, offset_alibi=100, skip_bias_add=True, masked_softmax_fusion=True)(config)

    without = lambda tensors: {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    return Fixture(config, respell, rearrange=without, adjust=quieter_embeddings, embedding_std=0.1)


@fixture("bloom/saved")
def bloom_saved():
    config = transformers.BloomConfig(
        vocab_size=96, hidden_size=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2, pad_token_id=None,
    )
    return Fixture(config, adjust=quieter_embeddings, embedding_std=0.1)


@fixture("nanochat/base")
def nanochat():
    config = transformers.NanoChatConfig(**TINY)
    return Fixture(config)


# OLMo 7B 0424: queries, keys and values clipped.
@fixture("olmo/base")
def olmo():
    config = transformers.OlmoConfig(**SIZES, clip_qkv=1.0)
    return Fixture(config, v4(rope_theta=10000.0, rope_scaling=None))


# 7B-StoryWriter clips, 30B has a number of heads that is no power of two.
@fixture("mpt/base")
def mpt():
    config = transformers.MptConfig(
        vocab_size=96, d_model=36, n_heads=6, n_layers=2, max_seq_len=128, attn_config={"clip_qkv": 1.0, "alibi": True},
    )
    return Fixture(config, v4(verbose=0, learned_pos_emb=True), embedding_std=0.1)


@fixture("apertus/base")
def apertus():
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    }
    config = transformers.ApertusConfig(**TINY, rope_parameters=scaling | {"rope_theta": 12000000.0})
    return Fixture(
        config, v4(rope_theta=12000000.0, rope_scaling=scaling, qk_norm=True, post_norm=False, mlp_bias=False),
    )


def renamed(names, joined=None):
    """Renames tensors of Llama's names, and puts queries, keys and values below each other in one tensor where it has a name."""

    def rearrange(tensors):
        result = {}
        for name, tensor in tensors.items():
            if joined and ("k_proj" in name or "v_proj" in name):
                continue
            if joined and "q_proj" in name:
                tensor = torch.cat([tensors[name.replace("q_proj", kind)] for kind in ("q_proj", "k_proj", "v_proj")])
                name = name.replace("self_attn.q_proj", joined)
            for old, new in names.items():
                name = name.replace(old, new)
            result[name] = tensor
        return result

    return rearrange


# The first Qwen. transformers' `qwen2` is the same model under other names.
@fixture("qwen/base")
def qwen():
    config = transformers.Qwen2Config(**SIZES, num_key_value_heads=4)
    keys = dict(
        model_type="qwen", architectures=["QWenLMHeadModel"], attn_dropout_prob=0.0, bf16=True, emb_dropout_prob=0.0, fp16=False,
        hidden_size=32, initializer_range=0.02, intermediate_size=96, kv_channels=8, layer_norm_epsilon=1e-06,
        max_position_embeddings=512, no_bias=True, num_attention_heads=4, num_hidden_layers=2, onnx_safe=None, rotary_emb_base=10000,
        rotary_pct=1.0, scale_attn_weights=True, seq_length=128, tie_word_embeddings=False, use_cache=True, use_dynamic_ntk=True,
        use_flash_attn="auto", use_logn_attn=True, vocab_size=96, torch_dtype="bfloat16",
    )
    names = {
        "model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f", "model.layers": "transformer.h",
        "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2", "self_attn.o_proj": "attn.c_proj", "mlp.down_proj": "mlp.c_proj",
        "mlp.gate_proj": "mlp.w2", "mlp.up_proj": "mlp.w1",
    }
    return Fixture(config, lambda _: keys, rearrange=renamed(names, "attn.c_attn"))


# The first InternLM is Llama with biases of attention.
@fixture("internlm/base")
def internlm():
    config = transformers.LlamaConfig(**SIZES, attention_bias=True)
    respell = v4(
        ("attention_bias", "mlp_bias", "pretraining_tp", "head_dim", "num_key_value_heads"), model_type="internlm",
        architectures=["InternLMForCausalLM"], bias=True, rotary={"base": 10000, "type": "origin"},
    )
    return Fixture(config, respell, rearrange=lambda tensors: tensors)


# EXAONE 3.5 is Llama under other names.
@fixture("exaone/base")
def exaone():
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    config = transformers.LlamaConfig(**TINY, rms_norm_eps=1e-5, rope_parameters=scaling | {"rope_theta": 1000000.0})

    def respell(config):
        config["num_layers"] = config.pop("num_hidden_layers")
        config["layer_norm_epsilon"] = config.pop("rms_norm_eps")
        config["activation_function"] = config.pop("hidden_act")
        return v4(
            ("attention_bias", "mlp_bias", "pretraining_tp"), model_type="exaone", architectures=["ExaoneForCausalLM"],
            rope_theta=1000000, rope_scaling=scaling, embed_dropout=0.0,
        )(config)

    names = {
        "model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f", "model.layers": "transformer.h",
        "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2", "self_attn.o_proj": "self_attn.out_proj",
        "self_attn": "attn.attention", "mlp.gate_proj": "mlp.c_fc_0", "mlp.up_proj": "mlp.c_fc_1", "mlp.down_proj": "mlp.c_proj",
    }
    return Fixture(config, respell, rearrange=renamed(names))


@fixture("ministral/base")
def ministral():
    config = transformers.MinistralConfig(
        **TINY | dict(num_hidden_layers=3), head_dim=12, sliding_window=8,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
    )
    return Fixture(config)


if __name__ == "__main__":
    main()
