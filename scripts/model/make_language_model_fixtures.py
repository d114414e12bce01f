#!/usr/bin/env python3
"""Write the parity fixtures of whole models that also see images, of which AirKern uses the language model, under
tests/fixtures/architectures/.

transformers computes with the whole model; prompts are text alone. They are made as those of
make_architecture_fixtures.py are.

    make_language_model_fixtures.py [NAME...]    NAME: family, or family/variant; all without one
"""

import re

import torch
import transformers

from make_architecture_fixtures import TINY, Fixture, fixture, main, v4
from make_moe_fixtures import DEEPSEEK, MOE, YARN

# What transformers is to read although it is not what it has written.
RENAMED = {"use_safetensors": True}


def renamed(*patterns, also=lambda tensors: tensors):
    """Names tensors as releases do: pairs of a pattern and what takes its place."""

    def rearrange(tensors):
        result = {}
        for name, tensor in tensors.items():
            for pattern, new in patterns:
                name = re.sub(pattern, new, name)
            result[name] = tensor
        return also(result)

    return rearrange


WRAPPED = (
    (r"^model\.language_model\.", "language_model.model."), (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.(vision_tower|multi_modal_projector|mm_projector)\.", r"\1."),
)
NESTED = (
    (r"^language_model\.model\.", "model.language_model."), (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(vision_tower|multi_modal_projector|visual)\.", r"model.\1."), (r"^model\.layers\.", "model.language_model.layers."),
    (r"^model\.(embed_tokens|norm)\.", r"model.language_model.\1."),
)


def v4_text(*removed, outside={}, **keys):
    """The spelling of releases before transformers 5 of the settings within text_config."""

    def respell(config):
        text = v4(removed, **keys)(config["text_config"])
        return v4((), text_config=text, **outside)(config)

    return respell


PIXTRAL = dict(
    model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, head_dim=4, image_size=8,
    patch_size=4,
)


def mistral3(text, respell=None, **options):
    config = transformers.Mistral3Config(
        text_config=text, vision_config=PIXTRAL, image_token_index=90, spatial_merge_size=1,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    return Fixture(config, respell, make_model=transformers.Mistral3ForConditionalGeneration, **options)


# Mistral Small 3.1 and 3.2, Magistral Small 2509: no key says whether the embedding gives the logits.
@fixture("mistral3/base")
def mistral3_base():
    text = transformers.MistralConfig(**TINY, head_dim=12, rms_norm_eps=1e-5, sliding_window=None)

    def respell(config):
        text = v4(("tie_word_embeddings",), rope_theta=1000000000.0)(config["text_config"])
        return v4(("tie_word_embeddings",), text_config=text)(config)

    return mistral3(text, respell, rearrange=renamed(*WRAPPED), loading=RENAMED)


MINISTRAL3_ROPE = {
    "rope_type": "yarn", "type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "original_max_position_embeddings": 8,
    "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
}


# Ministral 3 3B, with names as transformers saves them now.
@fixture("mistral3/ministral3")
def mistral3_ministral3():
    text = transformers.Ministral3Config(**TINY, head_dim=12, rope_parameters=MINISTRAL3_ROPE, tie_word_embeddings=True)
    return mistral3(text, rearrange=renamed(*NESTED), loading=RENAMED, prompt_lengths=(5, 20))


# Devstral 2.
@fixture("ministral3/base")
def ministral3():
    config = transformers.Ministral3Config(
        **TINY, head_dim=12, rope_parameters=MINISTRAL3_ROPE | {"max_position_embeddings": 128},
    )
    return Fixture(config, prompt_lengths=(5, 20))


MISTRAL4 = TINY | dict(
    num_hidden_layers=3, intermediate_size=24, num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=12, qk_nope_head_dim=8,
    qk_rope_head_dim=4, v_head_dim=6, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=1,
    rope_parameters=MINISTRAL3_ROPE | {"partial_rotary_factor": 4 / 12},
)


# Mistral Small 4: experts in stacks.
@fixture("mistral3/mistral4")
def mistral3_mistral4():
    return mistral3(transformers.Mistral4Config(**MISTRAL4), rearrange=renamed(*WRAPPED), loading=RENAMED, prompt_lengths=(5, 20))


QWEN_VISION = dict(depth=1, hidden_size=8, num_heads=2, patch_size=2, spatial_merge_size=1, temporal_patch_size=1)


# Qwen 2 VL: settings of the language model beside those of the whole.
@fixture("qwen2_vl/base")
def qwen2_vl():
    config = transformers.Qwen2VLConfig(
        text_config=TINY, vision_config=QWEN_VISION | dict(embed_dim=8, hidden_size=32, mlp_ratio=1), tie_word_embeddings=True,
    )

    def respell(config):
        text = v4(("layer_types", "model_type", "dtype"))(config.pop("text_config"))
        return v4((), **text | dict(
            rope_theta=1000000.0, rope_scaling={"type": "mrope", "mrope_section": [2, 1, 1]}, sliding_window=32768,
            use_sliding_window=False, max_window_layers=80, torch_dtype="bfloat16",
        ))(config)

    return Fixture(config, respell, make_model=transformers.Qwen2VLForConditionalGeneration)


# Qwen 2.5 VL as transformers saves it: settings and tensors of the language model in their own place.
@fixture("qwen2_5_vl/base")
def qwen2_5_vl():
    config = transformers.Qwen2_5_VLConfig(
        text_config=TINY | dict(rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 1, 1]}),
        vision_config=QWEN_VISION | dict(intermediate_size=8, out_hidden_size=32, window_size=4, fullatt_block_indexes=[0]),
    )
    return Fixture(
        config, make_model=transformers.Qwen2_5_VLForConditionalGeneration, rearrange=renamed(*NESTED), loading=RENAMED,
    )


DEEPSTACK = QWEN_VISION | dict(
    intermediate_size=8, out_hidden_size=32, num_position_embeddings=4, deepstack_visual_indexes=[0],
)
QWEN3_MROPE = {"rope_type": "default", "mrope_section": [2, 2, 2], "mrope_interleaved": True}


@fixture("qwen3_vl/base")
def qwen3_vl():
    config = transformers.Qwen3VLConfig(
        text_config=TINY | dict(head_dim=12, rope_parameters=QWEN3_MROPE | {"rope_theta": 5000000.0}),
        vision_config=DEEPSTACK, tie_word_embeddings=True,
    )
    respell = v4_text(
        "pad_token_id", rope_theta=5000000, tie_word_embeddings=True, rope_scaling=QWEN3_MROPE, outside=dict(tie_word_embeddings=True),
    )
    return Fixture(config, respell, make_model=transformers.Qwen3VLForConditionalGeneration)


def turned_experts(tensors):
    return {name: tensor.transpose(1, 2) if ".experts." in name else tensor for name, tensor in tensors.items()}


# As transformers saves it: stacks of experts, each as it is used.
@fixture("qwen3_vl_moe/saved")
def qwen3_vl_moe_saved():
    return qwen3_vl_moe()


# Qwen 3 VL 30B-A3B: stacks of experts that are turned.
@fixture("qwen3_vl_moe/base")
def qwen3_vl_moe_base():
    return qwen3_vl_moe(rearrange=turned_experts, loading=RENAMED)


def qwen3_vl_moe(**options):
    config = transformers.Qwen3VLMoeConfig(
        text_config=MOE | dict(
            head_dim=12, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=12, mlp_only_layers=[],
            rope_parameters=QWEN3_MROPE | {"rope_theta": 5000000.0}, tie_word_embeddings=False,
        ),
        vision_config=DEEPSTACK, tie_word_embeddings=False,
    )
    respell = v4_text(
        "pad_token_id", rope_theta=5000000, rope_scaling=QWEN3_MROPE, norm_topk_prob=True, decoder_sparse_step=1,
    )
    return Fixture(config, respell, make_model=transformers.Qwen3VLMoeForConditionalGeneration, **options)


GLM_VISION = dict(
    depth=1, hidden_size=8, intermediate_size=8, num_heads=2, image_size=4, patch_size=2, spatial_merge_size=1,
    temporal_patch_size=1, out_hidden_size=32,
)
GLM_TEXT = dict(rope_parameters={
    "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0],
})


def glm_v4(config):
    return v4_text(
        rope_theta=10000.0, partial_rotary_factor=0.5, rope_scaling={"type": "default", "mrope_section": [1, 1, 0]},
    )(config)


# GLM-4.1V 9B.
@fixture("glm4v/base")
def glm4v():
    config = transformers.Glm4vConfig(text_config=TINY | GLM_TEXT, vision_config=GLM_VISION)
    return Fixture(config, glm_v4, make_model=transformers.Glm4vForConditionalGeneration)


@fixture("glm46v/base")
def glm46v():
    config = transformers.Glm46VConfig(
        text_config=TINY | GLM_TEXT | dict(model_type="glm4v_text"), vision_config=GLM_VISION | dict(model_type="glm4v_vision"),
    )
    return Fixture(config, make_model=transformers.Glm46VForConditionalGeneration)


# GLM-4.5V and 4.6V.
@fixture("glm4v_moe/base")
def glm4v_moe():
    config = transformers.Glm4vMoeConfig(
        text_config=MOE | GLM_TEXT | dict(
            n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, first_k_dense_replace=1,
            routed_scaling_factor=1.5, attention_bias=True,
        ),
        vision_config=GLM_VISION,
    )
    return Fixture(config, glm_v4, make_model=transformers.Glm4vMoeForConditionalGeneration)


# Kimi K2.5 and 2.6.
@fixture("kimi_k25/base")
def kimi_k25():
    text = transformers.DeepseekV3Config(
        **DEEPSEEK, q_lora_rank=12, n_routed_experts=12, num_experts_per_tok=4, moe_intermediate_size=8, n_shared_experts=1,
        first_k_dense_replace=1, n_group=1, topk_group=1, routed_scaling_factor=2.827, norm_topk_prob=True,
        rope_parameters=YARN | {"rope_type": "yarn", "factor": 64.0, "rope_theta": 50000.0},
    )
    config = transformers.Kimi_K25Config(
        text_config=text, tie_word_embeddings=False, projection_hidden_size=8,
        vision_config=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, patch_size=2, pos_emb_height=2,
            pos_emb_width=2, pos_emb_time=1, merge_kernel_size=[1, 1],
        ),
    )
    respell = v4_text(
        "head_dim", "qk_head_dim", "num_mtp_layers", "rope_interleave", model_type="kimi_k2", rope_theta=50000.0, moe_layer_freq=1,
        ep_size=1, seq_aux=True, aux_loss_alpha=0.001, scoring_func="sigmoid", topk_method="noaux_tc",
        rope_scaling=YARN | dict(factor=64.0),
    )
    # transformers itself saves the layers under names that it does not read.
    return Fixture(
        config, respell, make_model=transformers.Kimi_K25ForConditionalGeneration, prompt_lengths=(5, 20),
        rearrange=renamed((r"^language_model\.model\.blocks\.", "language_model.model.layers.")), loading=RENAMED,
    )


