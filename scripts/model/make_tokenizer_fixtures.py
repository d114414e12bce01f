#!/usr/bin/env python3
"""Make tests/fixtures/tokenizer/{prepend,metaspace}.json: tiny tokenizers as Llama 1 and 2 have them, and what Hugging Face's
tokenizers library gives for texts and tokens. One has the older layout (a normalizer that writes spaces as U+2581), the other the
newer one (the Metaspace pre-tokenizer and decoder)."""

import json
import pathlib

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "tokenizer"
SPACE = "\u2581"
CORPUS = (
    "the quick brown fox jumps over the lazy dog and then the dog chases the fox over the hill until the sun goes down "
    "in the beginning was the word and the word was with the reader there and then another other mother brother "
    "Hello hello World world. What is the capital? It is there! one two three, 1 2 3"
).split(" ")
TEXTS = [
    "", " ", "  ", "Hello world", " Hello world", "  two  spaces  ", "the end.", "tab\tand\nnew line", "caf\u00e9 na\u00efve",
    "\U0001f642", "\U0001f469\u200d\U0001f4bb ok", "\u4f60\u597d", "<s>", "a</s>b", "</s> b", "x <0x41> y", "\u2581the", "<unk>",
    "e\u0301", "the" * 20, "\u0000", "a\u00a0b",
]


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = [SPACE + word for word in CORPUS for _ in range(3)]
    tokenizer.train_from_iterator(words, trainers.BpeTrainer(vocab_size=220, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    vocab = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    # SentencePiece's order: pieces by merge, then single characters.
    vocab += [token for token in sorted(model["vocab"], key=model["vocab"].get) if len(token) > 1]
    vocab += sorted(token for token in model["vocab"] if len(token) == 1)
    return {token: id for id, token in enumerate(vocab)}, merges


def build(vocab, merges, layout):
    model = models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tail = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if layout == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
        tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " ")] + tail)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="first")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", vocab["<s>"])]
    )
    return tokenizer


def cases(tokenizer):
    result = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = True
        untrusted = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = False
        result.append({
            "text": text, "ids": ids, "untrusted": untrusted,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_skip_special_tokens": tokenizer.decode(ids, skip_special_tokens=True),
        })
    return result


def main():
    vocab, merges = train()
    for layout in ("prepend", "metaspace"):
        tokenizer = build(vocab, merges, layout)
        # How transformers decodes must be how the bare library decodes.
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
        made = cases(tokenizer)
        assert all(fast.decode(c["ids"], skip_special_tokens=True) == c["decoded_skip_special_tokens"] for c in made)
        value = {
            "made_with": {"tokenizers": tokenizers.__version__},
            "tokenizer": json.loads(tokenizer.to_str()),
            "tokenizer_config": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
            "cases": made,
        }
        (OUT / f"{layout}.json").write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
