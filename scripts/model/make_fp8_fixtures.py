#!/usr/bin/env python3
"""Add checkpoints of 8-bit floats to tests/fixtures/encodings/: FBGEMM's, and the variants of transformers' `fp8` and `mxfp8`.

FBGEMM multiplies on GPUs alone; its values are those of torch._scaled_mm, with which transformers multiplies by the same weights elsewhere.
"""

import argparse
import shutil

import torch
import transformers
from safetensors.torch import save_file

from make_encoding_fixtures import OUT, encode, sha256, tensor_json, versions, write_json

FP8 = torch.float8_e4m3fn


def quantize_rows(weight, bound=1200.0):
    """FBGEMM's quantize_fp8_per_row: the largest magnitude of a row becomes 448."""
    scale = (weight.float().abs().amax(-1).clamp(max=bound) / 448).clamp(min=1e-12)
    return (weight.float() / scale.unsqueeze(-1)).clamp(-448, 448).to(FP8), scale


def scaled_values(codes, scale):
    """What a product with the identity gives: e4m3 has its elements exactly."""
    rows, cols = codes.shape
    products = torch.stack([
        torch._scaled_mm(
            torch.eye(cols).to(FP8), codes[row : row + 1].expand(16, -1).contiguous().t(), scale_a=torch.ones([]), scale_b=scale[row].clone(),
            out_dtype=torch.float32,
        )[:, 0]
        for row in range(rows)
    ])
    # Sums have lost the sign of zeros.
    values = codes.float() * scale.reshape(-1, 1)
    assert torch.equal(values, products)
    return values


def make_fbgemm():
    skipped = ["model.layers.0.self_attn", "model.layers.1.self_attn", "lm_head"]

    def encode_tensor(name, weight):
        if any(name.startswith(f"{module}.") for module in skipped):
            return {name: weight}, weight.float()
        codes, scale = quantize_rows(weight)
        return {name: codes, f"{name}_scale": scale.reshape(-1, 1)}, scaled_values(codes, scale)

    config = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": skipped}
    encode("fbgemm_fp8", 40, config, encode_tensor)


def make_fbgemm_experts():
    """Stacks as transformers' FbgemmFp8Llama4TextExperts has them."""
    directory = OUT / "fbgemm_fp8_experts"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(41)
    tensors, values = {}, {}
    for name, (rows, cols) in {"gate_up_proj": (48, 32), "down_proj": (32, 24)}.items():
        codes, scale = quantize_rows(torch.randn(3, rows, cols, generator=generator))
        name = f"model.layers.0.feed_forward.experts.{name}"
        shape = (3, 1, rows) if "gate_up" in name else (3, rows, 1)
        tensors |= {name: codes.transpose(1, 2).contiguous(), f"{name}_scale": scale.reshape(shape)}
        # Both products that FbgemmFp8Llama4TextExperts makes turn the matrices back first.
        values[name] = torch.stack([scaled_values(matrix, one) for matrix, one in zip(codes, scale)])
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_json(directory / "config.json", {"model_type": "none", "quantization_config": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}})
    shapes = {name: {"shape": list(value.shape), "sha256": sha256(value), "values": tensor_json(value)} for name, value in values.items()}
    write_json(directory / "expected.json", {"made_with": versions(transformers, torch), "tensors": shapes})
    for file in directory.iterdir():
        file.chmod(0o644)


def make_variants():
    """Of transformers' `fp8`: a scale for all, with a static one of activations; powers of two for small blocks; MXFP8; and what AutoFP8 wrote."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    def variant(block, store):
        def encode_tensor(name, weight):
            rows, cols = weight.shape
            height, width = block or (rows, cols)
            blocks = weight.float().reshape(rows // height, height, cols // width, width)
            scale = store(blocks.abs().amax((1, 3)) / 448)
            spread = exponents(scale)[:, None, :, None]
            codes = (blocks / spread).clamp(-448, 448).to(FP8).reshape(rows, cols)
            scale = scale.reshape([]) if block is None else scale
            values = Fp8Dequantize.__new__(Fp8Dequantize)._dequantize_one(codes, scale, output_dtype=torch.float32)
            tensors = {name: codes, f"{name}_scale_inv": scale}
            if block is None:
                tensors[name.replace(".weight", ".activation_scale")] = torch.tensor(0.5)
            return tensors, values

        return encode_tensor

    def exponents(scale):
        return scale.float() if scale.dtype != torch.uint8 else torch.exp2(scale.float() - 127)

    plain = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    powers = lambda scale: 2.0 ** torch.ceil(torch.log2(scale))
    encode("fp8_tensor", 90, {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}, variant(None, lambda scale: scale))
    encode("fp8_powers", 91, plain | {"fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [32, 32]},
           variant((32, 32), lambda scale: powers(scale).to(torch.float8_e8m0fnu)))
    encode("mxfp8", 92, plain | {"quant_method": "mxfp8", "weight_block_size": [1, 32]},
           variant((1, 32), lambda scale: (torch.log2(powers(scale)) + 127).to(torch.uint8)))

    def auto_fp8(name, weight):
        scale = weight.float().abs().amax() / 448
        codes = (weight.float() / scale).clamp(-448, 448).to(FP8)
        module = name.removesuffix(".weight")
        values = Fp8Dequantize.__new__(Fp8Dequantize)._dequantize_one(codes, scale.reshape([]), output_dtype=torch.float32)
        return {name: codes, f"{module}.weight_scale": scale.reshape(1), f"{module}.input_scale": torch.tensor([0.5])}, values

    encode("auto_fp8", 93, {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}, auto_fp8)


MAKERS = {"fbgemm": make_fbgemm, "fbgemm_experts": make_fbgemm_experts, "variants": make_variants}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *MAKERS], help="what to write; default all")
    for chosen in parser.parse_args().names or MAKERS:
        MAKERS[chosen]()
