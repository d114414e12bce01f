#!/usr/bin/env python3
"""Write tests/fixtures/gguf_pre_tokenizers.json: how Hugging Face tokenizers cuts texts with the pre-tokenizers that names in GGUF files stand for, as the
tokenizer.json of the releases describe them. Of each text a digest of its pieces, and for a few texts the pieces.
"""

import tokenizers
from tokenizers import Regex, pre_tokenizers

from make_fixtures import FIXTURES, write_json
from make_tokenizer_parity_fixtures import CORPUS, DEEPSEEK, DEEPSEEK_CJK, LLAMA3, O200K, QWEN, TEKKEN, Random, byte_level, digest, random_string, split

QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# moonshotai/Kimi-K2-Instruct, tokenization_kimi.py, with Oniguruma's spelling of a class less another.
KIMI_UPPER, KIMI_LOWER = (f"(?:(?!\\p{{Han}}){kinds})" for kinds in (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"))
ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
KIMI = "|".join([
    r"\p{Han}+", rf"[^\r\n\p{{L}}\p{{N}}]?{KIMI_UPPER}*{KIMI_LOWER}+{ENDING}", rf"[^\r\n\p{{L}}\p{{N}}]?{KIMI_UPPER}+{KIMI_LOWER}*{ENDING}",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])
# The first and the last letter of each range of scripts that have capitals; some of them normalization would change.
CASED = [
    0x41, 0x5a, 0x61, 0x7a, 0xb5, 0xb5, 0xc0, 0xd6, 0xd8, 0xf6, 0xf8, 0x1ba, 0x1bc, 0x1bf, 0x1c4, 0x293, 0x295, 0x2af,
    0x370, 0x373, 0x376, 0x377, 0x37b, 0x37d, 0x37f, 0x37f, 0x386, 0x386, 0x388, 0x38a, 0x38c, 0x38c, 0x38e, 0x3a1, 0x3a3, 0x3f5,
    0x3f7, 0x481, 0x48a, 0x52f, 0x531, 0x556, 0x10a0, 0x10c5, 0x13a0, 0x13f5, 0x13f8, 0x13fd, 0x1c90, 0x1cba, 0x1cbd, 0x1cbf, 0x1d00, 0x1d2b,
    0x1d6b, 0x1d77, 0x1d79, 0x1d9a, 0x1e00, 0x1f15, 0x1f18, 0x1f1d, 0x1f20, 0x1f45, 0x1f48, 0x1f4d, 0x1f50, 0x1f57, 0x1f59, 0x1f59, 0x1f5b, 0x1f5b,
    0x1f5d, 0x1f5d, 0x1f5f, 0x1f7d, 0x1f80, 0x1fb4, 0x1fb6, 0x1fbc, 0x1fbe, 0x1fbe, 0x1fc2, 0x1fc4, 0x1fc6, 0x1fcc, 0x1fd0, 0x1fd3, 0x1fd6, 0x1fdb,
    0x1fe0, 0x1fec, 0x1ff2, 0x1ff4, 0x1ff6, 0x1ffc, 0x2102, 0x2102, 0x2107, 0x2107, 0x210a, 0x2113, 0x2115, 0x2115, 0x2119, 0x211d, 0x2124, 0x2124,
    0x2126, 0x2126, 0x2128, 0x2128, 0x212a, 0x212d, 0x212f, 0x2134, 0x2139, 0x2139, 0x213c, 0x213f, 0x2145, 0x2149, 0x214e, 0x214e, 0x2183, 0x2184,
    0x2c00, 0x2c7b, 0x2c7e, 0x2ce4, 0x2ceb, 0x2cee, 0x2cf2, 0x2cf3, 0xa640, 0xa66d, 0xa680, 0xa69b, 0xa722, 0xa76f, 0xa771, 0xa787, 0xa78b, 0xa78e,
    0xab70, 0xabbf, 0xfb00, 0xfb06, 0xfb13, 0xfb17, 0xff21, 0xff3a, 0xff41, 0xff5a, 0x10400, 0x1044f, 0x104b0, 0x104d3, 0x104d8, 0x104fb, 0x10c80, 0x10cb2,
    0x10cc0, 0x10cf2, 0x118a0, 0x118df, 0x1e900, 0x1e943,
]


def class_of(*bounds):
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(bounds[::2], bounds[1::2]))


PUNCTUATION = class_of(0x21, 0x2F, 0x3A, 0x7E, 0xFF01, 0xFF0F, 0xFF1A, 0xFF5E, 0x2018, 0x201F, 0x3000, 0x3002)
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
DIGITS = pre_tokenizers.Digits(True)

KINDS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "llama-bpe": byte_level(split(LLAMA3)),
    "glm4": byte_level(split(LLAMA3)),
    "dbrx": byte_level(split(LLAMA3)),
    "qwen2": byte_level(split(QWEN)),
    "stablelm2": byte_level(split(QWEN)),
    "qwen35": byte_level(split(QWEN35)),
    "starcoder": byte_level(DIGITS, regex=True),
    "refact": byte_level(DIGITS, regex=True),
    "smollm": byte_level(DIGITS, regex=True),
    "command-r": byte_level(DIGITS, regex=True),
    "falcon": pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False, use_regex=True), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]"),
    ]),
    "tekken": byte_level(split(TEKKEN)),
    "gpt-4o": byte_level(split(O200K)),
    "llama4": byte_level(split(O200K)),
    "kimi-k2": byte_level(split(KIMI)),
    "deepseek-v3": byte_level(split(r"\p{N}{1,3}"), split(DEEPSEEK_CJK), split(DEEPSEEK)),
    "deepseek-llm": byte_level(
        split("[\r\n]"), split(rf"\s?[{class_of(*CASED)}]+"), split(rf"\s?[{PUNCTUATION}]+"), split(r"\s+$"), split(CJK), DIGITS
    ),
    "deepseek-coder": byte_level(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CJK), DIGITS),
}

random = Random(2463534242)
texts = CORPUS + [random_string(random) for _ in range(2000)]
kinds = {}
for name, kind in KINDS.items():
    pieces = [[piece for piece, _ in kind.pre_tokenize_str(text)] for text in texts]
    kinds[name] = {"first": pieces[12:15], "corpus": digest(pieces[: len(CORPUS)]), "random": digest(pieces[len(CORPUS) :])}
write_json(
    FIXTURES / "gguf_pre_tokenizers.json",
    {"made_with": {"tokenizers": tokenizers.__version__}, "corpus": CORPUS, "strings": 2000, "kinds": kinds},
)
