#!/usr/bin/env python3
"""Add checkpoints of NVIDIA's ModelOpt to tests/fixtures/encodings/: quantized and dequantized by its own tensor classes, laid out as its
unified_export_hf.py does.

ModelOpt imports much that its tensors do not need; it and what it misses can be installed without their dependencies:

    pip install --no-deps nvidia-modelopt==0.47.0 omegaconf antlr4-python3-runtime==4.9.3 pulp nvidia-ml-py rich pydantic pydantic_core
"""

import argparse
import json
import shutil

import modelopt
import torch
from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
from modelopt.torch.export.quant_utils import from_quantized_weight, to_quantized_weight
from modelopt.torch.quantization.qtensor import FP8QTensor, MXFP4QTensor, MXFP8QTensor, NVFP4QTensor
from safetensors.torch import save_file

from make_encoding_fixtures import OUT, encode, sha256, tensor_json, versions, write_json

FP8 = torch.float8_e4m3fn


def exact(codes, scale, library):
    """The library's values with the signs of zeros that its table of e2m1 leaves out."""
    values = codes.float() * scale
    assert torch.equal(values, library), "ModelOpt disagrees"
    return values


def fp8(weight):
    scale = weight.float().abs().amax() / 448
    codes = to_quantized_weight(weight.float(), scale, "fp8")
    return {"weight": codes, "weight_scale": scale}, from_quantized_weight(codes, scale, "fp8", torch.float32)


def fp8_channel(weight):
    scale = weight.float().abs().amax(1) / 448
    codes = to_quantized_weight(weight.float(), scale, "fp8_pc_pt")
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale[:, None]


def fp8_blocks(weight):
    rows, cols = weight.shape
    blocks = (rows + 127) // 128, (cols + 127) // 128
    padded = torch.zeros(blocks[0] * 128, blocks[1] * 128)
    padded[:rows, :cols] = weight.float()
    scale = padded.reshape(blocks[0], 128, blocks[1], 128).abs().amax((1, 3)) / 448
    tensor, _ = FP8QTensor.quantize(weight.float(), scale, block_sizes={-1: 128, -2: 128})
    values = tensor.dequantize(torch.float32, scale=scale, block_sizes={-1: 128, -2: 128})
    # Padding is not stored, and scales are [blocks, 1, blocks, 1].
    return {"weight": tensor._quantized_data[:rows, :cols], "weight_scale": scale[:, None, :, None]}, values


E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def e2m1(packed):
    return torch.stack([E2M1[(packed & 15).long()], E2M1[(packed >> 4).long()]], -1).flatten(-2)


def nvfp4(weight):
    weight = weight.float()
    second = NVFP4QTensor.get_weights_scaling_factor_2(weight)
    tensor, scale, second = NVFP4QTensor.quantize(weight, 16, weights_scaling_factor_2=second)
    library = tensor.dequantize(torch.float32, scale=scale, double_scale=second, block_sizes={-1: 16})
    values = exact(e2m1(tensor._quantized_data), (scale.float() * second).repeat_interleave(16, -1), library)
    return {"weight": tensor._quantized_data, "weight_scale": scale, "weight_scale_2": second}, values


def mxfp4(weight):
    tensor, scale = MXFP4QTensor.quantize(weight.float(), 32)
    library = tensor.dequantize(torch.float32, scale=scale, block_sizes={-1: 32})
    scale = scale.reshape(weight.shape[0], -1)
    values = exact(e2m1(tensor._quantized_data), torch.exp2(scale.float() - 127).repeat_interleave(32, -1), library)
    return {"weight": tensor._quantized_data, "weight_scale": scale}, values


def mxfp8(weight):
    tensor, scale = MXFP8QTensor.quantize(weight.float())
    return {"weight": tensor._quantized_data, "weight_scale": scale}, tensor.dequantize(torch.float32, scale=scale)


def encoder(algorithm):
    """An encoder of weights; `algorithm(name)` returns how that one is quantized, or None."""

    def encode_tensor(name, weight):
        quantize = algorithm(name)
        if quantize is None:
            return {name: weight}, weight.float()
        tensors, values = quantize(weight)
        module = name.removesuffix(".weight")
        result = {f"{module}.{key}": value.contiguous() for key, value in tensors.items()} | {f"{module}.input_scale": torch.tensor(0.25)}
        # Of a KV cache of FP8.
        for kind in "kv":
            if name.endswith(f"{kind}_proj.weight"):
                result[f"{module}.{kind}_scale"] = torch.tensor(1.0)
        return result, values

    return encode_tensor


