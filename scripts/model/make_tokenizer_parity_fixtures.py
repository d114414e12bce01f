#!/usr/bin/env python3
"""Make tests/fixtures/tokenizer/parity.json: small tokenizers with the normalizers, pre-tokenizers, post-processors and decoders of
released families, and what Hugging Face's tokenizers library gives with them for a corpus and for 10,000 random strings. The strings
come from a generator that tests/tokenizer/random_strings.ts repeats; of their tokens and decoded texts only hashes are kept, one for
every CHUNK of them. Training breaks ties by chance and gives other vocabularies each time, and with them other results: those of the
committed file are kept, unless --train asks for new ones."""

import hashlib
import json
import pathlib
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "fixtures" / "tokenizer" / "parity.json"
SPACE = "\u2581"
STRINGS, CHUNK = 10_000, 500

CORPUS = [
    "", " ", "  ", "\n", "\r\n", "\t", " \n ", "\n\n\n", "a", " a", "a ", "Hello, world!", "  leading and trailing  ", "a  b   c    d",
    "The quick brown fox jumps over the lazy dog. It's the reader's; they've said I'll, we'd, I'M, YOU'RE, don'T.",
    "Pi is 3.14159, 1234567890, 1,000,000 and 0x1F4A9; 50% of $20 = \u20ac10 \u00bd \u2460 \u0663\u0664 \u00b2",
    "def f(x: int) -> str:\n    if x > 0:\n\t\treturn f\"{x!r}\\n\"  # comment\n    return ''\n\n\nclass A(B):\n    pass\n",
    "for (let i = 0; i < n; i++) { a[i] ??= b?.c && !d; } /* x */ // y\r\n<div class=\"a-b\">&amp;</div>",
    "SELECT * FROM t WHERE a='b' AND c<>5;--x\n\n\n\n{\"k\":[1,2.5,null,true]}",
    "na\u00efve caf\u00e9 \u00c5ngstr\u00f6m \u00fcber stra\u00dfe \u0152uvre \u0131\u0130 \u01c4 \ufb01 e\u0301 A\u030a \u1e69 \u1e9b\u0323",
    "\u0427\u0442\u043e \u0442\u0430\u043a\u043e\u0435 \u0441\u0442\u043e\u043b\u0438\u0446\u0430? \u042d\u0442\u043e \u041c\u043e\u0441\u043a\u0432\u0430.",
    "\u0391\u03b8\u03ae\u03bd\u03b1 \u1f08\u03b8\u1fc6\u03bd\u03b1\u03b9 \u03a3\u03c3\u03c2", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064e\u062a\u064e\u0628\u064e \u06f1\u06f2\u06f3", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0915\u094d\u0937 \u0967\u0968\u0969",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4eca\u5929\u5929\u6c14\u600e\u4e48\u6837\uff1f\u6211\u5728123\u53f7\u3002", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002\u30ab\u30bf\u30ab\u30ca\u30fc\uff76\uff9e",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4 \u1112\u1161\u11ab", "\U0001f642\U0001f600 \U0001f469\u200d\U0001f4bb \U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd \u2603\ufe0e", "\u2026\u2014\u2013\u201cquoted\u201d \u2018x\u2019 \u00abg\u00bb \u3010k\u3011",
    "\u00a0nbsp\u2003em\u3000wide\u200bzw\ufeffbom\u2028ls\u0085nel\x0bvt\x0cff\x1cfs", "\x00\x01\x1f\x7f\u0080\u009f\ufffd\ufffe\ue000\U0010ffff\U000e0001",
    "!!!???...;;;--- ***bold*** __init__ ~~x~~ `code` ```\nblock\n```", "https://example.com/a?b=c&d=%20#e user@mail.org C:\\path\\to", "a\u0300\u0301\u0302b\u0303", "\u2581under\u2581lined\u2581 \u2581",
    "<s>not special</s> <|endoftext|> <unk> [CLS] [MASK]x", "x<|im_start|>user\nhi<|im_end|>\n", "<0x41><0x0A>", "\u01c5\u02b0\u00aa\u00ba\u2160\u216f\u3007", "aaaa" * 20, " " * 17 + "x" + "\n" * 9 + "\t" * 5,
]

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K_WORDS = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*%s"
O200K_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = O200K_WORDS % ("", "") + r"|\p{N}" + O200K_REST
O200K = O200K_WORDS % (("(?i:'s|'t|'re|'ve|'m|'ll|'d)?",) * 2) + r"|\p{N}{1,3}" + O200K_REST
DEEPSEEK_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
DEEPSEEK = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SEED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
EXAONE_MOE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
    r"|\s+(?!\S)|\s+"
)
# Kimi's pattern takes ideographs out of the classes of letters.
UPPER_HAN, LOWER_HAN = UPPER[:-1] + r"&&[^\p{Han}]]", LOWER[:-1] + r"&&[^\p{Han}]]"
KIMI = r"[\p{Han}]+|" + O200K.replace(UPPER, UPPER_HAN).replace(LOWER, LOWER_HAN).replace("[\\r\\n/]*", "[\\r\\n]*")
# What cl100k_base's pattern is in the library's spelling: possessive, so that it never goes back.
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
DEEPSEEK_LLM_LETTERS = (
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f"
    "\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd]+"
)
GROUPS_OF_THREE = r"\d{1,3}(?=(?:\d{3})*\b)"
GLM4 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(*before, prefix=False, regex=False):
    return pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)])


