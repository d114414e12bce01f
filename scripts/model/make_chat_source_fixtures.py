#!/usr/bin/env python3
"""Make tests/fixtures/chat/sources.json: which chat template transformers takes of a tokenizer's files, and which special tokens it gives
to the template."""

import json
import pathlib
import tempfile

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "chat" / "sources.json"
TOKENS = ["<s>", "</s>", "<pad>", "<img>", "<x>"]
SHOW = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ image_token }}|{{ extra_token }}"
LIST = [{"name": "default", "template": "default"}, {"name": "tool_use", "template": "tools"}, {"name": "rag", "template": "rag"}]
CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast"}
ADDED = {"0": {"content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}}


def config(**more):
    return {**CONFIG, **more}


# What the directory holds beside tokenizer.json: objects are written as JSON.
SOURCES = [
    {"tokenizer_config.json": config(chat_template="of the config")},
    {"tokenizer_config.json": config(chat_template=LIST)},
    {"tokenizer_config.json": config(chat_template=[LIST[1]])},
    {"tokenizer_config.json": config(chat_template="of the config"), "chat_template.jinja": "of the file"},
    {"tokenizer_config.json": config(chat_template=LIST), "chat_template.jinja": "of the file"},
    {"tokenizer_config.json": config(), "chat_template.jinja": "of the file", "additional_chat_templates/tool_use.jinja": "tools of the folder",
     "additional_chat_templates/other-1.jinja": "other of the folder", "additional_chat_templates/read.me": "no template"},
    {"tokenizer_config.json": config(chat_template="of the config"), "additional_chat_templates/tool_use.jinja": "tools of the folder"},
    {"tokenizer_config.json": config(chat_template=SHOW, bos_token="<s>", eos_token={**ADDED["0"], "content": "</s>", "__type": "AddedToken"})},
    {"tokenizer_config.json": config(chat_template=SHOW, bos_token="<s>", image_token="<img>", extra_special_tokens={"extra_token": "<x>"})},
    {"tokenizer_config.json": config(chat_template=SHOW, bos_token="<s>", extra_special_tokens=["<x>"], additional_special_tokens=["<img>"])},
    {"tokenizer_config.json": config(chat_template=SHOW, bos_token="<x>"),
     "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {**ADDED["0"], "content": "</s>"}, "pad_token": "<pad>"}},
    {"tokenizer_config.json": config(chat_template=SHOW, bos_token="<x>", added_tokens_decoder=ADDED), "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>"}},
]
CALLS = [{}, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, {"template": "tool_use"}, {"template": "rag"}, {"template": "other-1"}]


def tokenizer_json():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in TOKENS])
    return tokenizer.to_str()


def render(tokenizer, call):
    names = list(tokenizer.chat_template) if isinstance(tokenizer.chat_template, dict) else ["default"]
    # A name that there is not would be taken for a template's text.
    if call.get("template", names[0]) not in names:
        return None
    try:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}], tokenize=False, tools=call.get("tools"),
            chat_template=call.get("template") if len(names) > 1 or isinstance(tokenizer.chat_template, dict) else None,
        )
    except ValueError:
        return None


def main():
    sources = []
    for files in SOURCES:
        with tempfile.TemporaryDirectory() as directory:
            for name, content in {"tokenizer.json": tokenizer_json(), **files}.items():
                path = pathlib.Path(directory) / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(content if isinstance(content, str) else json.dumps(content))
            tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
            sources.append({"files": files, "texts": [render(tokenizer, call) for call in CALLS]})
    OUT.write_text(json.dumps({"tokenizer": json.loads(tokenizer_json()), "calls": CALLS, "sources": sources}, indent=1) + "\n")


if __name__ == "__main__":
    main()