CLIP = dict(
    model_type="clip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8,
    patch_size=4, projection_dim=8,
)
SIGLIP = dict(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
)


# LLaVA 1.5: Llama.
@fixture("llava/base")
def llava():
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TINY), vision_config=CLIP, image_token_index=90, vision_feature_layer=-1,
    )
    return Fixture(
        config, v4_text(), make_model=transformers.LlavaForConditionalGeneration, rearrange=renamed(*WRAPPED), loading=RENAMED,
    )


# LLaVA 1.6: Mistral.
@fixture("llava_next/base")
def llava_next():
    config = transformers.LlavaNextConfig(
        text_config=transformers.MistralConfig(**TINY, sliding_window=None), vision_config=CLIP, image_token_index=90,
        vision_feature_layer=-1,
    )
    return Fixture(config, make_model=transformers.LlavaNextForConditionalGeneration)


# LLaVA-OneVision: Qwen 2.
@fixture("llava_onevision/base")
def llava_onevision():
    config = transformers.LlavaOnevisionConfig(
        text_config=transformers.Qwen2Config(**TINY, tie_word_embeddings=True), image_token_index=90, tie_word_embeddings=True,
        vision_config=SIGLIP | dict(model_type="siglip_vision_model", vision_use_head=False),
    )
    return Fixture(config, make_model=transformers.LlavaOnevisionForConditionalGeneration)