def sentence_piece_decoder(*steps):
    return decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *steps])


def training_text():
    kjv = (ROOT / "models" / "kjv-5m" / "heldout.txt").read_text()[:60_000].split("\n")
    return kjv + CORPUS * 3


def kept(kind):
    """Returns the committed vocabulary that a kind uses, None where there is none."""
    if "--train" in sys.argv or not OUT.exists():
        return None
    value = json.loads(OUT.read_text())
    return value["vocabularies"][value["kinds"][kind]["vocabulary"]]


def train_byte_level():
    if model := kept("llama-3"):
        return model["vocab"], [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level(split(LLAMA3))
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(training_text(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def train_sentence_piece():
    if model := kept("llama-2"):
        return model["vocab"], [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    alphabet = [chr(code) for code in range(32, 127)]
    tokenizer.train_from_iterator(training_text(), trainers.BpeTrainer(vocab_size=800, limit_alphabet=200, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += [SPACE * 2, SPACE * 4, "\n", "\n\n", "\t"] + [piece for piece in sorted(model["vocab"], key=model["vocab"].get)]
    merges = [(SPACE, SPACE), (SPACE * 2, SPACE * 2), ("\n", "\n")] + [tuple(merge) for merge in model["merges"]]
    return {piece: id for id, piece in enumerate(dict.fromkeys(pieces))}, merges


def train_unigram():
    if model := kept("unigram"):
        return [tuple(entry) for entry in model["vocab"]]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(training_text(), trainer)
    return [tuple(entry) for entry in json.loads(tokenizer.to_str())["model"]["vocab"]]


def train_word_piece():
    if model := kept("bert"):
        return model["vocab"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(training_text(), trainers.WordPieceTrainer(vocab_size=700, limit_alphabet=200, special_tokens=special, show_progress=False))
    return json.loads(tokenizer.to_str())["model"]["vocab"]


def bos(token, id):
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, id)])


def build():
    """Returns the tokenizers by kind."""
    vocab, merges = train_byte_level()
    first = len(vocab)

    def gpt(pre_tokenizer, normalizer=None, ignore_merges=False, tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), begin=False):
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
        tokenizer.pre_tokenizer = pre_tokenizer
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
        steps = [processors.ByteLevel(trim_offsets=False)] + ([bos(tokens[0], first)] if begin else [])
        tokenizer.post_processor = processors.Sequence(steps)
        return tokenizer

    sp_vocab, sp_merges = train_sentence_piece()

    def sentence_piece(normalizer, pre_tokenizer, decoder, tokens=(), **options):
        tokenizer = Tokenizer(models.BPE(vocab=sp_vocab, merges=sp_merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        if pre_tokenizer is not None:
            tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoder
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>", "</s>")])
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False, **options) for token in tokens])
        tokenizer.post_processor = bos("<s>", 1)
        return tokenizer

    unigram = Tokenizer(models.Unigram(vocab=train_unigram(), unk_id=0, byte_fallback=False))
    unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    unigram.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    unigram.add_special_tokens(["<unk>", "<s>", "</s>"])
    unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])

    word_piece = Tokenizer(models.WordPiece(vocab=train_word_piece(), unk_token="[UNK]"))
    word_piece.normalizer = normalizers.BertNormalizer()
    word_piece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    word_piece.decoder = decoders.WordPiece()
    word_piece.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    word_piece.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])

    older = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    strip = decoders.Strip(" ", 1, 0)

    def gemma3():
        """Gemma 3 has runs of lines and of spaces as tokens that are not special."""
        tokenizer = sentence_piece(normalizers.Replace(" ", SPACE), pre_tokenizers.Split(" ", "merged_with_previous"), sentence_piece_decoder())
        runs = ["\n" * n for n in (2, 3, 5)] + [SPACE * n for n in (2, 3, 4)] + ["<unused0>", "<td>", "</td>"]
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in runs])
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<start_of_turn>", "<end_of_turn>")])
        return tokenizer

    return {
        "llama-3": gpt(byte_level(split(LLAMA3)), ignore_merges=True, tokens=("<|begin_of_text|>", "<|eot_id|>"), begin=True),
        "qwen2": gpt(byte_level(split(QWEN)), normalizers.NFC()),
        "glm-4": gpt(byte_level(split(GLM4))),
        "deepseek-v3": gpt(byte_level(split(r"\p{N}{1,3}"), split(DEEPSEEK_CJK), split(DEEPSEEK)), tokens=("<\uff5cbegin\u2581of\u2581sentence\uff5c>",), begin=True),
        "deepseek-coder": gpt(byte_level(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), pre_tokenizers.Digits(True))),
        "mistral-nemo": gpt(byte_level(split(TEKKEN)), ignore_merges=True, tokens=("<s>", "[INST]", "[/INST]"), begin=True),
        "gpt-oss": gpt(byte_level(split(O200K)), tokens=("<|startoftext|>", "<|start|>", "<|message|>", "<|end|>")),
        "qwen3.5": gpt(byte_level(split(QWEN35)), normalizers.NFC()),
        "kimi-k2": gpt(byte_level(split(KIMI)), ignore_merges=True, tokens=("[BOS]", "[EOS]", "<|im_end|>", "<|im_middle|>")),
        "deepseek-v2": gpt(byte_level(split("[\r\n]"), split(DEEPSEEK_LLM_LETTERS), split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
                                      split("\\s+$"), split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), pre_tokenizers.Digits(True))),
        "seed-oss": gpt(byte_level(split(SEED)), ignore_merges=True, tokens=("<seed:bos>", "<seed:eos>")),
        "exaone-moe": gpt(byte_level(split(EXAONE_MOE))),
        "tiny-aya": gpt(byte_level(split(GROUPS_OF_THREE), split(O200K)), normalizers.NFC()),
        "cl100k": gpt(byte_level(split(CL100K))),
        "phi-4": gpt(byte_level(split(LLAMA3)), tokens=("<|endoftext|>", "<|im_start|>", "<|im_sep|>")),
        "gpt2": gpt(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)),
        "gpt2-prefix": gpt(pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)),
        "starcoder2": gpt(byte_level(pre_tokenizers.Digits(True), regex=True)),
        "falcon": gpt(pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False, use_regex=True), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")])),
        "command-r": gpt(byte_level(pre_tokenizers.Digits(True), regex=True), normalizers.NFC()),
        "llama-2": sentence_piece(older, None, sentence_piece_decoder(strip)),
        "mistral-v0.3": sentence_piece(None, pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False), sentence_piece_decoder(strip)),
        "phi-3": sentence_piece(older, None, sentence_piece_decoder(strip), tokens=("<|user|>", "<|end|>"), rstrip=True),
        "gemma": sentence_piece(normalizers.Replace(" ", SPACE), pre_tokenizers.Split(" ", "merged_with_previous"), sentence_piece_decoder()),
        "gemma-3": gemma3(),
        "metaspace-split": sentence_piece(None, pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True), decoders.Metaspace(SPACE, prepend_scheme="always")),
        "unigram": unigram,
        "bert": word_piece,
    }


