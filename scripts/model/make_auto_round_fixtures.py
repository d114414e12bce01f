#!/usr/bin/env python3
"""Add checkpoints of AutoRound to tests/fixtures/encodings/: packed by its own layers, with the values that they multiply with.

    pip install --no-deps auto-round==0.16.1 py-cpuinfo -r scripts/model/requirements-gptq-awq.txt
"""

import argparse
import functools
import sys
import unittest.mock

import torch

# What AutoRound imports for calibration alone.
sys.modules["datasets"] = unittest.mock.MagicMock()
import auto_round
from auto_round.export.export_to_awq.utils import WQLinear_GEMM, dequantize_gemm
from auto_round_extension.torch.qlinear_torch import QuantLinear
from auto_round_extension.torch.qlinear_torch_zp import QuantLinear as QuantLinearZp

from make_encoding_fixtures import encode
from make_gptq_awq_fixtures import groups_of, linear_of, quantized


def tensors_of(layer, module, names):
    return {f"{module}.{name}": getattr(layer, name).contiguous() for name in names}


def gptq(layer_class, bits, group, symmetric):
    def encode_tensor(name, weight):
        weight, module = weight.float(), name.removesuffix(".weight")
        rows, cols = weight.shape
        scales, zeros, weight = quantized(weight, groups_of(cols, group, False), bits, symmetric)
        layer = layer_class(bits, group, cols, rows, bias=False, weight_dtype=torch.float16)
        layer.device = "cpu"
        layer.pack(linear_of(weight), scales, zeros, None, device="cpu")
        tensors = tensors_of(layer, module, [key for key in ("qweight", "qzeros", "scales", "g_idx") if hasattr(layer, key)])
        # So that nothing is rounded to float16. With g_idx, which says no more than the order of columns, its own product fails.
        layer.scales = layer.scales.float()
        if hasattr(layer, "g_idx"):
            assert torch.equal(layer.g_idx, groups_of(cols, group, False))
            del layer.g_idx
        values = layer(torch.eye(cols)).T.contiguous()
        assert torch.equal(values, weight), "the values are not those it was packed with"
        # Products with zeros have lost the sign of a zero; (code - zero) * scale has none.
        return tensors, weight + 0.0

    return encode_tensor


def awq(group):
    def encode_tensor(name, weight):
        weight, module = weight.float(), name.removesuffix(".weight")
        scales, zeros, weight = quantized(weight, groups_of(weight.shape[1], group, False), 4, False)
        layer = WQLinear_GEMM.from_linear(linear_of(weight), 4, group, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
        values = dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, group).T.contiguous()
        assert torch.equal(values, weight), "the values are not those it was packed with"
        return tensors_of(layer, module, ("qweight", "qzeros", "scales")), values

    return encode_tensor


def settings(packing, bits, group, symmetric, **others):
    return {
        "quant_method": "auto-round", "packing_format": packing, "bits": bits, "group_size": group, "sym": symmetric, "data_type": "int",
        "autoround_version": auto_round.__version__, "iters": 0, "block_name_to_quantize": "model.layers",
    } | others


def make():
    write = functools.partial(encode, dtype=torch.float16, made_with=[auto_round])
    write("auto_round", 70, settings("auto_round:auto_gptq", 4, 32, True), gptq(QuantLinearZp, 4, 32, True))
    write("auto_round_zero", 71, settings("auto_round", 4, 32, False), gptq(QuantLinear, 4, 32, False))
    write("auto_round_int2", 72, settings("auto_round:auto_gptq", 2, 32, True), gptq(QuantLinearZp, 2, 32, True))
    write("auto_round_int5", 73, settings("auto_round", 5, 32, False), gptq(QuantLinear, 5, 32, False))
    write("auto_round_awq", 74, settings("auto_round:auto_awq", 4, 32, False), awq(32))

    def mixed(name, weight):
        if ".o_proj" in name:
            return {name: weight}, weight.float()
        return gptq(functools.partial(QuantLinear, g_idx=True), *((8, 64) if ".q_proj" in name else (3, 32)), False)(name, weight)

    extra = {f"model.layers.{i}.self_attn.o_proj": {"bits": 16, "data_type": "fp"} for i in (0, 1)} | {".*q_proj.*": {"bits": 8, "group_size": 64}}
    write("auto_round_mixed", 75, settings("auto_round:gptqmodel", 3, 32, False, extra_config=extra), mixed)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    make()
