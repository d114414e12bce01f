#!/usr/bin/env python3
"""Write tests/fixtures/encodings/: tiny Llama checkpoints whose linear layers are encoded, with what the encoding's own library dequantizes
them to and what transformers computes from those values in float32.

`expected.json` has for each encoded tensor the SHA-256 of its dequantized float32 values, and logits and greedy tokens as in
tests/fixtures/llama. Where a library dequantizes into 16 bits, it is asked for float32 (so that its last rounding is left out), except
bitsandbytes 4-bit, whose values are those of the element type that the checkpoint names.
"""

import argparse
import hashlib
import json
import shutil
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from make_fixtures import FIXTURES, TINY, clear_case, float32_list, random_model, tensor_json, versions, write_json

OUT = FIXTURES / "encodings"
# 352 columns are no multiple of 64 or 128, and 352 x 64 weights are more than 256 blocks of 64.
SIZES = dict(hidden_size=64, intermediate_size=352, num_attention_heads=4, num_key_value_heads=2)


def sha256(values):
    return hashlib.sha256(values.detach().contiguous().to(torch.float32).numpy().astype("<f4").tobytes()).hexdigest()


def plain_checkpoint(directory, seed, dtype=torch.bfloat16, **config):
    model = random_model(LlamaConfig(**TINY | SIZES | config), 1.0, seed)
    model.to(dtype).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return load_file(directory / "model.safetensors")


def is_linear(name):
    return ".layers." in name and name.endswith("proj.weight")


def encode(name, seed, quantization_config, encode_tensor, dtype=torch.bfloat16, made_with=(), **config):
    """Writes a fixture; `encode_tensor(name, weight)` returns the tensors that replace a linear layer's weight, and its values."""
    directory = OUT / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    plain = plain_checkpoint(directory, seed, dtype, **config)
    tensors, values = {}, {}
    for key, tensor in plain.items():
        if is_linear(key):
            encoded, values[key] = encode_tensor(key, tensor)
            tensors |= {k: v.contiguous() for k, v in encoded.items()}
        else:
            tensors[key] = tensor
    write_checkpoint(directory, tensors, quantization_config)
    finish(directory, plain, values, made_with)


def write_checkpoint(directory, tensors, quantization_config):
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config.pop("quantization_config", None)
    path.write_text(json.dumps(config | {"quantization_config": quantization_config}, indent=2, sort_keys=True) + "\n")


def finish(directory, plain, values, made_with=()):
    """Writes expected.json: hashes of the dequantized values, and what a plain model that holds them computes."""
    with tempfile.TemporaryDirectory() as temporary:
        config = json.loads((directory / "config.json").read_text())
        del config["quantization_config"]
        model = LlamaForCausalLM(LlamaConfig(**config))
        state = {key: tensor.to(torch.float32) for key, tensor in plain.items()} | {k: v.to(torch.float32) for k, v in values.items()}
        model.load_state_dict(state, strict=True)
        model.save_pretrained(temporary)
        prompt, (prompt_logits, tokens, steps, gaps) = clear_case(temporary, 9, seed=7, new_tokens=16, candidates=10)
    case = {
        "prompt_ids": prompt,
        "prompt_logits": tensor_json(prompt_logits),
        "greedy_ids": tokens,
        "decode_logits": tensor_json(steps[:4]),
        "margin": min(gaps),
    }
    tensors = {
        key: {"shape": list(value.shape), "sha256": sha256(value), "first": float32_list(value.to(torch.float32).flatten()[:8])}
        for key, value in values.items()
    }
    write_json(directory / "expected.json", {"made_with": versions(transformers, torch, *made_with), "tensors": tensors, "cases": [case]})
    for file in directory.iterdir():
        file.chmod(0o644)
    print(f"{directory.name}: {sum(file.stat().st_size for file in directory.iterdir())} bytes, margin {min(gaps):.3f}")


# --- bitsandbytes -------------------------------------------------------------------------------------------


