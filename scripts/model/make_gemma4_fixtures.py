#!/usr/bin/env python3
"""Write the parity fixtures of Gemma 4 under tests/fixtures/architectures/.

They are made as those of make_architecture_fixtures.py are.

    make_gemma4_fixtures.py [NAME...]    NAME: family, or family/variant; all without one, those of make_architecture_fixtures.py too
"""

import torch
import transformers

from make_architecture_fixtures import TINY, Fixture, fixture, main

ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25},
}
GEMMA4 = TINY | dict(
    num_hidden_layers=3, head_dim=8, global_head_dim=16, num_global_key_value_heads=1, attention_k_eq_v=True, sliding_window=8,
    layer_types=["sliding_attention", "sliding_attention", "full_attention"], hidden_size_per_layer_input=0,
    final_logit_softcapping=30.0, tie_word_embeddings=True, rope_parameters=ROPE, use_bidirectional_attention="vision",
)


@torch.no_grad()
def scale(model):
    """Numbers of layers and experts that are not 1."""
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.fill_(0.75 + 0.25 * int(name.split("layers.")[1].split(".")[0]))
    for name, parameter in model.named_parameters():
        if name.endswith(("router.scale", "per_expert_scale")):
            parameter.clamp_(0.5, 1.5)


# 31B: heads as releases write them.
@fixture("gemma4_text/dense")
def gemma4_dense():
    config = transformers.Gemma4TextConfig(**GEMMA4)

    def respell(config):
        del config["per_layer_config"]
        return config | dict(global_head_dim=16, num_global_key_value_heads=1)

    return Fixture(config, respell, adjust=scale, embedding_std=0.05, prompt_lengths=(3, 13))


# 26B-A4B, as it is released: within the whole model.
@fixture("gemma4/moe")
def gemma4_moe():
    text = transformers.Gemma4TextConfig(
        **GEMMA4 | dict(intermediate_size=24, pad_token_id=0), enable_moe_block=True, num_experts=8, top_k_experts=3, moe_intermediate_size=16,
    )
    vision = dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=4,
        patch_size=2, position_embedding_size=4, pooling_kernel_size=1,
    )
    config = transformers.Gemma4Config(text_config=text, vision_config=vision, audio_config=None)
    return Fixture(
        config, adjust=scale, embedding_std=0.05, make_model=transformers.Gemma4ForConditionalGeneration,
    )


if __name__ == "__main__":
    main()