# InternVL 3.5: Qwen 3.
@fixture("internvl/base")
def internvl():
    config = transformers.InternVLConfig(
        text_config=transformers.Qwen3Config(**TINY, head_dim=12), image_token_id=90, tie_word_embeddings=False,
        vision_config=SIGLIP | dict(image_size=[8, 8], patch_size=[4, 4]), downsample_ratio=0.5,
    )
    return Fixture(config, make_model=transformers.InternVLForConditionalGeneration)


# InternVL 3 as it was released: settings of the language model under another key, a projector of another name.
@fixture("internvl_chat/base")
def internvl_chat():
    config = transformers.InternVLConfig(
        text_config=transformers.Qwen2Config(**TINY), image_token_id=90, tie_word_embeddings=False,
        vision_config=SIGLIP | dict(image_size=[8, 8], patch_size=[4, 4]), downsample_ratio=0.5,
    )

    def respell(config):
        text = v4(("layer_types",), rope_theta=10000.0, use_sliding_window=False, max_window_layers=70, sliding_window=None)
        return dict(
            model_type="internvl_chat", architectures=["InternVLChatModel"], llm_config=text(config["text_config"]),
            vision_config={"model_type": "intern_vit_6b"}, downsample_ratio=0.5, force_image_size=448, ps_version="v2",
            select_layer=-1, template="internvl2_5", use_backbone_lora=0, use_llm_lora=0, torch_dtype="bfloat16",
            tie_word_embeddings=False,
        )

    names = ((r"^multi_modal_projector\.linear_", "mlp1."), (r"^multi_modal_projector\.layer_norm", "mlp1.0"), (r"^vision_tower\.", "vision_model."))
    return Fixture(config, respell, make_model=transformers.InternVLForConditionalGeneration, rearrange=renamed(*WRAPPED, *names))


