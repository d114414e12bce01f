#!/usr/bin/env python3
"""Write tests/fixtures/architectures/chatglm/first: a tiny random checkpoint of the first ChatGLM and what its published code computes from it.

transformers has no code for it. The reference is the modeling_chatglm.py that was published with the weights; get it and configuration_chatglm.py
from THUDM/chatglm-6b on the Hugging Face hub at commit 8b7d33596d18c5e83e2da052d05ca4db02e60620, read them, and name the folder:

    make_chatglm_fixtures.py FOLDER
"""

import argparse
import hashlib
import importlib
import json
import pathlib
import shutil
import sys
import types

import torch
import transformers
from safetensors.torch import load_file, save_file

from make_architecture_fixtures import OUT, VOCABULARY, Fixture, random_weights, write_config
from make_fixtures import float32_list, tensor_json, versions, write_json

SHA256 = {
    "modeling_chatglm.py": "e77d33a0354ab0948d54f953708d09baa7345966f2fb73df749e8fe5352863eb",
    "configuration_chatglm.py": "942977b9f878be607345860a88d2fc74a75256e91d0e14ef40391818352c359b",
}
MASK, GMASK, START, END = VOCABULARY - 4, VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1
CONFIG = dict(
    bos_token_id=START, eos_token_id=END, mask_token_id=MASK, gmask_token_id=GMASK, pad_token_id=3, hidden_size=32,
    inner_hidden_size=48, layernorm_epsilon=1e-05, max_sequence_length=128, num_attention_heads=4, num_layers=2,
    position_encoding_2d=True, torch_dtype="float16", use_cache=True, vocab_size=VOCABULARY,
)


def published(folder):
    """Imports the published code, of which nothing but the model is used."""
    for name, expected in SHA256.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != expected:
            sys.exit(f"{folder / name} is another file than this script was written for")
    package = types.ModuleType("published")
    package.__path__ = [str(folder)]
    sys.modules["published"] = package
    configuration, modeling = (importlib.import_module(f"published.{name}_chatglm") for name in ("configuration", "modeling"))
    return configuration.ChatGLMConfig(**CONFIG), modeling.ChatGLMForConditionalGeneration


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
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
