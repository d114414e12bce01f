"""Weights of fixtures in FP8 in blocks, as DeepSeek and Qwen release them."""

import torch

FP8_SCALE = 2.0**-7
# What releases keep in 16 bits.
KEPT = ("embed", "lm_head", "mlp.gate.", "block_sparse_moe.gate.", "shared_expert_gate", "conv1d", "in_proj_ba")
QUANTIZATION = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}


def is_fp8(name, tensor):
    return tensor.dim() >= 2 and not any(part in name for part in KEPT)


@torch.no_grad()
def round_to_fp8(model):
    """Weights that are multiples of one power of two and FP8, so that the reference's bfloat16 has their exact values."""
    for name, parameter in model.named_parameters():
        if is_fp8(name, parameter):
            parameter.copy_((parameter / FP8_SCALE).clamp(-448, 448).to(torch.float8_e4m3fn).float() * FP8_SCALE)


def as_fp8(tensors):
    """Of matrices of at most one block."""
    result = {}
    for name, tensor in tensors.items():
        if is_fp8(name, tensor):
            assert max(tensor.shape) <= 128
            result[name] = (tensor.float() / FP8_SCALE).to(torch.float8_e4m3fn)
            result[name + "_scale_inv"] = torch.full([1, 1], FP8_SCALE)
        else:
            result[name] = tensor
    return result
