"""Perplexity of a text, in the one definition that the README, the fixtures and the tests share."""

import math

import torch
import torch.nn.functional as F

DEFINITION = (
    "The text is encoded without special tokens and cut into consecutive, non-overlapping chunks of "
    "window - 1 tokens (the last may be shorter). Each chunk is run on its own behind one BOS token, so a "
    "forward pass sees at most `window` positions; every token of the text is predicted exactly once, BOS "
    "never. Perplexity is exp of the mean negative log-likelihood (natural logarithm) over all tokens."
)


@torch.no_grad()
def perplexity(model, ids, bos, window):
    total = 0.0
    for start in range(0, len(ids), window - 1):
        chunk = ids[start : start + window - 1]
        # The last token of a chunk is only predicted, so it is not part of the input.
        logits = model(input_ids=torch.tensor([[bos] + chunk[:-1]]), use_cache=False).logits[0]
        total += F.cross_entropy(logits.double(), torch.tensor(chunk), reduction="sum").item()
    mean = total / len(ids)
    return {
        "window": window,
        "stride": window - 1,
        "predicted_tokens": len(ids),
        "mean_nll": mean,
        "perplexity": math.exp(mean),
    }
