#!/usr/bin/env python3
"""Add the checkpoints of GPTQ and AWQ to tests/fixtures/encodings/: packed by AutoGPTQ, AutoAWQ and GPTQModel, with the values that GPTQModel, by
which transformers loads both, dequantizes them to. Where another of them wrote a checkpoint, its own dequantization must give the same.

AutoGPTQ and AutoAWQ need versions of everything that are long gone, so of them only the modules that hold a layer are imported; no package brings
along what it depends on:

    pip install --no-deps -r scripts/model/requirements-gptq-awq.txt
"""

import argparse
import importlib
import importlib.util
import json
import re
import sys
import types

import torch

from make_encoding_fixtures import OUT, encode, write_json


def module_of(package, name):
    """Imports a module of a package without what the package itself imports."""
    if package not in sys.modules:
        parent = types.ModuleType(package)
        parent.__path__ = list(importlib.util.find_spec(package).submodule_search_locations)
        sys.modules[package] = parent
    return importlib.import_module(f"{package}.{name}")


def quantized(weight, groups, bits, symmetric):
    """AutoGPTQ's scale and zero point of each row's groups, [rows, groups] both, and the weights rounded to what they can express."""
    library = module_of("auto_gptq", "quantization.quantizer")
    quantizer = library.Quantizer()
    quantizer.configure(bits, perchannel=True, sym=symmetric)
    scales, zeros = [], []
    for group in range(int(groups.max()) + 1):
        quantizer.find_params(weight[:, groups == group], weight=True)
        scales.append(quantizer.scale)
        zeros.append(quantizer.zero)
    # What is stored, not what was found.
    scales, zeros = torch.cat(scales, 1).half().float(), torch.cat(zeros, 1)
    return scales, zeros, library.quantize(weight, scales[:, groups], zeros[:, groups], quantizer.maxq)


def linear_of(weight):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight
    return linear


def groups_of(cols, group, act_order):
    groups = torch.arange(cols, dtype=torch.int32) // (group if group > 0 else cols)
    return groups[torch.randperm(cols, generator=torch.Generator().manual_seed(cols))] if act_order else groups


# --- GPTQ ---------------------------------------------------------------------------------------------------


def gptqmodel_layer(bits, group, symmetric, act_order, rows, cols):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    return TorchLinear(bits=bits, group_size=group, sym=symmetric, desc_act=act_order, in_features=cols, out_features=rows).eval()


def gptqmodel_values(tensors, checkpoint_format, *settings):
    """What GPTQModel computes with: scales as float32, so that nothing is rounded to float16."""
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    layer = gptqmodel_layer(*settings)
    for name, tensor in tensors.items():
        layer.register_buffer(name, tensor.float() if name == "scales" else tensor.clone())
    if checkpoint_format == "gptq":
        convert_gptq_v1_to_v2_format_module(layer, bits=settings[0], pack_dtype=torch.int32)
    return layer.dequantize_weight().T.contiguous()


def autogptq_values(tensors, bits, group, symmetric, act_order, rows, cols):
    """What AutoGPTQ multiplies with: its product with the identity."""
    layer = module_of("auto_gptq", "nn_modules.qlinear.qlinear_cuda").QuantLinear(bits, group, cols, rows, bias=False)
    for name, tensor in tensors.items():
        layer.register_buffer(name, tensor.float() if name == "scales" else tensor)
    return layer(torch.eye(cols)).T.contiguous()


NAMES = ("qweight", "qzeros", "scales", "g_idx")


def from_autogptq(bits, group, symmetric, act_order):
    """Checkpoints of the first format, which has zero points less one. Every layer has a bias, as AutoGPTQ long wrote it: zeros where there is none."""

    def encode_tensor(name, weight):
        weight, module = weight.float(), name.removesuffix(".weight")
        rows, cols = weight.shape
        groups = groups_of(cols, group, act_order)
        scales, zeros, weight = quantized(weight, groups, bits, symmetric)
        assert zeros.min() >= 1, "a zero point of 0 is not written right"
        layer = module_of("auto_gptq", "nn_modules.qlinear.qlinear_cuda").QuantLinear(bits, group, cols, rows, bias=False)
        layer.pack(linear_of(weight), scales, zeros, groups)
        tensors = {key: getattr(layer, key) for key in NAMES} | {"scales": layer.scales.half()}
        settings = (bits, group, symmetric, act_order, rows, cols)
        values = gptqmodel_values(tensors, "gptq", *settings)
        assert torch.equal(values, autogptq_values(tensors, *settings)), "AutoGPTQ disagrees with GPTQModel"
        assert torch.equal(values, weight), "the values are not those it was packed with"
        return {f"{module}.{key}": value for key, value in tensors.items()} | {f"{module}.bias": torch.zeros(rows).half()}, values

    return encode_tensor