def hf_config(algorithm, **settings):
    return {
        "producer": {"name": "modelopt", "version": "0.47.0"},
        "quantization": {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]} | settings,
    }


def make_matrices():
    for name, seed, config, quantize in (
        ("modelopt_fp8", 50, hf_config("FP8"), fp8),
        ("modelopt_fp8_channel", 51, hf_config("FP8_PER_CHANNEL_PER_TOKEN"), fp8_channel),
        ("modelopt_fp8_blocks", 52, hf_config("FP8_PB_WO"), fp8_blocks),
        ("modelopt_nvfp4", 53, hf_config("NVFP4", group_size=16), nvfp4),
        ("modelopt_mxfp4", 54, hf_config("W4A8_MXFP4_FP8", group_size=32), mxfp4),
        ("modelopt_mxfp8", 55, hf_config("MXFP8", group_size=32), mxfp8),
    ):
        encode(name, seed, convert_hf_quant_config_format(config), encoder(lambda name: quantize), made_with=[modelopt])


def make_mixed():
    """Algorithms by layer, as nvidia's releases with FP8 attention have them, and said in hf_quant_config.json alone."""

    def algorithm(name):
        return nvfp4 if ".mlp." in name else fp8 if "o_proj" not in name else None

    names = [f"model.layers.{i}.{kind}" for i in (0, 1) for kind in (*(f"self_attn.{x}_proj" for x in "qkv"), *(f"mlp.{x}_proj" for x in ("gate", "up", "down")))]
    layers = {name: {"quant_algo": "NVFP4", "group_size": 16} if ".mlp." in name else {"quant_algo": "FP8"} for name in names}
    config = hf_config("MIXED_PRECISION", quantized_layers=layers)
    encode("modelopt_mixed", 56, convert_hf_quant_config_format(config), encoder(algorithm), made_with=[modelopt])
    directory = OUT / "modelopt_mixed"
    path = directory / "config.json"
    plain = json.loads(path.read_text())
    del plain["quantization_config"]
    path.write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")
    write_json(directory / "hf_quant_config.json", config)
    (directory / "hf_quant_config.json").chmod(0o644)


def make_experts():
    """Llama 4's stacks, quantized along the columns and stored turned."""
    for kind, quantize in (("fp8", None), ("nvfp4", nvfp4)):
        directory = OUT / f"modelopt_{kind}_experts"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        generator = torch.Generator().manual_seed(57)
        tensors, values = {}, {}
        for name, (rows, cols) in {"gate_up_proj": (48, 32), "down_proj": (32, 16)}.items():
            weight = torch.randn(3, rows, cols, generator=generator)
            name = f"model.layers.0.feed_forward.experts.{name}"
            if kind == "fp8":
                scale = weight.abs().amax() / 448
                stored = to_quantized_weight(weight.transpose(1, 2), scale.reshape(1), "fp8")
                parts = {"": stored, "_weight_scale": scale}
                values[name] = from_quantized_weight(stored, scale, "fp8", torch.float32).transpose(1, 2).contiguous()
            else:
                encoded, values[name] = nvfp4(weight)
                parts = {
                    "": encoded["weight"].transpose(1, 2), "_weight_scale": encoded["weight_scale"].transpose(1, 2),
                    "_weight_scale_2": encoded["weight_scale_2"],
                }
            tensors |= {f"{name}{key}": value.contiguous() for key, value in parts.items()} | {f"{name}_input_scale": torch.tensor(0.5)}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        write_json(directory / "config.json", {"model_type": "llama4_text", "quantization_config": convert_hf_quant_config_format(hf_config(kind.upper()))})
        shapes = {name: {"shape": list(value.shape), "sha256": sha256(value), "values": tensor_json(value)} for name, value in values.items()}
        write_json(directory / "expected.json", {"made_with": versions(modelopt, torch), "tensors": shapes})
        for file in directory.iterdir():
            file.chmod(0o644)


MAKERS = {"matrices": make_matrices, "mixed": make_mixed, "experts": make_experts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *MAKERS], help="what to write; default all")
    for chosen in parser.parse_args().names or MAKERS:
        MAKERS[chosen]()