class Random:
    """xorshift32, as tests/tokenizer/random_strings.ts has it."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        x = self.state
        x ^= (x << 13) & 0xFFFFFFFF
        x ^= x >> 17
        x ^= (x << 5) & 0xFFFFFFFF
        self.state = x
        return x % n


WORDS = ["the", " and", "'s", "'LL", "http://", "  ", "\n\n", "\r\n", " \t", "123", "4567", "()", "{\n", "</", "na\u00efve", " \u4f60\u597d", "\U0001f469\u200d\U0001f4bb", "\u2581", "<s>", "<|end|>", "[INST]", "e\u0301", "\u00a0", "...", "-->", " don't", "A", "\u0130", "\u1e9e", "\ufb03", "\u0000"]
RANGES = [(32, 126), (32, 126), (97, 122), (48, 57), (9, 13), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x2000, 0x206F), (0x2190, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFD), (0x1F300, 0x1FAFF), (0, 0x10FFFF)]


def random_string(random):
    parts = []
    for _ in range(random.below(16)):
        if random.below(3) == 0:
            parts.append(WORDS[random.below(len(WORDS))])
            continue
        low, high = RANGES[random.below(len(RANGES))]
        code = low + random.below(high - low + 1)
        # Surrogates are no characters; the others became characters after the Unicode tables of the Rust library were made.
        none = 0xD800 <= code <= 0xDFFF or 0x1CC00 <= code <= 0x1CEBF or code == 0x61D
        parts.append(chr(0x20 + code % 64 if none else code))
    return "".join(parts)


def digest(value):
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()[:12]


def results(tokenizer, texts, left_out=()):
    """Encodes and decodes texts, special tokens taken as such and, where users write, as text. Unigram finds special tokens in any text by
    their spelling; texts that hold one are left out there."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    tokenizer.encode_special_tokens = True
    untrusted = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    tokenizer.encode_special_tokens = False
    untrusted = [[] if any(token in text for token in left_out) else ids for text, ids in zip(texts, untrusted)]
    decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
    skipped = tokenizer.decode_batch(ids, skip_special_tokens=True)
    return {"ids": ids, "untrusted": untrusted, "decoded": decoded, "skipped": skipped}


