#!/usr/bin/env python3
"""Train the small Llama that ships with AirKern and write it as a Hugging Face checkpoint directory.

The weights start at random, or with --init from a checkpoint made earlier. The script needs the Debian
packages `bible-kjv` and `bible-kjv-text` (or their text, see --text) and the Python packages in
requirements.txt.
"""

import argparse
import json
import math
import pathlib
import random
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

import corpus
from perplexity import perplexity

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
HEADER_START, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
PAD = "<|finetune_right_pad_id|>"
# Added after the byte-level vocabulary, as in Llama 3, so they take the highest ids.
SPECIAL_TOKENS = [BOS, EOS, HEADER_START, HEADER_END, EOT, PAD]

# Llama 3's split pattern.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    f"{HEADER_START}{{{{ message['role'] }}}}{HEADER_END}\n\n"
    f"{{{{ message['content'] | trim }}}}{EOT}"
    "{% endfor %}{% if add_generation_prompt %}"
    f"{HEADER_START}assistant{HEADER_END}\n\n"
    "{% endif %}"
)


def train_tokenizer(texts, vocab_size):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A",
                pair=f"{BOS} $A {BOS}:1 $B:1",
                special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
            ),
        ]
    )
    return tokenizer


def save_tokenizer(tokenizer, out, context):
    tokenizer.save(str(out / "tokenizer.json"), pretty=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


class Windows:
    """Random training windows. Each starts with BOS at a verse or a chapter heading.

    A share of them is laid out as a chat in which the user gives the start of a passage and the
    assistant goes on with it, so that the chat tokens are trained and the chat template is usable.
    """

    def __init__(self, segments, tokenizer, context, chat_share, seed):
        self.random = random.Random(seed)
        self.segments, self.tokenizer = segments, tokenizer
        self.context, self.chat_share = context, chat_share
        self.starts = [(s, i) for s, segment in enumerate(segments) for i in range(len(segment.verse_starts))]
        self.order = []

    def _next_start(self):
        # Without replacement: an epoch visits every verse start once.
        if not self.order:
            self.order = self.starts.copy()
            self.random.shuffle(self.order)
        return self.order.pop()

    def _plain(self):
        s, i = self._next_start()
        segment = self.segments[s]
        start = segment.verse_starts[i]
        # 10 characters a token is far more than the tokenizer reaches: the window is always filled.
        text = segment.text[start : start + 10 * self.context]
        if segment.ends_book and start + 10 * self.context >= len(segment.text):
            text += EOS
        return text

    def _chat(self):
        turns = []
        while sum(map(len, turns)) < 5 * self.context:
            s, i = self._next_start()
            segment = self.segments[s]
            bounds = segment.verse_starts[i : i + 1 + self.random.randint(2, 5)]
            passage = segment.text[bounds[0] : bounds[-1]].strip()
            words = passage.split(" ")
            if len(words) < 6 or "\n" in passage:
                continue
            cut = self.random.randint(2, len(words) // 2)
            for role, content in (("user", words[:cut]), ("assistant", words[cut:])):
                turns.append(f"{HEADER_START}{role}{HEADER_END}\n\n{' '.join(content)}{EOT}")
        return "".join(turns)

    def batch(self, size):
        """Inputs and next-token labels; -100 where a window is shorter than the context."""
        texts = [self._chat() if self.random.random() < self.chat_share else self._plain() for _ in range(size)]
        inputs = torch.zeros(size, self.context, dtype=torch.long)
        labels = torch.full((size, self.context), -100, dtype=torch.long)
        for row, encoding in enumerate(self.tokenizer.encode_batch(texts)):
            ids = torch.tensor(encoding.ids[: self.context + 1])
            inputs[row, : len(ids) - 1] = ids[:-1]
            labels[row, : len(ids) - 1] = ids[1:]
        return inputs, labels


class PooledDropout:
    """Dropout whose masks are slices, at random offsets, of one pool of random bits.

    Drawing fresh bits for every mask takes a tenth of a training step on a CPU.
    """

    def __init__(self, rate, dtype, pool_size=1 << 24):
        self.pool = (torch.rand(pool_size) >= rate).to(dtype) / (1 - rate)

    def __call__(self, x):
        offset = int(torch.randint(self.pool.numel() - x.numel(), ()))
        return x * self.pool[offset : offset + x.numel()].view(x.shape)


@torch.no_grad()
def scale_residual_branches(model, layers):
    """Keeps the variance of the residual stream independent of depth at the start (GPT-2)."""
    for layer in model.model.layers:
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
            projection.weight.mul_(1 / math.sqrt(2 * layers))


def build_model(args, tokenizer):
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        head_dim=args.hidden // args.heads,
        max_position_embeddings=args.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=[tokenizer.token_to_id(EOS), tokenizer.token_to_id(EOT)],
        pad_token_id=tokenizer.token_to_id(PAD),
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    if args.init:
        # strict=False: the file leaves out the output head, which is the embedding.
        model.load_state_dict(load_file(args.init / "model.safetensors"), strict=False)
    else:
        scale_residual_branches(model, args.layers)
    # Only the parameters: the rotary frequencies are a buffer and must stay float32.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, args.dtype))
    # Llama has no dropout outside attention; training adds it on every branch that joins the residual
    # stream. It is a hook, so the checkpoint knows nothing of it.
    dropout = PooledDropout(args.dropout, getattr(torch, args.dtype))
    drop = lambda module, _, output: dropout(output) if module.training else output
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.down_proj.register_forward_hook(drop)
    model.model.embed_tokens.register_forward_hook(drop)
    return model


def learning_rate(step, spent, args):
    """Linear warm-up, then a cosine over the steps or over the minutes allowed, whichever ends first."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    progress = max((step - args.warmup) / max(1, args.steps - args.warmup), spent)
    return args.lr * (args.lr_floor + (1 - args.lr_floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def train(model, windows, validation_ids, bos, args):
    # The optimizer works on float32 copies; the model computes in its own dtype.
    parameters = list(model.parameters())
    masters = [p.detach().float().clone() for p in parameters]
    decayed = [m for m in masters if m.dim() >= 2]
    others = [m for m in masters if m.dim() < 2]
    groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=True)

    best_loss, best_state = math.inf, None
    began = time.time()
    for step in range(args.steps):
        spent = (time.time() - began) / (60 * args.minutes) if args.minutes else 0.0
        last = step + 1 == args.steps or spent >= 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, min(spent, 1.0), args)
        inputs, labels = windows.batch(args.batch)
        logits = model(input_ids=inputs, use_cache=False).logits
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))
        loss.backward()
        for master, parameter in zip(masters, parameters):
            master.grad = parameter.grad.float()
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters):
                parameter.copy_(master)

        done = step + 1
        if done % args.log_every == 0:
            rate = done * args.batch * args.context / (time.time() - began)
            print(f"step {done}/{args.steps} loss {loss.item():.4f} {rate:.0f} tokens/s "
                  f"{time.time() - began:.0f} s", flush=True)
        if done % args.validate_every == 0 or last:
            model.eval()
            nll = perplexity(model, validation_ids, bos, args.context)["mean_nll"]
            model.train()
            print(f"step {done} validation loss {nll:.4f}", flush=True)
            if nll < best_loss:
                best_loss = nll
                best_state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if last:
            break
    model.load_state_dict(best_state)
    return best_loss


def save_model(model, out):
    model.config.use_cache = True
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
    )
    model.to(torch.bfloat16).save_pretrained(out)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = lambda name, default, help: parser.add_argument(
        name, default=default, type=type(default), help=f"{help} (default: {default})"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--out", type=pathlib.Path, default=root / "models" / "kjv-5m", help="directory to write")
    parser.add_argument("--init", type=pathlib.Path, help="checkpoint directory to start from (default: random)")
    parser.add_argument("--text", help="output of `bible -f gen1:1-rev22:21`; without it the program is run")
    add("--seed", 1611, "seed of the weights, the dropout and the order of the windows")
    add("--vocab", 2048, "tokens, special tokens included")
    add("--context", 512, "window in tokens, and max_position_embeddings")
    add("--layers", 8, "decoder layers")
    add("--hidden", 256, "hidden size")
    add("--intermediate", 512, "MLP size")
    add("--heads", 8, "query heads")
    add("--kv-heads", 4, "key and value heads")
    add("--steps", 1900, "optimizer steps")
    add("--minutes", 0.0, "end the schedule early after this time; 0 is no limit, and reproducible")
    add("--batch", 8, "windows a step")
    add("--lr", 1.5e-3, "peak learning rate")
    add("--lr-floor", 0.02, "share of the peak learning rate left at the last step")
    add("--warmup", 100, "steps of linear warm-up")
    add("--weight-decay", 0.1, "AdamW weight decay of matrices")
    add("--dropout", 0.1, "dropout on embeddings and residual branches")
    add("--chat-share", 0.08, "share of windows laid out as a chat")
    add("--log-every", 20, "steps between progress lines")
    add("--validate-every", 200, "steps between validations; the best checkpoint is kept")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16",
                        help="of the forward and backward pass; the optimizer is float32 (default: bfloat16)")
    return parser.parse_args()


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    segments, validation, held_out = corpus.split(corpus.parse_chapters(corpus.read_raw(args.text)))
    (args.out / "heldout.txt").write_text(held_out)
    tokenizer = train_tokenizer([segment.text for segment in segments], args.vocab)
    save_tokenizer(tokenizer, args.out, args.context)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    count = sum(len(encode(segment.text)) for segment in segments)
    bos = tokenizer.token_to_id(BOS)

    model = build_model(args, tokenizer)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {count} training tokens", flush=True)
    windows = Windows(segments, tokenizer, args.context, args.chat_share, args.seed)
    validation_loss = train(model, windows, encode(validation), bos, args)
    save_model(model, args.out)

    # Measured on the files just written, as a user of the checkpoint would load them.
    model = AutoModelForCausalLM.from_pretrained(args.out, dtype=torch.float32, attn_implementation="eager").eval()
    result = perplexity(model, encode(held_out), bos, args.context)
    print(f"best validation loss {validation_loss:.4f}")
    print(f"held-out: {json.dumps(result)}")
    reader = AutoTokenizer.from_pretrained(args.out)
    prompt = reader("In the beginning", return_tensors="pt")
    print(reader.decode(model.generate(**prompt, max_new_tokens=64, do_sample=False)[0]))


if __name__ == "__main__":
    main()
