#!/usr/bin/env python3
"""Add more checkpoints of compressed-tensors to tests/fixtures/encodings/: packed integers of other bits, MXFP8, scales of groups, several schemes
in one checkpoint. The order of columns (`order`) was last in version 0.9.4, which must come first on PYTHONPATH for it:

    pip install --no-deps --target DIR compressed-tensors==0.9.4
"""

import argparse
import json

import compressed_tensors
import torch

from make_encoding_fixtures import encode, group_scales


def integers(group, bits, symmetric):
    def make(weight):
        scale, zero = group_scales(weight, group or weight.shape[1], bits, symmetric)
        return {"weight_scale": scale, "weight_zero_point": zero}

    return make


def groups_of(schemes, formats):
    """The `config_groups` of schemes by the modules they are for."""
    return {
        f"group_{i}": {"targets": targets, "input_activations": None, "output_activations": None, "weights": weights, "format": kind}
        for i, ((targets, weights), kind) in enumerate(zip(schemes, formats))
    }


def config_of(file_format, groups):
    return {
        "quant_method": "compressed-tensors", "format": file_format, "ignore": ["lm_head"], "quantization_status": "compressed",
        "global_compression_ratio": None, "kv_cache_scheme": None, "config_groups": groups,
    }


def scheme_of(**weights):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))


def weights_of(scheme):
    return json.loads(scheme.weights.model_dump_json())


def make_singles():
    import compressed_tensors.compressors as library

    from make_encoding_fixtures import compressed

    pack, naive = library.PackedQuantizationCompressor, library.NaiveQuantizationCompressor

    def mxfp8_scales(weight):
        largest = weight.float().reshape(weight.shape[0], -1, 32).abs().amax(-1)
        return {"weight_scale": 2.0 ** (torch.floor(torch.log2(largest)) - 8)}

    def fp8_groups(weight):
        return {"weight_scale": weight.float().reshape(weight.shape[0], -1, 32).abs().amax(-1) / 448}

    for name, seed, compressor, kind, scale_type, make_scales, float32, weights in (
        ("ct_int2", 80, pack, "pack-quantized", torch.bfloat16, integers(32, 2, False), ("weight_scale",), dict(num_bits=2, strategy="group", group_size=32, symmetric=False)),
        ("ct_int3", 81, pack, "pack-quantized", torch.bfloat16, integers(32, 3, True), ("weight_scale",), dict(num_bits=3, strategy="group", group_size=32)),
        ("ct_int6", 82, pack, "pack-quantized", torch.float16, integers(0, 6, False), ("weight_scale",), dict(num_bits=6, strategy="channel", symmetric=False)),
        ("ct_fp8_group", 83, naive, "naive-quantized", torch.float32, fp8_groups, (), dict(num_bits=8, type="float", strategy="group", group_size=32)),
        ("ct_mxfp8", 84, library.MXFP8QuantizationCompressor, "mxfp8-quantized", torch.float32, mxfp8_scales, (),
         dict(num_bits=8, type="float", strategy="group", group_size=32, scale_dtype=torch.uint8)),
    ):
        scheme = scheme_of(**dict(type="int") | weights)
        config = config_of(kind, groups_of([(["Linear"], weights_of(scheme))], [kind]))
        encode_tensor = compressed(compressor, scheme, scale_type, make_scales, float32)
        if name == "ct_mxfp8":
            encode_tensor = in_float32(encode_tensor)
        encode(name, seed, config, encode_tensor, made_with=[compressed_tensors])


def in_float32(encode_tensor):
    """The library decompresses powers of two into bfloat16, and the product is of that type; here it is computed in float32."""

    def exact(name, weight):
        tensors, rounded = encode_tensor(name, weight)
        scale = 2.0 ** (tensors[name + "_scale"].float() - 127)
        values = tensors[name].float() * scale.repeat_interleave(32, 1)
        assert torch.equal(values.to(rounded.dtype), rounded), "the library disagrees"
        return tensors, values

    return exact


def make_mixed():
    """Four schemes, two of them of the same bits, and the scales of a KV cache of FP8."""
    import compressed_tensors.compressors as library

    from make_encoding_fixtures import compressed

    pack, naive = library.PackedQuantizationCompressor, library.NaiveQuantizationCompressor
    fp8 = scheme_of(num_bits=8, type="float", strategy="channel")
    groups4 = scheme_of(num_bits=4, type="int", strategy="group", group_size=32, actorder="weight")
    rows4 = scheme_of(num_bits=4, type="int", strategy="channel", symmetric=False)
    int8 = scheme_of(num_bits=8, type="int", strategy="channel")
    schemes = [
        (["re:.*self_attn.*"], fp8, "float-quantized", naive, lambda weight: {"weight_scale": weight.float().abs().amax(1, keepdim=True) / 448}),
        (["re:.*gate_proj"], groups4, "pack-quantized", pack, integers(32, 4, True)),
        (["re:.*up_proj"], rows4, "pack-quantized", pack, integers(0, 4, False)),
        (["re:.*down_proj"], int8, "int-quantized", naive, integers(0, 8, True)),
    ]

    def encode_tensor(name, weight):
        index = 0 if "self_attn" in name else 1 if "gate_proj" in name else 2 if "up_proj" in name else 3
        _, scheme, _, compressor, make_scales = schemes[index]
        tensors, values = compressed(compressor, scheme, torch.bfloat16, make_scales, ("weight_scale",))(name, weight)
        for kind in "kv":
            if name.endswith(f"{kind}_proj.weight"):
                tensors[name.replace(f"{kind}_proj.weight", f"{kind}_scale")] = torch.tensor([0.5])
        return tensors, values

    config = config_of("mixed-precision", groups_of([(targets, weights_of(scheme)) for targets, scheme, *_ in schemes], [one[2] for one in schemes]))
    cache = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
    encode("ct_mixed", 85, config | {"kv_cache_scheme": cache}, encode_tensor, made_with=[compressed_tensors])


def make_order():
    """Columns grouped by activations, with actorder "group"."""
    from compressed_tensors.compressors.quantized_compressors.pack_quantized import PackedQuantizationCompressor

    assert compressed_tensors.__version__ == "0.9.4", "a later version has no order"
    weights = scheme_of(num_bits=4, type="int", strategy="group", group_size=32, actorder="group").weights
    compressor = PackedQuantizationCompressor()

    def encode_tensor(name, weight):
        module, cols = name.removesuffix(".weight"), weight.shape[1]
        groups = torch.arange(cols, dtype=torch.int32) // 32
        groups = groups[torch.randperm(cols, generator=torch.Generator().manual_seed(cols))]
        scale, _ = group_scales(weight[:, torch.argsort(groups, stable=True)], 32, 4, True)
        scale = scale.to(torch.bfloat16).float()
        packed = compressor.compress_weight(weight.float(), scale, quantization_args=weights, g_idx=groups)
        tensors = packed | {"weight_scale": scale.to(torch.bfloat16), "weight_g_idx": groups}
        values = compressor.decompress_weight(tensors | {"weight_scale": scale}, weights)
        assert values.dtype == torch.float32
        return {f"{module}.{key}": value for key, value in tensors.items()}, values

    config = config_of("pack-quantized", groups_of([(["Linear"], json.loads(weights.model_dump_json()))], [None]))
    encode("ct_int4_order", 86, config, encode_tensor, made_with=[compressed_tensors])


MAKERS = {"singles": make_singles, "mixed": make_mixed, "order": make_order}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=list(MAKERS), help="what to write")
    for chosen in parser.parse_args().names:
        MAKERS[chosen]()
