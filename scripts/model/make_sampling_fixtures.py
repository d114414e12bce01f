#!/usr/bin/env python3
"""Make tests/fixtures/generate/*.json: what transformers' logits processors do, and reference numbers of the random generator."""

import itertools
import json
import pathlib

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "generate"
VOCAB = 40
MASK = (1 << 64) - 1


def processors():
    """Every combination, in the order in which transformers' generate() applies them."""
    # The model is never run: it is what builds the list of processors.
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
    ))
    generator = torch.Generator().manual_seed(1611)
    cases = []
    choices = itertools.product((1.0, 1.3), (1.0, 0.7, 2.5), (0, 1, 5), (1.0, 0.9, 0.35), (0.0, 0.1))
    for penalty, temperature, top_k, top_p, min_p in choices:
        # Steps of 1/64 are exact in float32 and short in JSON.
        logits = (torch.randn(1, VOCAB, generator=generator) * 3 * 64).round() / 64
        prompt = torch.randint(VOCAB, (1, 6), generator=generator)
        config = GenerationConfig(
            do_sample=True, repetition_penalty=penalty, temperature=temperature, top_k=top_k, top_p=top_p,
            min_p=min_p or None,
        )
        model._prepare_special_tokens(config)
        chain = model._get_logits_processor(config, input_ids_seq_length=prompt.shape[1])
        scores = chain(prompt, logits.clone())[0]
        if near_a_threshold(scores, logits, prompt, penalty, temperature, top_k, top_p, min_p):
            continue
        kept = (scores > -torch.inf).nonzero()[:, 0].tolist()
        cases.append({
            "options": {
                "repetitionPenalty": penalty, "temperature": temperature, "topK": top_k, "topP": top_p, "minP": min_p,
            },
            "prompt": prompt[0].tolist(),
            "logits": logits[0].tolist(),
            "kept": kept,
            "scores": [round(scores[i].item(), 5) for i in kept],
        })
    return cases


def near_a_threshold(scores, logits, prompt, penalty, temperature, top_k, top_p, min_p):
    """Whether a choice would turn on the rounding of float32: such a case says nothing about semantics."""
    exact = logits[0].double()
    seen = prompt[0].unique()
    exact[seen] = torch.where(exact[seen] < 0, exact[seen] * penalty, exact[seen] / penalty)
    exact = exact / temperature
    order = exact.sort(descending=True).values
    if top_k and (order[top_k - 1] - order[top_k]).abs() < 1e-6:
        return True
    if top_k:
        order = order[:top_k]
    probabilities = order.softmax(0)
    if ((probabilities.cumsum(0) - top_p).abs() < 1e-6).any() and top_p < 1:
        return True
    return min_p > 0 and ((probabilities / probabilities[0] - min_p).abs() < 1e-6).any().item()


def split_mix(seed):
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def xoshiro128_starstar(seed, count):
    """xoshiro128** 1.1 by its C source, seeded by SplitMix64, low half first."""
    words = split_mix(seed)
    s = []
    for word in itertools.islice(words, 2):
        s += [word & 0xFFFFFFFF, word >> 32]
    rotate = lambda x, k: ((x << k) | (x >> (32 - k))) & 0xFFFFFFFF
    out = []
    for _ in range(count):
        out.append(rotate((s[1] * 5) & 0xFFFFFFFF, 7) * 9 & 0xFFFFFFFF)
        t = (s[1] << 9) & 0xFFFFFFFF
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotate(s[3], 11)
    return out


def write(name, value):
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    made_with = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    write("processors.json", {"made_with": made_with, "cases": processors()})
    seeds = (0, 1, 42, 2**53 - 1)
    write("random.json", {"cases": [{"seed": seed, "uint32": xoshiro128_starstar(seed, 8)} for seed in seeds]})


if __name__ == "__main__":
    main()
