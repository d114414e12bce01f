#!/usr/bin/env python3
"""Make tests/fixtures/tokenizer/tiktoken.json: a small vocabulary, and what tiktoken gives with it and with the patterns of Kimi K2 and GLM-4-9B, which
are in code that was published with these models, for a corpus and 10,000 random strings. Of the strings' tokens only hashes are kept."""

import base64
import json
import pathlib

import tiktoken
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from make_tokenizer_parity_fixtures import CHUNK, CORPUS, QWEN, STRINGS, Random, byte_level, digest, random_string, split, training_text

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "tokenizer" / "tiktoken.json"
GLM4 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")
# moonshotai/Kimi-K2-Instruct, tokenization_kimi.py
NO_HAN = r"&&[^\p{Han}]"
UPPER, LOWER = rf"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{NO_HAN}]", rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{NO_HAN}]"
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
KIMI = "|".join([
    r"[\p{Han}]+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDING}", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDING}", r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])
OWN_TEXTS = ["\u4e2d\u6587English\u6df7\u5408", "\u6c49\u5b57abc\u5317\u4eac\u5e02 Pascal", "x\u4e2d's It's IT'S camelCase ABCdef", "\u3007\u3005\u3006 \u30ab\u4e2d"]


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level(split(GLM4))
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(training_text() + OWN_TEXTS * 3, trainer)
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    ranks = {bytes(alphabet[character] for character in token): rank for token, rank in vocab.items()}
    random = Random(2463534242)
    strings = [random_string(random) for _ in range(STRINGS)]
    texts = CORPUS + OWN_TEXTS
    kinds = {}
    for name, pattern in (("TikTokenTokenizer", KIMI), ("ChatGLM4Tokenizer", GLM4)):
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        ids = lambda texts: [encoding.encode_ordinary(text) for text in texts]
        kinds[name] = {"ids": ids(texts), "random": [digest(ids(strings[i : i + CHUNK])) for i in range(0, STRINGS, CHUNK)]}
    file = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    value = {
        "made_with": {"tiktoken": tiktoken.__version__, "tokenizers": tokenizers.__version__},
        "strings": STRINGS, "chunk": CHUNK, "file": file, "texts": texts, "kinds": kinds,
    }
    OUT.write_text(json.dumps(value, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
