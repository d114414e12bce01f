#!/usr/bin/env python3
"""Write tests/fixtures/architectures/chatglm/first: a tiny random checkpoint of the first ChatGLM and what its published code computes from it; and
tests/fixtures/tokenizer/chatglm*: small SentencePiece models and what the published tokenizers of ChatGLM 1 and 3 make of them.

transformers has no code for these. The reference is what was published with the weights: modeling_chatglm.py, configuration_chatglm.py and
tokenization_chatglm.py of THUDM/chatglm-6b on the Hugging Face hub at commit 8b7d33596d18c5e83e2da052d05ca4db02e60620, and
tokenization_chatglm.py of THUDM/chatglm3-6b at commit 456aa875cf1f46623006edaa23103774ea9c0eae. Get them, read them, and name the folders:

    make_chatglm_fixtures.py FOLDER FOLDER_3
"""

import argparse
import hashlib
import importlib
import json
import pathlib
import shutil
import sys
import types

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file

from make_architecture_fixtures import OUT, VOCABULARY, Fixture, random_weights, write_config
from make_fixtures import FIXTURES, float32_list, tensor_json, versions, write_json
from make_sentence_piece_fixtures import read_model, write_without_paths
from make_tokenizer_parity_fixtures import CORPUS, training_text

TOKENIZERS = FIXTURES / "tokenizer"

SHA256 = {
    "modeling_chatglm.py": "e77d33a0354ab0948d54f953708d09baa7345966f2fb73df749e8fe5352863eb",
    "tokenization_chatglm.py": "b52a2d87f05cd3919ba6401e6be1a82b99cd91609fbc562fea407f000dc9f873",
    "configuration_chatglm.py": "942977b9f878be607345860a88d2fc74a75256e91d0e14ef40391818352c359b",
}
SHA256_3 = "f3e7e26af20b222d107f888a3db305a1a25ea74c16952d36257e0e606d1780f6"
MASK, GMASK, START, END = VOCABULARY - 4, VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1
CONFIG = dict(
    bos_token_id=START, eos_token_id=END, mask_token_id=MASK, gmask_token_id=GMASK, pad_token_id=3, hidden_size=32,
    inner_hidden_size=48, layernorm_epsilon=1e-05, max_sequence_length=128, num_attention_heads=4, num_layers=2,
    position_encoding_2d=True, torch_dtype="float16", use_cache=True, vocab_size=VOCABULARY,
)


def package(name, folder, hashes):
    """Makes a folder's modules importable, once they are known to be those that were read."""
    for file, expected in hashes.items():
        found = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        if found != expected:
            sys.exit(f"{folder / file} is another file than this script was written for")
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module
    return lambda part: importlib.import_module(f"{name}.{part}_chatglm")


def published(folder):
    """Imports the published code, of which nothing but the model is used."""
    module = package("published", folder, SHA256)
    return module("configuration").ChatGLMConfig(**CONFIG), module("modeling").ChatGLMForConditionalGeneration


def load_float32(folder, path):
    config, model_class = published(folder)
    model = model_class(config, empty_init=False).float()
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    assert not missing and all("inv_freq" in name for name in unexpected), (missing, unexpected)
    # As transformers did after it had loaded the weights, the config's tie_word_embeddings being true without a word.
    model.lm_head.weight = model.transformer.word_embeddings.weight
    return model.eval()


@torch.no_grad()
def greedy(model, prompt, new_tokens):
    """Prefill in one pass, then cached steps of one token, with the masks and positions that the published code gives each."""
    ids, cache, logits, gaps = list(prompt), None, [], []
    for _ in range(new_tokens):
        inputs = model.prepare_inputs_for_generation(torch.tensor([ids]), past=cache)
        output = model(input_ids=inputs["input_ids"], past_key_values=inputs["past_key_values"], position_ids=inputs["position_ids"],
                       attention_mask=inputs["attention_mask"], use_cache=True, return_dict=True)
        cache = output.past_key_values
        logits.append(output.logits[0])
        top = logits[-1][-1].topk(2)
        ids.append(top.indices[0].item())
        gaps.append((top.values[0] - top.values[1]).item())
    return logits[0], ids[len(prompt):], torch.cat(logits[1:]), gaps