def from_gptqmodel(checkpoint_format, bits, group, symmetric, act_order):
    """Checkpoints of either format. Some rows are positive, so that their zero point is 0; less one it borrows from its neighbours in the word."""
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    def encode_tensor(name, weight):
        weight, module = weight.float(), name.removesuffix(".weight")
        rows, cols = weight.shape
        weight[1::5] = weight[1::5].abs()
        groups = groups_of(cols, group, act_order)
        scales, zeros, weight = quantized(weight, groups, bits, symmetric)
        settings = (bits, group, symmetric, act_order, rows, cols)
        layer = gptqmodel_layer(*settings)
        layer.pack_original(linear_of(weight), scales, zeros, groups)
        if checkpoint_format == "gptq":
            convert_gptq_v2_to_v1_format_module(layer, QuantizeConfig(bits=bits, offload_to_disk=False))
        tensors = {key: getattr(layer, key).clone() for key in NAMES}
        values = gptqmodel_values(tensors, checkpoint_format, *settings)
        assert symmetric or (zeros == 0).any(), "no zero point is 0"
        assert torch.equal(values, weight), "the values are not those it was packed with"
        return {f"{module}.{key}": value for key, value in tensors.items()}, values

    return encode_tensor


def make_gptq():
    def autogptq(name, seed, bits, group, symmetric, act_order):
        config = {
            "quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": act_order, "damp_percent": 0.01,
            "true_sequential": True, "static_groups": False, "model_name_or_path": None, "model_file_base_name": "model",
        }
        encode(name, seed, config, from_autogptq(bits, group, symmetric, act_order), dtype=torch.float16)

    def gptqmodel(name, seed, checkpoint_format, bits, group, symmetric, act_order):
        config = {
            "quant_method": "gptq", "checkpoint_format": checkpoint_format, "format": checkpoint_format, "bits": bits, "group_size": group,
            "sym": symmetric, "desc_act": act_order, "lm_head": False, "pack_dtype": "int32", "meta": {"quantizer": ["gptqmodel:7.7.0"]},
            "dynamic": {"-:.*norm.*": {}},
        }
        encode(name, seed, config, from_gptqmodel(checkpoint_format, bits, group, symmetric, act_order), dtype=torch.float16)

    # 64 and 352 columns: groups of 64 and 128 end before they are full.
    autogptq("gptq_int4", 20, 4, 32, True, False)
    autogptq("gptq_int4_zero", 26, 4, 64, False, False)
    autogptq("gptq_act_order", 21, 4, 32, False, True)
    autogptq("gptq_int8", 27, 8, 128, True, False)
    gptqmodel("gptq_int4_borrow", 28, "gptq", 4, 128, False, True)
    gptqmodel("gptq_int4_v2", 29, "gptq_v2", 4, -1, False, False)
    gptqmodel("gptq_int8_v2", 22, "gptq_v2", 8, -1, False, False)
    gptqmodel("gptq_int8_act_order", 30, "gptq_v2", 8, 64, False, True)
    autogptq("gptq_int2", 60, 2, 32, False, False)
    autogptq("gptq_int3", 61, 3, 32, True, False)
    gptqmodel("gptq_int3_act_order", 62, "gptq", 3, 64, False, True)
    gptqmodel("gptq_int3_v2", 63, "gptq_v2", 3, 128, False, False)


def make_gptq_dynamic():
    """Layers of other bits and groups, as GPTQModel's `dynamic` gives them; the settings in quantize_config.json alone."""
    rules = {"+:.*down_proj": {"bits": 8, "group_size": 64}, r".*\.self_attn\.[kq]_proj": {"bits": 3, "desc_act": True}, "-:.*v_proj": {}}

    def encode_tensor(name, weight):
        if "v_proj" in name:
            return {name: weight}, weight.float()
        bits, group, act_order = (8, 64, False) if "down_proj" in name else (3, 32, True) if re.search("[kq]_proj", name) else (4, 32, False)
        return from_gptqmodel("gptq", bits, group, False, act_order)(name, weight)

    config = {
        "quant_method": "gptq", "checkpoint_format": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": False, "lm_head": False,
        "pack_dtype": "int32", "dynamic": rules,
    }
    encode("gptq_dynamic", 64, config, encode_tensor, dtype=torch.float16)
    path = OUT / "gptq_dynamic" / "config.json"
    plain = json.loads(path.read_text())
    del plain["quantization_config"]
    path.write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")
    del config["quant_method"]
    write_json(OUT / "gptq_dynamic" / "quantize_config.json", config)