@fixture("smolvlm/base")
def smolvlm():
    config = transformers.SmolVLMConfig(
        text_config=transformers.LlamaConfig(**TINY), vision_config=SIGLIP, image_token_id=90, scale_factor=1,
        tie_word_embeddings=False,
    )
    return Fixture(config, make_model=transformers.SmolVLMForConditionalGeneration)


@fixture("idefics3/base")
def idefics3():
    config = transformers.Idefics3Config(
        text_config=transformers.LlamaConfig(**TINY), vision_config=SIGLIP, image_token_id=90, scale_factor=1,
        tie_word_embeddings=False,
    )
    return Fixture(config, make_model=transformers.Idefics3ForConditionalGeneration)


# Llama 3.2 11B Vision: layers of its own for images between the others.
@fixture("mllama/base")
def mllama():
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    text = TINY | dict(num_hidden_layers=4, cross_attention_layers=[1, 3], pad_token_id=0, rope_parameters=scaling | {"rope_theta": 500000.0})
    config = transformers.MllamaConfig(
        text_config=text, image_token_index=96,
        vision_config=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_global_layers=1, attention_heads=2, image_size=8, patch_size=4,
            max_num_tiles=1, supported_aspect_ratios=[[1, 1]], intermediate_layers_indices=[0], vision_output_dim=16,
        ),
    )
    return Fixture(
        config, v4_text(rope_theta=500000.0, rope_scaling=scaling), make_model=transformers.MllamaForConditionalGeneration,
    )


if __name__ == "__main__":
    main()
