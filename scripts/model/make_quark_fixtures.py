#!/usr/bin/env python3
"""Add checkpoints of AMD's Quark to tests/fixtures/encodings/, packed and unpacked by its own quark/torch/utils/pack.py, which is loaded without the
rest of the package, as that compiles kernels:

    pip install --no-deps amd-quark==0.13
"""

import argparse
import importlib.util
import pathlib
import sys
import unittest.mock

import torch

from make_encoding_fixtures import encode


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROOT = pathlib.Path(importlib.util.find_spec("quark").submodule_search_locations[0])
for stub in ("quark", "quark.torch", "quark.torch.utils", *(f"quark.torch.quantization{rest}" for rest in ("", ".config", ".config.type", ".constants", ".utils"))):
    sys.modules[stub] = unittest.mock.MagicMock()
numerics = load("quark.torch.utils.numerics", ROOT / "torch/utils/numerics.py")
pack = load("quark.torch.utils.pack", ROOT / "torch/utils/pack.py")

WEIGHT = {"is_dynamic": False, "symmetric": True, "round_method": "half_even", "scale_type": "float", "observer_cls": "PerTensorMinMaxObserver"}


def config_of(weight):
    settings = {"bias": None, "input_tensors": None, "output_tensors": None, "target_device": None, "weight": WEIGHT | weight}
    export = {"kv_cache_group": ["*k_proj", "*v_proj"], "min_kv_scale": 1.0, "pack_method": "reorder", "weight_format": "real_quantized", "weight_merge_groups": None}
    return {
        "quant_method": "quark", "quant_mode": "eager_mode", "exclude": ["lm_head"], "export": export, "global_quant_config": settings,
        "layer_quant_config": {}, "layer_type_quant_config": {}, "algo_config": None, "softmax_quant_spec": None,
    }


def fp8(name, weight):
    scale = weight.float().abs().amax() / 448
    codes = (weight.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    module = name.removesuffix(".weight")
    tensors = {name: codes, f"{module}.weight_scale": scale, f"{module}.input_scale": torch.tensor(0.5)}
    if name.endswith(("k_proj.weight", "v_proj.weight")):
        tensors[f"{module}.output_scale"] = torch.tensor(1.0)
    return tensors, codes.float() * scale


E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def mxfp4(name, weight):
    rows, cols = weight.shape
    groups = weight.float().reshape(rows, -1, 32)
    scale = 2.0 ** (torch.floor(torch.log2(groups.abs().amax(-1))) - 2)
    scaled = groups / scale[..., None]
    rounded = E2M1[(scaled.abs()[..., None] - E2M1).abs().argmin(-1)] * torch.sign(scaled)
    packer = pack.Pack_fp4("per_group", "fp4")
    codes, exponents = packer.pack(rounded.reshape(rows, cols), False), numerics.to_e8m0_uint8(scale)
    values = packer.unpack(codes, False).reshape(rows, -1, 32) * 2.0 ** (exponents.to(torch.int16) - 127).float()[..., None]
    assert torch.equal(values, rounded * scale[..., None])
    return {name: codes, name + "_scale": exponents}, values.reshape(rows, cols)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    encode("quark_fp8", 95, config_of({"dtype": "fp8_e4m3", "qscheme": "per_tensor", "group_size": None, "scale_format": None}), fp8)
    encode("quark_mxfp4", 96, config_of({"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}), mxfp4)
