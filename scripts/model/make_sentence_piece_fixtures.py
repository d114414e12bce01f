#!/usr/bin/env python3
"""Make tests/fixtures/tokenizer/sentence_piece_{NAME}.model, small SentencePiece models with the settings that released ones were trained with, and
sentence_piece.json: the ids and texts that SentencePiece itself gives with them, and what Hugging Face's tokenizers gives with the same pieces and
tables of characters, for a corpus and 10,000 random strings. Of the strings' results only hashes are kept, one for every CHUNK of them."""

import json
import pathlib

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from make_tokenizer_parity_fixtures import CHUNK, CORPUS, SPACE, STRINGS, Random, digest, random_string, training_text

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "tokenizer"
# A table as released ones are, but small: one letter for two, two for one, none, spaces, and rules that begin alike.
RULES = [("\ufb03", "ffi"), ("e\u0301", "\u00e9"), ("e\u0301\u0301", "E"), ("\u200b", ""), ("\u00a0", " "), ("\t", " "), ("\n", " "),
         ("\u3000", "  "), ("\uff01", "!"), ("\u00bd", " 1/2 "), ("ab", "ba"), ("abc", "cba")]
KINDS = {
    "llama": {"byte_fallback": True, "remove_extra_whitespaces": False, "user_defined_symbols": ["<|tool|>", SPACE * 2, SPACE * 4, "\n\n"]},
    "no_prefix": {"byte_fallback": True, "remove_extra_whitespaces": False, "add_dummy_prefix": False},
    "tidy": {"byte_fallback": True, "remove_extra_whitespaces": True},
    "rules": {"byte_fallback": True, "remove_extra_whitespaces": True, "user_defined_symbols": ["abcd", "<sep>"]},
    "unigram": {"model_type": "unigram", "byte_fallback": True, "remove_extra_whitespaces": False, "user_defined_symbols": ["<|tool|>", "the"]},
    "unigram_runs": {"model_type": "unigram", "byte_fallback": True, "remove_extra_whitespaces": False,
                     "user_defined_symbols": ["\n" * n for n in (1, 2, 3, 4, 5, 7, 10, 14, 22)] + ["ab", "aba", "\u00e9", "\u00e9\u00e9"]},
    "word": {"model_type": "word", "vocab_size": 400, "remove_extra_whitespaces": True},
    "word_plain": {"model_type": "word", "vocab_size": 400, "remove_extra_whitespaces": False, "add_dummy_prefix": False, "user_defined_symbols": ["<|tool|>", "the"]},
    "char": {"model_type": "char", "vocab_size": 90, "remove_extra_whitespaces": False, "user_defined_symbols": ["<|tool|>", "the"]},
    "unigram_nmt": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "split_digits": False},
}
OWN_TEXTS = [
    "a<|tool|>b", "<|tool|>", " <|tool|> <|tool|><|tool|>", "the<|tool|>the then thethe", "ab abc abcd abcde <sep> a<sep>b", "\ufb03x e\u0301 e\u0301\u0301 e",
    "a\u00a0\u3000 \u00bd\u200b!\uff01", "\u00a0 x", " \u200b x ", "\u200b", "  \u3000", "one\n\ntwo\n\n\nthree    four  five   six", *["\n" * n for n in (4, 6, 8, 11, 15, 17, 20, 23, 29, 31, 44, 57, 100)],
    "x\n\n\n\n\n\nab\n\n\n", "ababababa", "\u00e9" * 9 + "aba" * 5, "\ufffd\u0915\u094d\u0937 \U0001f469\u200d\U0001f4bb",
]


def write_without_paths(model, path):
    """Writes a model; where it was trained is of no interest."""
    model.trainer_spec.model_prefix = ""
    model.normalizer_spec.normalization_rule_tsv = ""
    path.write_bytes(model.SerializeToString())


