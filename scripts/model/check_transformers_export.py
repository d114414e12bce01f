#!/usr/bin/env python3
"""Load a checkpoint that `quantize --format nf4 --layout transformers` wrote with transformers and bitsandbytes, compare its layers with those that
bitsandbytes quantizes itself, and write tests/fixtures/transformers_export.json: the SHA-256 of every tensor of the loaded model's state.

    deno run -A mod.ts quantize tests/fixtures/llama/tied --out /tmp/tied-nf4 --format nf4 --layout transformers
    python scripts/model/check_transformers_export.py /tmp/tied-nf4 tests/fixtures/llama/tied
"""

import hashlib
import pathlib
import sys

import bitsandbytes
import torch
import transformers
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from make_fixtures import FIXTURES, versions, write_json


def bytes_of(tensor):
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def main(exported, original):
    plain = load_file(pathlib.Path(original) / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(exported, device_map="cpu")
    layers = 0
    for name, module in model.named_modules():
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        # Flattened, as bitsandbytes' blocks run over the whole matrix.
        packed, state = quantize_4bit(plain[f"{name}.weight"].flatten(), blocksize=64, quant_type="nf4", compress_statistics=False)
        found = module.weight.quant_state
        assert torch.equal(module.weight.data.flatten(), packed.flatten()), name
        assert torch.equal(found.absmax, state.absmax) and torch.equal(found.code, state.code), name
        assert found.shape == plain[f"{name}.weight"].shape and found.dtype == plain[f"{name}.weight"].dtype, name
        layers += 1
    assert layers == sum(".layers." in name and name.endswith("proj.weight") for name in plain), layers
    logits = model(input_ids=torch.tensor([[1, 5, 9]])).logits
    assert torch.isfinite(logits).all()
    # The layers' state as bitsandbytes writes it into checkpoints; the tied head is the embedding.
    saved = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    hashes = {name: hashlib.sha256(bytes_of(tensor)).hexdigest() for name, tensor in sorted(saved.items())}
    write_json(
        FIXTURES / "transformers_export.json",
        {"made_with": versions(transformers, bitsandbytes, torch), "checkpoint": "tests/fixtures/llama/tied", "sha256": hashes},
    )
    print(f"{layers} layers are what bitsandbytes makes of them; {len(hashes)} tensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
