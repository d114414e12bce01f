#!/usr/bin/env python3
"""Make tests/fixtures/tokenizer/{NAME}.model, small SentencePiece models with the settings that Llama and others were trained with, and
sentence_piece.json, the ids and texts that SentencePiece itself gives with them."""

import json
import pathlib

import sentencepiece

from make_tokenizer_parity_fixtures import CORPUS, Random, random_string, training_text

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "tokenizer"
KINDS = {
    "llama": {"byte_fallback": True, "remove_extra_whitespaces": False, "user_defined_symbols": ["<|tool|>"]},
    "no_prefix": {"byte_fallback": True, "remove_extra_whitespaces": False, "add_dummy_prefix": False},
    "tidy": {"byte_fallback": True, "remove_extra_whitespaces": True},
    "refused_unigram": {"byte_fallback": True, "model_type": "unigram"},
    "refused_table": {"byte_fallback": True, "normalization_rule_name": "nfkc"},
}


def train(name, options):
    settings = {"model_type": "bpe", "normalization_rule_name": "identity", "split_digits": True, "vocab_size": 560, **options}
    prefix = OUT / f"sentence_piece_{name}"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in training_text() if line.strip()][:400]), model_prefix=str(prefix),
        character_coverage=0.98, num_threads=1, minloglevel=2, allow_whitespace_only_pieces=True, **settings
    )
    prefix.with_suffix(".vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(prefix.with_suffix(".model")))


def main():
    random = Random(2463534242)
    texts = [text for text in CORPUS if "\x00" not in text] + [text for text in (random_string(random) for _ in range(150)) if "\x00" not in text]
    results = {}
    for name, options in KINDS.items():
        processor = train(name, options)
        if name == "refused_table":
            # The table itself is large; that there is one is all that is read of it.
            path = OUT / f"sentence_piece_{name}.model"
            path.write_bytes(b"\n\x05\n\x03abc\x12\x02\x18\x02\x1a\x06\n\x04nfkc")
        if not name.startswith("refused"):
            ids = [processor.encode(text) for text in texts]
            results[name] = {"ids": ids, "decoded": [processor.decode(one) for one in ids]}
    value = {"made_with": {"sentencepiece": sentencepiece.__version__}, "texts": texts, "kinds": results}
    (OUT / "sentence_piece.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