def dequantize_4bit(packed, state):
    """bitsandbytes' dequantization. Its CPU kernel is wrong for rows that are not whole blocks, so that of every platform is taken."""
    import bitsandbytes.functional as bnb
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    absmax = state.absmax
    if state.nested:
        absmax = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    count = state.shape.numel()
    values = _dequantize_4bit_compute(packed.flatten().view(torch.uint8), absmax, state.code, state.blocksize, (1, count), state.dtype)
    values = values.reshape(state.shape)
    if state.shape[1] % state.blocksize == 0 and state.blocksize < 2048:
        assert torch.equal(values, bnb.dequantize_4bit(packed, state)), "bitsandbytes disagrees with itself"
    return values


def bnb_4bit(quant_type, blocksize, nested, storage, dtype):
    import bitsandbytes.functional as bnb

    def encode_tensor(name, weight):
        packed, state = bnb.quantize_4bit(
            weight.to(dtype), blocksize=blocksize, compress_statistics=nested, quant_type=quant_type, quant_storage=storage
        )
        tensors = {name: packed} | {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
        return tensors, dequantize_4bit(packed, state)

    return encode_tensor


def make_bnb_nf4():
    """As transformers saves it: what the checkpoints under the name `...-bnb-4bit` are."""
    import bitsandbytes.functional as bnb

    directory = OUT / "bnb_nf4"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        import pathlib

        plain = plain_checkpoint(pathlib.Path(temporary), 1)
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
        )
        model = LlamaForCausalLM.from_pretrained(temporary, quantization_config=config, dtype=torch.bfloat16, device_map="cpu")
        model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    saved, values = load_file(directory / "model.safetensors"), {}
    assembled = bnb_4bit("nf4", 64, True, torch.uint8, torch.bfloat16)
    for name, tensor in plain.items():
        if not is_linear(name):
            continue
        state = bnb.QuantState.from_dict({k: v for k, v in saved.items() if k.startswith(f"{name}.")}, "cpu")
        values[name] = dequantize_4bit(saved[name], state)
        # The other fixtures are put together here: they must be what transformers would have written.
        for key, value in assembled(name, tensor)[0].items():
            assert torch.equal(value.cpu(), saved[key]), key
    finish(directory, plain, values)


def make_bnb_others():
    base = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_compute_dtype": "float32"}
    nested = {"bnb_4bit_use_double_quant": True}
    encode(
        "bnb_fp4", 2, base | {"bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": "bfloat16"},
        bnb_4bit("fp4", 128, False, torch.bfloat16, torch.float16), dtype=torch.float16,
    )
    encode(
        "bnb_nf4_float32", 3, base | nested | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "float32"},
        bnb_4bit("nf4", 32, True, torch.float32, torch.float32), dtype=torch.float32,
    )
    encode(
        "bnb_fp4_nested", 4, base | nested | {"bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": "uint8"},
        bnb_4bit("fp4", 64, True, torch.uint8, torch.bfloat16),
    )


def make_llm_int8():
    import pathlib

    from bitsandbytes.functional import int8_vectorwise_dequant

    directory = OUT / "llm_int8"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        plain = plain_checkpoint(pathlib.Path(temporary), 5)
        config = BitsAndBytesConfig(load_in_8bit=True)
        LlamaForCausalLM.from_pretrained(
            temporary, quantization_config=config, dtype=torch.bfloat16, device_map="cpu"
        ).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    saved = load_file(directory / "model.safetensors")
    values = {
        name: int8_vectorwise_dequant(saved[name], saved[name.replace(".weight", ".SCB")]) for name in plain if is_linear(name)
    }
    finish(directory, plain, values)


# --- FP8 ----------------------------------------------------------------------------------------------------