# --- AWQ ----------------------------------------------------------------------------------------------------


def awq_values(tensors, group):
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    parts = [tensors["qweight"], tensors["qzeros"], tensors["scales"].float(), 4, group]
    values = dequantize_gemm(*parts)
    assert torch.equal(values, module_of("awq", "utils.packing_utils").dequantize_gemm(*parts)), "AutoAWQ disagrees with GPTQModel"
    return values.T.contiguous()


def awq(group, pack):
    def encode_tensor(name, weight):
        weight, module = weight.float(), name.removesuffix(".weight")
        cols = weight.shape[1]
        scales, zeros, weight = quantized(weight, groups_of(cols, group, False), 4, False)
        layer = pack(weight, scales, zeros)
        tensors = {key: getattr(layer, key).contiguous() for key in ("qweight", "qzeros", "scales")}
        values = awq_values(tensors, group if group > 0 else cols)
        assert torch.equal(values, weight), "the values are not those it was packed with"
        return {f"{module}.{key}": value for key, value in tensors.items()}, values

    return encode_tensor


def make_awq():
    def autoawq(name, seed, group, **sizes):
        linear = module_of("awq", "modules.linear.gemm").WQLinear_GEMM

        def pack(weight, scales, zeros):
            return linear.from_linear(linear_of(weight), 4, group, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())

        config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True, "modules_to_not_convert": None}
        encode(name, seed, config, awq(group, pack), dtype=torch.float16, **sizes)

    def gptqmodel(name, seed, group):
        from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

        def pack(weight, scales, zeros):
            rows, cols = weight.shape
            layer = AwqTorchLinear(bits=4, group_size=group, sym=False, desc_act=False, in_features=cols, out_features=rows)
            layer.pack(linear_of(weight), scales.half(), zeros)
            return layer

        config = {
            "quant_method": "awq", "checkpoint_format": "gemm", "format": "gemm", "bits": 4, "group_size": group, "desc_act": False,
            "sym": False, "zero_point": True, "lm_head": False, "pack_dtype": "int32", "meta": {"quantizer": ["gptqmodel:7.7.0"]},
        }
        encode(name, seed, config, awq(group, pack), dtype=torch.float16)

    autoawq("awq", 23, 32)
    # AutoAWQ quantizes whole groups only.
    autoawq("awq_64", 33, 64, intermediate_size=192)
    autoawq("awq_128", 34, 128, hidden_size=128, intermediate_size=256, num_hidden_layers=1)
    gptqmodel("awq_row", 35, -1)


def make_awq_gemv():
    """AutoAWQ multiplies in this layout on GPUs alone: the values are those that its own code packed, which checks are packed as they should be."""
    linear = module_of("awq", "modules.linear.gemv").WQLinear_GEMV

    def gemv(group):
        def encode_tensor(name, weight):
            weight, module = weight.float(), name.removesuffix(".weight")
            groups = groups_of(weight.shape[1], group, False)
            scales, zeros, weight = quantized(weight, groups, 4, False)
            layer = linear.from_linear(linear_of(weight), 4, group, scales=scales, zeros=zeros)
            codes = (layer.qweight[:, :, None] >> torch.arange(0, 32, 4)) & 15
            assert torch.equal((codes.flatten(1) - zeros[:, groups]) * scales[:, groups], weight), "the values are not those it was packed with"
            return {f"{module}.{key}": getattr(layer, key).contiguous() for key in ("qweight", "qzeros", "scales")}, weight

        return encode_tensor

    for name, seed, group, sizes in (("awq_gemv", 65, 32, {}), ("awq_gemv_64", 66, 64, dict(intermediate_size=192))):
        config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemv", "zero_point": True, "modules_to_not_convert": None}
        encode(name, seed, config, gemv(group), dtype=torch.float16, **sizes)


MAKERS = {"gptq": make_gptq, "gptq_dynamic": make_gptq_dynamic, "awq": make_awq, "awq_gemv": make_awq_gemv}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *MAKERS], help="what to write; default all")
    for chosen in parser.parse_args().names or MAKERS:
        MAKERS[chosen]()
