#!/usr/bin/env python3
"""Write the parity fixtures of further dense architectures under tests/fixtures/architectures/.

They are made as those of make_architecture_fixtures.py are.

    make_dense_fixtures.py [NAME...]    NAME: family, or family/variant; all without one
"""

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


if __name__ == "__main__":
    main()