def make_fp8_blocks():
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    def encode_tensor(name, weight):
        rows, cols = weight.shape
        block = lambda n: (n + 127) // 128
        spread = lambda scale: scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :cols]
        padded = torch.zeros(block(rows) * 128, block(cols) * 128)
        padded[:rows, :cols] = weight.float()
        scale = padded.reshape(block(rows), 128, block(cols), 128).abs().amax((1, 3)) / 448
        codes = (weight.float() / spread(scale)).to(torch.float8_e4m3fn)
        values = codes.float() * spread(scale)
        if max(rows, cols) <= 128:
            library = Fp8Dequantize.__new__(Fp8Dequantize)._dequantize_one(codes, scale, output_dtype=torch.float32)
            assert torch.equal(values, library)
        return {name: codes, f"{name}_scale_inv": scale}, values

    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    encode("fp8_blocks", 6, config, encode_tensor)


# --- compressed-tensors -------------------------------------------------------------------------------------


def group_scales(weight, group, bits, symmetric):
    """Scales and zero points of each row's groups, by the largest magnitude or the range."""
    grouped = weight.float().reshape(weight.shape[0], -1, group)
    if symmetric:
        return grouped.abs().amax(-1) / (2 ** (bits - 1) - 1), None
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    return scale, (torch.round(-low / scale) - 2 ** (bits - 1)).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).to(torch.int8)


def compressed(compressor, scheme, scale_type, make_scales, float32):
    """An encoder over a compressor of the library; `float32` names the tensors that its decompression is given as float32, to round once less."""

    def encode_tensor(name, weight):
        module = name.removesuffix(".weight")
        state = {"weight": weight.float()} | {k: v for k, v in make_scales(weight).items() if v is not None}
        state = {k: v.to(scale_type) if k == "weight_scale" else v for k, v in state.items()}
        packed = compressor.compress(state, scheme)
        values = compressor.decompress({k: v.float() if k in float32 else v for k, v in packed.items()}, scheme)["weight"]
        return {f"{module}.{k}": v for k, v in packed.items()}, values

    return encode_tensor