def clear_case(folder, path, make_prompt, candidates=32, new_tokens=32, decode_steps=4):
    """Of some random prompts, the one whose greedy path is clearest and not a short loop."""
    model = load_float32(folder, path)
    prompts = [make_prompt() for _ in range(candidates)]
    results = [greedy(model, prompt, new_tokens) for prompt in prompts]
    best = max(range(candidates), key=lambda i: (min(len(set(results[i][1])), 7), min(results[i][3])))
    prompt_logits, tokens, steps, gaps = greedy(load_float32(folder, path), prompts[best], new_tokens)
    return {
        "prompt_ids": prompts[best], "prompt_logits": tensor_json(prompt_logits), "greedy_ids": tokens,
        "decode_logits": tensor_json(steps[:decode_steps]), "margin": min(gaps), "margins": float32_list(torch.tensor(gaps)),
    }


WHITESPACE = ["<n>", "<|tab|>", *(f"<|blank_{count}|>" for count in range(80, 1, -1))]
CONTROL = ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
TEXTS = [
    "a  b   c    d", " " * 17 + "x" + "\n" * 3 + "\t" * 5, "  x", " " * 80 + "y", " " * 81 + "y", " " * 161, "\n", "one\n two\n\n  three",
    "[Round 0]\n\u95ee\uff1a\u4f60\u597d\n\u7b54\uff1a",
]


def tokenizers(first, third):
    texts = [text for text in CORPUS if "\x00" not in text] + TEXTS
    results = {}
    for name, folder, hashes, options in (
        ("chatglm_1", first, SHA256, {"user_defined_symbols": WHITESPACE + CONTROL, "vocab_size": 800}),
        ("chatglm_3", third, {"tokenization_chatglm.py": SHA256_3}, {"vocab_size": 600}),
    ):
        prefix = TOKENIZERS / name
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([line for line in training_text() if line.strip()][:400]), model_prefix=str(prefix), byte_fallback=True,
            character_coverage=0.98, num_threads=1, minloglevel=2, model_type="bpe", normalization_rule_name="identity",
            remove_extra_whitespaces=False, **options,
        )
        prefix.with_suffix(".vocab").unlink()
        write_without_paths(read_model(prefix.with_suffix(".model")), prefix.with_suffix(".model"))
        path = str(prefix.with_suffix(".model"))
        tokenizer = package(f"{name}_published", folder, hashes)("tokenization").SPTokenizer(path, **({"num_image_tokens": 7} if name == "chatglm_1" else {}))
        ids = [tokenizer.encode(text) for text in texts]
        results[name] = {"texts": texts, "ids": ids, "decoded": [tokenizer.decode(one) for one in ids]}
        if name == "chatglm_3":
            results[name]["special_tokens"] = tokenizer.special_tokens
    write_json(TOKENIZERS / "chatglm.json", {"made_with": versions(sentencepiece), **results})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("folder_3", type=pathlib.Path)
    arguments = parser.parse_args()
    folder = arguments.folder
    tokenizers(folder, arguments.folder_3)
    transformers.logging.set_verbosity_error()
    directory = OUT / "chatglm" / "first"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config, model_class = published(folder)
    model = model_class(config, empty_init=False).float()
    model.lm_head.weight = model.transformer.word_embeddings.weight
    random_weights(model, Fixture(config, embedding_std=0.3), seed=2103)
    for name, parameter in model.named_parameters():
        # What sublayers add must weigh something against the scaled residual, else a token predicts itself forever.
        if name.endswith(("attention.dense.weight", "mlp.dense_4h_to_h.weight")):
            parameter.data *= 8
    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    # The releases hold the head beside the embedding that it is tied to, and frequencies that are not read.
    tensors["lm_head.weight"] = tensors["transformer.word_embeddings.weight"].clone()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    write_config(directory / "config.json", dict(model_type="chatglm", architectures=["ChatGLMModel"], **CONFIG))

    generator = torch.Generator().manual_seed(2103)
    words = lambda count: torch.randint(4, MASK, (count,), generator=generator).tolist()
    makers = [
        lambda: [*words(3), GMASK, START],
        # A blank in the middle of a text, and a prompt that has begun to fill it.
        lambda: [*words(7), MASK, *words(4), START, *words(3)],
    ]
    cases = [clear_case(folder, directory / "model.safetensors", make) for make in makers]
    write_json(directory / "expected.json", {"made_with": versions(transformers, torch), "cases": cases})
    for case in cases:
        print(f"margin {case['margin']:.4f}, distinct tokens {len(set(case['greedy_ids']))}")


if __name__ == "__main__":
    main()