def read_model(path):
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def train(name, options):
    settings = {"model_type": "bpe", "normalization_rule_name": "identity", "split_digits": True, "vocab_size": 560, **options}
    if name == "rules":
        path = OUT / "rules.tsv"
        path.write_text("".join(f"{' '.join(f'{ord(c):X}' for c in a)}\t{' '.join(f'{ord(c):X}' for c in b)}\n" for a, b in RULES))
        settings["normalization_rule_tsv"] = str(path)
        del settings["normalization_rule_name"]
    prefix = OUT / f"sentence_piece_{name}"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in training_text() if line.strip()][:400]), model_prefix=str(prefix),
        character_coverage=0.98, num_threads=1, minloglevel=2, allow_whitespace_only_pieces=True, **settings,
    )
    prefix.with_suffix(".vocab").unlink()
    (OUT / "rules.tsv").unlink(missing_ok=True)
    path = prefix.with_suffix(".model")
    model = read_model(path)
    if name in ("tidy", "unigram"):
        # Pieces that training does not make: some that stand only between others.
        for piece in [piece for piece in model.pieces if piece.type == piece.NORMAL and len(piece.piece) > 2][::7]:
            piece.type = piece.UNUSED
    write_without_paths(model, path)
    return sentencepiece.SentencePieceProcessor(model_file=str(path)), model


def own_results(processor, texts):
    """Ids and texts; unknown text, which SentencePiece decodes to a character of its own, is left out."""
    ids = [processor.encode(text) for text in texts]
    unknown = processor.unk_id()
    return {"ids": ids, "decoded": ["" if unknown in one else processor.decode(one) for one in ids]}


def converted(model, byte_fallback):
    """The same pieces in Hugging Face's library, with the steps that transformers' converters for T5 and others give it."""
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in model.pieces], unk_id=0, byte_fallback=byte_fallback))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Nmt(), normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap), normalizers.Replace(Regex(" {2,}"), " "),
    ])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def main():
    random = Random(2463534242)
    strings = [random_string(random) for _ in range(STRINGS)]
    clean = lambda texts: [text for text in texts if "\x00" not in text]
    texts = clean(CORPUS) + OWN_TEXTS
    chunks = [strings[i : i + CHUNK] for i in range(0, STRINGS, CHUNK)]
    kinds, protos = {}, {}
    for name, options in KINDS.items():
        processor, protos[name] = train(name, options)
        hashes = [own_results(processor, clean(chunk)) for chunk in chunks]
        kinds[name] = {**own_results(processor, texts), "random": {part: [digest(one[part]) for one in hashes] for part in ("ids", "decoded")}}
    rust = {}
    for name in ("unigram_nmt", "unigram"):
        table = protos[name] if name == "unigram_nmt" else protos["rules"]
        protos[name].normalizer_spec.precompiled_charsmap = table.normalizer_spec.precompiled_charsmap
        tokenizer = converted(protos[name], byte_fallback=name == "unigram")
        special = ("<unk>", "<s>", "</s>")
        # There a piece is found by its spelling, special or not; texts that spell one are left out.
        ids = lambda texts: [[] if any(token in text for token in special) else encoding.ids for text, encoding in zip(texts, tokenizer.encode_batch(texts))]
        normal = lambda texts: [tokenizer.normalizer.normalize_str(text) for text in texts]
        rust[name] = {
            "normalizer": {"Nmt": True, "table": "unigram_nmt" if name == "unigram_nmt" else "rules"},
            "texts": CORPUS + OWN_TEXTS, "normalized": normal(CORPUS + OWN_TEXTS), "ids": ids(CORPUS + OWN_TEXTS),
            "random": {"normalized": [digest(normal(chunk)) for chunk in chunks], "ids": [digest(ids(chunk)) for chunk in chunks]},
        }
    value = {
        "made_with": {"sentencepiece": sentencepiece.__version__, "tokenizers": tokenizers.__version__},
        "strings": STRINGS, "chunk": CHUNK, "texts": texts, "kinds": kinds, "rust": rust,
    }
    (OUT / "sentence_piece.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
