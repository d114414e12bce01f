#!/usr/bin/env python3
"""Write tests/fixtures/pytorch/: files of torch.save, what they hold, and pickles that must be refused."""

import collections
import json
import os
import pickle
import shutil
import zipfile

import torch
from safetensors.torch import load_file

from make_fixtures import FIXTURES, tensor_json, versions, write_json

OUT = FIXTURES / "pytorch"


def make_model():
    """The checkpoint tests/fixtures/llama/tied as transformers once saved it: state_dict order, metadata, tied weights in one storage."""
    source, directory = FIXTURES / "llama" / "tied", OUT / "tied"
    directory.mkdir(parents=True)
    shutil.copy(source / "config.json", directory)
    state = collections.OrderedDict(load_file(source / "model.safetensors"))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    torch.save(state, directory / "pytorch_model.bin")


def make_sharded():
    source, directory = FIXTURES / "llama" / "base", OUT / "sharded"
    directory.mkdir(parents=True)
    shutil.copy(source / "config.json", directory)
    state, weight_map = load_file(source / "model.safetensors"), {}
    for i in range(2):
        name = f"pytorch_model-{i + 1:05}-of-00002.bin"
        part = {key: torch.nn.Parameter(value) for key, value in list(state.items())[i::2]}
        torch.save(part, directory / name)
        weight_map |= {key: name for key in part}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def make_views():
    """Views of one storage, every element type, and what cannot be read as it lies."""
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "whole": whole,
        "rows": whole[1:3],
        "row": whole[2],
        "element": whole[3, 5],
        "empty": whole[:0],
        "one_column": whole.reshape(24, 1)[5:9],
        "float16": whole.to(torch.float16),
        "bfloat16": whole.to(torch.bfloat16),
        "int64": whole.to(torch.int64),
        "uint8": whole.to(torch.uint8),
        "bool": whole > 3,
        "parameter": torch.nn.Parameter(whole + 0.5),
    }
    torch.save(tensors, OUT / "views.bin")
    block = torch.arange(120, dtype=torch.float16).reshape(2, 3, 4, 5)
    strided = {
        "turned": whole.t(),
        "columns": whole[:, 1:3],
        "column": whole[:, 4],
        "steps": whole[::2, 1::3],
        "repeated": whole[1:2].expand(3, 6),
        "spread": whole[:, :1].expand(4, 3),
        "stack": block.transpose(2, 3),
        "permuted": block.permute(3, 1, 0, 2)[1:4],
    }
    torch.save(strided, OUT / "strided.bin")
    torch.save({"weights": whole, "epoch": 3}, OUT / "epoch.bin")
    torch.save([whole], OUT / "list.bin")
    torch.save({"weights": whole}, OUT / "legacy.bin", _use_new_zipfile_serialization=False)
    floats = lambda tensors: {key: tensor_json(tensor.detach().to(torch.float32).contiguous()) for key, tensor in tensors.items()}
    write_json(OUT / "expected.json", {"made_with": versions(torch), "views": floats(tensors), "strided": floats(strided)})


class Calls:
    def __init__(self, function, *given):
        self.function, self.given = function, given

    def __reduce__(self):
        return self.function, self.given


def make_malicious():
    """Archives whose pickle would run something if it were unpickled."""
    import builtins

    bodies = {
        "system": pickle.dumps({"weights": Calls(os.system, "echo pwned")}, protocol=2),
        "eval": pickle.dumps({"weights": Calls(builtins.eval, "1")}, protocol=2),
        "getattr": b"\x80\x02c__builtin__\ngetattr\n.",
        "protocol_4": pickle.dumps({"weights": 1}, protocol=4),
        "instance": b"\x80\x02(ctorch\nFloatStorage\no.",
        "new_object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        "extension": b"\x80\x02\x82\x01.",
        "call_storage": b"\x80\x02ctorch\nFloatStorage\n)R.",
        "arguments": b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.",
        "unknown_memo": b"\x80\x02h\x07.",
        "empty_stack": b"\x80\x02R.",
        "no_stop": b"\x80\x02}",
        "long_text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    }
    for name, body in bodies.items():
        with zipfile.ZipFile(OUT / f"bad_{name}.bin", "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("bad/data.pkl", body)
            archive.writestr("bad/byteorder", "little")
    with zipfile.ZipFile(OUT / "bad_compressed.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bad/data.pkl", b"\x80\x02}." + bytes(1000))
    with zipfile.ZipFile(OUT / "bad_big_endian.bin", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("bad/data.pkl", b"\x80\x02}.")
        archive.writestr("bad/byteorder", "big")
    with zipfile.ZipFile(OUT / "bad_other.bin", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("readme.txt", "no model")


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    make_model()
    make_sharded()
    make_views()
    make_malicious()
    for path in OUT.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
