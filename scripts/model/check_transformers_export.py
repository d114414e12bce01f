#!/usr/bin/env python3
"""Load checkpoints that `quantize --format nf4 --layout transformers` wrote with transformers and bitsandbytes, compare their layers with those that
bitsandbytes quantizes itself and their logits with those of the plain model that holds the layers' values, and write
tests/fixtures/transformers_export.json: the SHA-256 of every tensor of the loaded model's state that the checkpoint has under the same name and in
the same type. The others are what transformers makes of the plain checkpoint's: stacks of experts, routers' biases.

    for name in llama/tied architectures/mixtral/base; do
      deno run -A mod.ts quantize tests/fixtures/$name --out /tmp/exported/$name --format nf4 --layout transformers
    done
    python scripts/model/check_transformers_export.py /tmp/exported llama/tied architectures/mixtral/base
"""

import hashlib
import pathlib
import re
import sys

import bitsandbytes
import torch
import transformers
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from make_encoding_fixtures import dequantize_4bit
from make_fixtures import FIXTURES, versions, write_json


def bare(name):
    """A name without what models of images have around that of the language model, which transformers names otherwise than checkpoints."""
    return name.replace("language_model.", "").removeprefix("model.")


def place_of(name, plain, reference):
    """The plain weight of a linear layer, and the part of the reference's parameter that it is. Experts of Llama 4 are taken from their stacks."""
    by_name = {bare(key): tensor for key, tensor in plain.items()}
    expert = re.fullmatch(r"(.+\.experts)\.(\d+)\.(gate|up|down)_proj", name)
    if expert is None:
        return by_name[bare(f"{name}.weight")], reference.get_submodule(name).weight
    stacks, kind = reference.get_submodule(expert[1]), expert[3]
    rows = stacks.down_proj.shape[1]
    part = (int(expert[2]), slice(None), {"gate": slice(0, rows), "up": slice(rows, None), "down": slice(None)}[kind])
    stack = "down_proj" if kind == "down" else "gate_up_proj"
    return by_name[bare(f"{expert[1]}.{stack}")][part].T, getattr(stacks, stack)[part].T


def bytes_of(tensor):
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@torch.no_grad()
def check(exported, original):
    plain = load_file(original / "model.safetensors")
    written = load_file(exported / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(exported, device_map="cpu")
    reference = AutoModelForCausalLM.from_pretrained(original, device_map="cpu")
    layers, ids = 0, torch.tensor([[1, 5, 9, 20, 33, 60]])
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    linears = {name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    for name, tensor in reference.state_dict().items():
        if name in state and name.removesuffix(".weight") not in linears:
            assert torch.equal(state[name], tensor), name
    for name, module in list(model.named_modules()):
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        # Flattened, as bitsandbytes' blocks run over the whole matrix.
        weight, parameter = place_of(name, plain, reference)
        packed, wanted = quantize_4bit(weight.flatten(), blocksize=64, quant_type="nf4", compress_statistics=False)
        found = module.weight.quant_state
        assert torch.equal(module.weight.data.flatten(), packed.flatten()), name
        assert torch.equal(found.absmax, wanted.absmax) and torch.equal(found.code, wanted.code), name
        assert found.shape == weight.shape and found.dtype == weight.dtype, name
        values = dequantize_4bit(module.weight.data, found)
        parameter.copy_(values)
        # bitsandbytes' kernels for the CPU are not for rows that are no whole blocks.
        linear = torch.nn.Linear(*reversed(weight.shape), bias=module.bias is not None, dtype=values.dtype)
        linear.weight.copy_(values)
        if module.bias is not None:
            linear.bias.copy_(module.bias)
        model.set_submodule(name, linear)
        layers += 1
    quantized = sum(name.endswith(".quant_state.bitsandbytes__nf4") for name in written)
    assert layers == quantized > 0, (layers, quantized)
    logits, expected = model(input_ids=ids).logits, reference(input_ids=ids).logits
    assert torch.isfinite(logits).all() and torch.equal(logits, expected), "another model"
    print(f"{original}: {layers} layers are what bitsandbytes makes of them, the rest is as it was")
    names = {bare(name): name for name in written}
    named = {names[bare(name)]: tensor for name, tensor in sorted(state.items()) if bare(name) in names}
    same = {name: tensor for name, tensor in named.items() if written[name].dtype == tensor.dtype}
    return {name: hashlib.sha256(bytes_of(tensor)).hexdigest() for name, tensor in same.items()}


def main(exported, *names):
    hashes = {name: check(pathlib.Path(exported) / name, FIXTURES / name) for name in names}
    made_with = versions(transformers, bitsandbytes, torch)
    write_json(FIXTURES / "transformers_export.json", {"made_with": made_with, "sha256": hashes})


if __name__ == "__main__":
    main(*sys.argv[1:])
