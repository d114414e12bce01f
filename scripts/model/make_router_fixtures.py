"""Writes tests/fixtures/routers.json: what the routers of transformers choose for random logits.

Each router's weight is the identity, so that its input is its logits. Run: python scripts/model/make_router_fixtures.py
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    Ernie4_5_MoeConfig,
    Glm4MoeConfig,
    GptOssConfig,
    GraniteMoeConfig,
    Llama4TextConfig,
    Mistral4Config,
    MixtralConfig,
    PhimoeConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.ernie4_5_moe.modeling_ernie4_5_moe import Ernie4_5_MoeTopKRouter
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeTopkRouter
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssTopKRouter
from transformers.models.granitemoe.modeling_granitemoe import GraniteMoeTopKRouter
from transformers.models.llama4.modeling_llama4 import Llama4Router
from transformers.models.mistral4.modeling_mistral4 import Mistral4TopkRouter
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter
from transformers.models.phimoe.modeling_phimoe import PhimoeTopKRouter
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

OUT = Path(__file__).resolve().parents[2] / "tests/fixtures/routers.json"
EXPERTS = 16
TOKENS = 24

GROUPS = {"n_group": 4, "topk_group": 2}
SIZES = {"hidden_size": EXPERTS, "num_experts_per_tok": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
ROUTERS = {
    "mixtral": (MixtralTopKRouter, MixtralConfig(**SIZES, num_local_experts=EXPERTS)),
    "qwen2_moe": (Qwen2MoeTopKRouter, Qwen2MoeConfig(**SIZES, num_experts=EXPERTS, norm_topk_prob=False)),
    "qwen3_moe": (Qwen3MoeTopKRouter, Qwen3MoeConfig(**SIZES, num_experts=EXPERTS, norm_topk_prob=True)),
    "granitemoe": (GraniteMoeTopKRouter, GraniteMoeConfig(**SIZES, num_local_experts=EXPERTS)),
    "gpt_oss": (GptOssTopKRouter, GptOssConfig(**SIZES, num_local_experts=EXPERTS)),
    "deepseek_v2_greedy": (
        DeepseekV2TopkRouter,
        DeepseekV2Config(**SIZES, n_routed_experts=EXPERTS, topk_method="greedy", routed_scaling_factor=1.0),
    ),
    "deepseek_v2_groups": (
        DeepseekV2TopkRouter,
        DeepseekV2Config(
            **SIZES, **GROUPS, n_routed_experts=EXPERTS, topk_method="group_limited_greedy", routed_scaling_factor=16.0
        ),
    ),
    "deepseek_v3": (
        DeepseekV3TopkRouter,
        DeepseekV3Config(**SIZES, **GROUPS, n_routed_experts=EXPERTS, norm_topk_prob=True, routed_scaling_factor=2.5),
    ),
    "glm4_moe": (
        Glm4MoeTopkRouter,
        Glm4MoeConfig(
            **SIZES, n_group=1, topk_group=1, n_routed_experts=EXPERTS, norm_topk_prob=True, routed_scaling_factor=1.5
        ),
    ),
    "llama4": (Llama4Router, Llama4TextConfig(**{**SIZES, "num_experts_per_tok": 1}, num_local_experts=EXPERTS)),
    # Of some tokens the chosen have less than the least sum.
    "ernie4_5_moe": (
        Ernie4_5_MoeTopKRouter,
        Ernie4_5_MoeConfig(
            hidden_size=EXPERTS, num_attention_heads=4, num_key_value_heads=4, moe_k=4, moe_num_experts=EXPERTS, moe_norm_min=0.7
        ),
    ),
    # Noise so wide that several experts are nearly as good as the best.
    "phimoe": (
        PhimoeTopKRouter,
        PhimoeConfig(**{**SIZES, "num_experts_per_tok": 2}, num_local_experts=EXPERTS, router_jitter_noise=0.25),
    ),
    "mistral4": (
        Mistral4TopkRouter,
        Mistral4Config(**SIZES, **GROUPS, n_routed_experts=EXPERTS, norm_topk_prob=True, routed_scaling_factor=1.5),
    ),
}


def main() -> None:
    cases = {}
    for number, (name, (router_class, config)) in enumerate(ROUTERS.items()):
        torch.manual_seed(number)
        router = router_class(config).eval()
        with torch.no_grad():
            weights = dict(router.named_parameters())
            weights["weight"].copy_(torch.eye(EXPERTS))
            if "bias" in weights:
                weights["bias"].zero_()
        logits = torch.randn(TOKENS, EXPERTS) * 2
        correction = None
        if hasattr(router, "e_score_correction_bias"):
            correction = torch.randn(EXPERTS) * 0.3
            router.e_score_correction_bias.copy_(correction)
        if hasattr(router, "moe_statics"):
            correction = torch.randn(EXPERTS) * 0.03
            with torch.no_grad():
                router.moe_statics.e_score_correction_bias.copy_(correction)
        with torch.no_grad():
            outputs = router(logits)
        if name == "llama4":
            scores = outputs[0]
            experts = scores.argmax(dim=-1, keepdim=True)
            weights = scores.gather(1, experts)
        else:
            _, weights, experts = outputs
        order = experts.argsort(dim=-1)
        cases[name] = {
            "logits": logits.flatten().tolist(),
            "correction": None if correction is None else correction.tolist(),
            "experts": experts.gather(1, order).tolist(),
            "weights": weights.gather(1, order).tolist(),
        }
    text = json.dumps({"transformers": transformers.__version__, "numExperts": EXPERTS, "cases": cases})
    OUT.write_text(text + "\n")


if __name__ == "__main__":
    main()
