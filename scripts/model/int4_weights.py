"""Experts' weights of fixtures in 4-bit integers, packed by compressed-tensors: as Kimi K2 Thinking is released."""

import torch
from compressed_tensors.compressors.pack_quantized import pack_to_int32

GROUP = 32
QUANTIZATION = {
    "config_groups": {
        "group_0": {
            "input_activations": None,
            "output_activations": None,
            "targets": ["Linear"],
            "weights": {
                "actorder": None, "block_structure": None, "dynamic": False, "group_size": GROUP, "num_bits": 4, "observer": "minmax",
                "observer_kwargs": {}, "strategy": "group", "symmetric": True, "type": "int",
            },
        }
    },
    "format": "pack-quantized",
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
    "kv_cache_scheme": None,
    "quant_method": "compressed-tensors",
    "quantization_status": "compressed",
}


def codes_and_scale(weight):
    """Powers of two as scales, so that the reference's bfloat16 has the exact values. What they give has the same codes again."""
    groups = weight.float().reshape(*weight.shape[:-1], -1, GROUP)
    scale = 2.0 ** torch.ceil(torch.log2(groups.abs().amax(-1, keepdim=True) / 7))
    return (groups / scale).round().clamp(-8, 7), scale


@torch.no_grad()
def round_to_int4(model):
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            codes, scale = codes_and_scale(parameter)
            parameter.copy_((codes * scale).reshape(parameter.shape))


def as_int4(tensors):
    result = {}
    for name, tensor in tensors.items():
        if ".experts." not in name:
            result[name] = tensor
            continue
        codes, scale = codes_and_scale(tensor)
        assert torch.equal((codes * scale).reshape(tensor.shape), tensor.float())
        result |= {
            f"{name}_packed": pack_to_int32(codes.reshape(tensor.shape).to(torch.int8), 4),
            f"{name}_scale": scale.squeeze(-1).to(torch.bfloat16),
            f"{name}_shape": torch.tensor(tensor.shape, dtype=torch.int32),
        }
    return result