def main():
    random = Random(2463534242)
    strings = [random_string(random) for _ in range(STRINGS)]
    pool, kinds = {}, {}
    for name, tokenizer in build().items():
        description = json.loads(tokenizer.to_str())
        # Equal vocabularies are kept once.
        model = description.pop("model")
        parts = {key: model.pop(key) for key in ("vocab", "merges") if key in model}
        key = digest(parts)
        pool[key] = parts
        left_out = [token["content"] for token in description["added_tokens"]] if name == "unigram" else []
        corpus = results(tokenizer, CORPUS, left_out)
        chunks = [results(tokenizer, strings[i : i + CHUNK], left_out) for i in range(0, STRINGS, CHUNK)]
        kinds[name] = {
            "tokenizer": description,
            "model": model,
            "vocabulary": key,
            "untrusted_leaves_out": left_out,
            "corpus": {"ids": corpus["ids"], **{part: digest(corpus[part]) for part in ("untrusted", "decoded", "skipped")}},
            "random": {part: [digest(chunk[part]) for chunk in chunks] for part in ("ids", "untrusted", "decoded", "skipped")},
        }
    value = {
        "made_with": {"tokenizers": tokenizers.__version__},
        "strings": STRINGS, "chunk": CHUNK, "strings_sha256": digest(strings),
        "corpus": CORPUS, "vocabularies": pool, "kinds": kinds,
    }
    OUT.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
