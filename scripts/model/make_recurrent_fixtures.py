#!/usr/bin/env python3
"""Make tests/fixtures/recurrent.json: what transformers' Qwen3-Next computes with its causal convolution and its gated delta rule."""

import json
import pathlib

import torch
from transformers.models.qwen3_next import modeling_qwen3_next as qwen3_next

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "recurrent.json"
TOKENS, KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, COLS, KERNEL = 7, 2, 4, 8, 6, 10, 4


def numbers(generator, *shape):
    """Normal numbers in steps of 1/64, exact in float32 and short in JSON."""
    return (torch.randn(*shape, generator=generator) * 64).round() / 64


def flat(tensor):
    return [round(value, 8) for value in tensor.flatten().tolist()]


def delta_rule(generator):
    """From the gates as projected to the heads' answers, after tokens that left a state."""
    query, key = (numbers(generator, 1, TOKENS, KEY_HEADS, KEY_DIM) for _ in range(2))
    value = numbers(generator, 1, TOKENS, VALUE_HEADS, VALUE_DIM)
    a, b = (numbers(generator, 1, TOKENS, VALUE_HEADS) for _ in range(2))
    a_log, dt_bias = (numbers(generator, VALUE_HEADS) for _ in range(2))
    before = numbers(generator, 1, VALUE_HEADS, KEY_DIM, VALUE_DIM)
    log_decay = -a_log.exp() * torch.nn.functional.softplus(a + dt_bias)
    answers, after = qwen3_next.torch_recurrent_gated_delta_rule(
        query, key, value, g=log_decay, beta=b.sigmoid(), initial_state=before.clone(), output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    return {
        "query": flat(query), "key": flat(key), "value": flat(value), "a": flat(a), "b": flat(b), "a_log": flat(a_log),
        "dt_bias": flat(dt_bias), "before": flat(before), "answers": flat(answers), "after": flat(after),
    }


def convolution(generator):
    """A sequence from its start, with silu; weight [cols, kernel]."""
    x, weight = numbers(generator, 1, TOKENS, COLS), numbers(generator, COLS, KERNEL)
    y = qwen3_next.causal_conv1d_fn(x.transpose(1, 2), weight, None, activation="silu").transpose(1, 2)
    return {"x": flat(x), "weight": flat(weight), "y": flat(y)}


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(1611)
    shapes = dict(
        tokens=TOKENS, key_heads=KEY_HEADS, value_heads=VALUE_HEADS, key_dim=KEY_DIM, value_dim=VALUE_DIM, cols=COLS, kernel=KERNEL,
    )
    fixture = {"shapes": shapes, "delta_rule": delta_rule(generator), "convolution": convolution(generator)}
    OUT.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