def make_compressed_tensors():
    import compressed_tensors.compressors as library
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    def fixture(name, seed, compressor, file_format, scale_type, make_scales, float32=("weight_scale",), **weights):
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
        config = {
            "quant_method": "compressed-tensors",
            "format": file_format,
            "ignore": ["lm_head"],
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": None, "weights": json.loads(scheme.weights.model_dump_json())}},
        }
        encode(name, seed, config, compressed(compressor, scheme, scale_type, make_scales, float32))

    def integers(group, bits, symmetric):
        def make(weight):
            scale, zero = group_scales(weight, group or weight.shape[1], bits, symmetric)
            return {"weight_scale": scale, "weight_zero_point": zero}

        return make

    pack, naive = library.PackedQuantizationCompressor, library.NaiveQuantizationCompressor
    fixture("ct_int4", 10, pack, "pack-quantized", torch.bfloat16, integers(32, 4, True), num_bits=4, type="int", strategy="group", group_size=32)
    fixture(
        "ct_int4_zero", 11, pack, "pack-quantized", torch.float16, integers(32, 4, False),
        num_bits=4, type="int", strategy="group", group_size=32, symmetric=False,
    )
    fixture(
        "ct_int8_packed", 12, pack, "pack-quantized", torch.bfloat16, integers(0, 8, False),
        num_bits=8, type="int", strategy="channel", symmetric=False,
    )
    fixture("ct_int8", 13, naive, "int-quantized", torch.float32, integers(0, 8, True), num_bits=8, type="int", strategy="channel")
    fixture(
        "ct_fp8_channel", 14, naive, "float-quantized", torch.bfloat16,
        lambda weight: {"weight_scale": weight.float().abs().amax(1, keepdim=True) / 448}, num_bits=8, type="float", strategy="channel",
    )
    fixture(
        "ct_fp8_tensor", 15, naive, "naive-quantized", torch.float32,
        lambda weight: {"weight_scale": weight.float().abs().amax().reshape(1) / 448}, num_bits=8, type="float", strategy="tensor",
    )

    def nvfp4_scales(weight):
        global_scale = (448 * 6 / weight.float().abs().amax()).reshape(1)
        scale = weight.float().reshape(weight.shape[0], -1, 16).abs().amax(-1) / 6 * global_scale
        return {"weight_scale": scale.to(torch.float8_e4m3fn).float(), "weight_global_scale": global_scale}

    def mxfp4_scales(weight):
        largest = weight.float().reshape(weight.shape[0], -1, 32).abs().amax(-1)
        return {"weight_scale": 2.0 ** (torch.floor(torch.log2(largest)) - 2)}

    # Both decompress into bfloat16; from there the values are computed again in float32, as their documents say.
    def fp4(compressor, make_scales, scheme, scale_of):
        from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

        encode_tensor = compressed(compressor, scheme, torch.float32, make_scales, ())

        def exact(name, weight):
            packed, rounded = encode_tensor(name, weight)
            module = name.removesuffix(".weight")
            rows, cols = weight.shape
            codes = unpack_fp4_from_uint8(packed[f"{module}.weight_packed"], rows, cols, torch.float32)
            scale = scale_of({k.removeprefix(f"{module}."): v for k, v in packed.items()})
            values = codes * scale.repeat_interleave(cols // scale.shape[1], 1)
            assert torch.equal(values.to(torch.bfloat16), rounded.to(torch.bfloat16)), "the library disagrees"
            return packed, values

        return exact

    for name, seed, compressor, file_format, make_scales, scale_of, weights in (
        ("ct_nvfp4", 16, library.NVFP4PackedCompressor, "nvfp4-pack-quantized", nvfp4_scales,
         lambda t: t["weight_scale"].float() / t["weight_global_scale"], dict(strategy="tensor_group", group_size=16)),
        ("ct_mxfp4", 17, library.MXFP4PackedCompressor, "mxfp4-pack-quantized", mxfp4_scales,
         lambda t: 2.0 ** (t["weight_scale"].float() - 127), dict(strategy="group", group_size=32)),
    ):
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=4, type="float", **weights))
        groups = {"group_0": {"targets": ["Linear"], "input_activations": None, "weights": json.loads(scheme.weights.model_dump_json())}}
        config = {"quant_method": "compressed-tensors", "format": file_format, "ignore": ["lm_head"], "config_groups": groups}
        encode(name, seed, config, fp4(compressor, make_scales, scheme, scale_of))


# --- MXFP4 of gpt-oss ---------------------------------------------------------------------------------------


def make_mxfp4():
    """Stacks of experts' matrices alone: no model of the family is needed to test how they are read."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    directory = OUT / "mxfp4_experts"
    directory.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(24)
    tensors, values = {}, {}
    # Gate and up rows alternate.
    for name, (rows, cols) in {"gate_up_proj": (16, 64), "down_proj": (10, 32)}.items():
        blocks = torch.randint(0, 256, (3, rows, cols // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(110, 130, (3, rows, cols // 32), generator=generator, dtype=torch.uint8)
        name = f"model.layers.0.mlp.experts.{name}"
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        values[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_json(directory / "config.json", {"model_type": "none", "quantization_config": {"quant_method": "mxfp4"}})
    shapes = {name: {"shape": list(value.shape), "sha256": sha256(value), "values": tensor_json(value)} for name, value in values.items()}
    write_json(directory / "expected.json", {"made_with": versions(transformers, torch), "tensors": shapes})
    for file in directory.iterdir():
        file.chmod(0o644)


MAKERS = {
    "bnb_nf4": make_bnb_nf4,
    "bnb": make_bnb_others,
    "llm_int8": make_llm_int8,
    "fp8_blocks": make_fp8_blocks,
    "compressed_tensors": make_compressed_tensors,
    "mxfp4": make_mxfp4,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *MAKERS], help="what to write; default all")
    for name in parser.parse_args().names or MAKERS:
        MAKERS[name]()


if __name__ == "__main__":
    main()
