#!/usr/bin/env python3
"""Write the parity fixtures under tests/fixtures/.

Every number comes from the reference implementation it stands for: Hugging Face transformers (float32, CPU,
eager attention), Hugging Face tokenizers, and bitsandbytes. Seeds are fixed, so a second run with the versions
in requirements.txt writes the same files, up to the last bits of float32 sums on a different CPU.
"""

import argparse
import base64
import json
import math
import pathlib
import shutil

import numpy as np
import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from perplexity import DEFINITION, perplexity

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "kjv-5m"
FIXTURES = ROOT / "tests" / "fixtures"


# --- encoding -----------------------------------------------------------------------------------------------


def tensor_json(array):
    """A tensor as {dtype, shape, data}; data is base64 of the little-endian elements in row-major order."""
    array = np.ascontiguousarray(array.numpy() if isinstance(array, torch.Tensor) else array)
    dtype = {"float32": "f32", "uint8": "u8"}[str(array.dtype)]
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {"dtype": dtype, "shape": list(array.shape), "data": base64.b64encode(data).decode("ascii")}


def float32_list(values):
    """float32 values as the shortest decimals that round back to the same float32."""
    return [float(str(v)) for v in np.asarray(values, dtype=np.float32)]


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def versions(*modules):
    return {module.__name__: module.__version__ for module in modules}


# --- greedy decoding ----------------------------------------------------------------------------------------


def load_float32(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def greedy(model, prompt, new_tokens):
    """Prefill in one pass, then cached steps of one token; nothing stops at EOS.

    Returns the logits of all prompt positions, the chosen tokens, the logits after each of them but the
    last, and for each choice the gap between the best and the second-best logit.
    """
    cache = DynamicCache(config=model.config)
    logits = model(input_ids=torch.tensor([prompt]), past_key_values=cache, use_cache=True).logits[0]
    prompt_logits, tokens, steps, gaps = logits, [], [], []
    while True:
        top = logits[-1].topk(2)
        tokens.append(top.indices[0].item())
        gaps.append((top.values[0] - top.values[1]).item())
        if len(tokens) == new_tokens:
            break
        logits = model(input_ids=torch.tensor([[tokens[-1]]]), past_key_values=cache, use_cache=True).logits[0]
        steps.append(logits[-1])
    return prompt_logits, tokens, torch.stack(steps), gaps


# --- golden: the shipped model ------------------------------------------------------------------------------


def golden_prompts(reader):
    held_out = (MODEL / "heldout.txt").read_text(encoding="utf-8")
    chat = reader.apply_chat_template(
        [{"role": "user", "content": "And God said, Let there"}], tokenize=False, add_generation_prompt=True
    )
    return {
        "beginning": "In the beginning",
        "pass": "And it came to pass",
        "shepherd": "The LORD is my",
        "commandment": "Thou shalt not",
        "heading": "Genesis 1\n\nIn the beginning God created",
        "bos_only": "",
        "unfamiliar": "The quick brown fox; naïve café 2024 🙂\n",
        "long": held_out[:1200],
        # The template writes the BOS token itself; the tokenizer adds it again.
        "chat": chat.removeprefix(reader.bos_token),
    }


def make_golden():
    reader, model = AutoTokenizer.from_pretrained(MODEL), load_float32(MODEL)
    context = model.config.max_position_embeddings
    prompts = []
    for name, text in golden_prompts(reader).items():
        ids = reader(text)["input_ids"]
        prompt_logits, tokens, _, gaps = greedy(model, ids, 64)
        top = prompt_logits[-1].topk(32)
        prompts.append(
            {
                "name": name,
                "text": text,
                "ids": ids,
                "logits": tensor_json(prompt_logits[-1]),
                "top_indices": top.indices.tolist(),
                "top_values": float32_list(top.values),
                "greedy_ids": tokens,
                "greedy_text": reader.decode(tokens, skip_special_tokens=False),
                "margin": min(gaps),
                "margins": float32_list(gaps),
            }
        )
    text = (MODEL / "heldout.txt").read_text(encoding="utf-8")
    ids = reader(text, add_special_tokens=False)["input_ids"]
    held_out = {"text": "models/kjv-5m/heldout.txt", "definition": DEFINITION}
    held_out |= perplexity(model, ids, reader.bos_token_id, context)
    write_json(
        FIXTURES / "golden" / "kjv-5m.json",
        {
            "made_with": versions(transformers, tokenizers, torch),
            "model": "models/kjv-5m",
            "compute": "bfloat16 weights, float32 arithmetic, eager attention, CPU",
            "prompts": prompts,
            "held_out": held_out,
        },
    )


# --- llama: tiny random checkpoints -------------------------------------------------------------------------

TINY = dict(
    vocab_size=128, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6,
    num_key_value_heads=3, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False,
    bos_token_id=1, eos_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)

# `v4` holds the keys that replace `rope_parameters` in config.json: checkpoints released before
# transformers 5 spell the rotary settings that way, and name the weights' type `torch_dtype`.
CHECKPOINTS = {
    "base": dict(
        dtype=torch.float32,
        config=dict(hidden_size=32, intermediate_size=52, num_attention_heads=4, num_key_value_heads=2),
        v4=dict(rope_theta=10000.0, rope_scaling=None),
    ),
    "tied": dict(
        dtype=torch.bfloat16,
        config=dict(hidden_size=64, intermediate_size=48, num_attention_heads=8, num_key_value_heads=2,
                    tie_word_embeddings=True),
    ),
    # head_dim 10: the query projection is 50 wide while the hidden size is 40.
    "mha_odd": dict(
        dtype=torch.float16,
        config=dict(hidden_size=40, num_attention_heads=5, num_key_value_heads=5, head_dim=10, intermediate_size=88),
    ),
    "rope_linear": dict(
        dtype=torch.bfloat16,
        config=dict(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
        v4=dict(rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0}),
    ),
    # The three prompts stay inside, cross, and start beyond max_position_embeddings.
    "rope_dynamic": dict(
        dtype=torch.bfloat16,
        config=dict(max_position_embeddings=32,
                    rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
        prompt_lengths=(1, 20, 40),
    ),
    # Small original length, so that of the head's 8 frequencies some are kept, some scaled, some in between.
    "rope_llama3": dict(
        dtype=torch.bfloat16,
        config=dict(num_attention_heads=3, num_key_value_heads=1,
                    rope_parameters={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                     "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
                                     "rope_theta": 10000.0}),
        v4=dict(rope_theta=10000.0,
                rope_scaling={"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                              "original_max_position_embeddings": 64, "rope_type": "llama3"}),
    ),
    "biases": dict(dtype=torch.bfloat16, config=dict(intermediate_size=72, attention_bias=True, mlp_bias=True)),
    "sharded": dict(
        dtype=torch.bfloat16,
        config=dict(num_hidden_layers=3, intermediate_size=40),
        v4=dict(rope_theta=10000.0, rope_scaling=None),
        max_shard_size="30KB",
    ),
    # Small embeddings, so that an epsilon of 0.003 weighs as much as the mean square it is added to.
    "rms_eps": dict(dtype=torch.bfloat16, config=dict(rms_norm_eps=0.003), embedding_std=0.05),
}


@torch.no_grad()
def random_model(config, embedding_std, seed):
    """Weights wide enough that logits vary and greedy choices are clear."""
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    normal = lambda like, mean, std: torch.randn(like.shape, generator=generator) * std + mean
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            value = normal(parameter, 0.0, 0.5)
        elif "norm" in name:
            value = normal(parameter, 1.0, 0.2)
        elif "embed_tokens" in name:
            value = normal(parameter, 0.0, embedding_std)
        elif "lm_head" in name:
            value = normal(parameter, 0.0, 0.5)
        else:
            value = normal(parameter, 0.0, 1.4 / math.sqrt(parameter.shape[1]))
        parameter.copy_(value)
    return model


def respell_v4(path, v4):
    config = json.loads(path.read_text())
    default_head_dim = config["hidden_size"] // config["num_attention_heads"]
    if config["head_dim"] == default_head_dim:
        del config["head_dim"]
    for key in ("rope_parameters", "transformers_version"):
        del config[key]
    config["torch_dtype"] = config.pop("dtype")
    config |= v4
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_checkpoint(name, spec, seed):
    directory = FIXTURES / "llama" / name
    shutil.rmtree(directory, ignore_errors=True)
    model = random_model(LlamaConfig(**TINY | spec["config"]), spec.get("embedding_std", 1.0), seed)
    model.to(spec["dtype"]).save_pretrained(directory, max_shard_size=spec.get("max_shard_size", "1GB"))
    (directory / "generation_config.json").unlink(missing_ok=True)
    for file in directory.iterdir():
        file.chmod(0o644)
    if "v4" in spec:
        respell_v4(directory / "config.json", spec["v4"])
    return directory


def clear_case(directory, length, seed, new_tokens=32, candidates=20):
    """Of some random prompts of one length, the one whose greedy path is clearest."""
    best = None
    generator = torch.Generator().manual_seed(seed)
    for _ in range(candidates):
        prompt = torch.randint(3, TINY["vocab_size"], (length,), generator=generator).tolist()
        if length > 1:
            prompt[0] = TINY["bos_token_id"]
        # A fresh model each time: dynamic rotary embedding keeps state from one sequence to the next.
        result = greedy(load_float32(directory), prompt, new_tokens)
        distinct, margin = len(set(result[1])), min(result[3])
        # A path that falls into a short loop proves little, however clear it is.
        score = (min(distinct, 12), margin)
        if best is None or score > best[0]:
            best = (score, prompt, result)
    return best[1], best[2]


@torch.no_grad()
def llama_case(directory, length, seed, decode_steps):
    prompt, (prompt_logits, tokens, steps, gaps) = clear_case(directory, length, seed)
    return {
        "prompt_ids": prompt,
        "prompt_logits": tensor_json(prompt_logits),
        "greedy_ids": tokens,
        "decode_logits": tensor_json(steps[:decode_steps]),
        "margin": min(gaps),
        "margins": float32_list(gaps),
    }


@torch.no_grad()
def uncached_logits(directory, case):
    """Logits of the last position when the whole sequence is run in one pass, for each decode step."""
    rows = []
    for count in range(1, len(case["greedy_ids"])):
        ids = torch.tensor([case["prompt_ids"] + case["greedy_ids"][:count]])
        rows.append(load_float32(directory)(input_ids=ids, use_cache=False).logits[0, -1])
    return torch.stack(rows)


def make_llama():
    for index, (name, spec) in enumerate(CHECKPOINTS.items()):
        directory = save_checkpoint(name, spec, seed=1000 + index)
        dynamic = name == "rope_dynamic"
        # Long enough to see an error that grows, short enough to keep the files small.
        decode_steps = 31 if dynamic else 8
        cases = [
            llama_case(directory, length, seed=2000 + 10 * index + i, decode_steps=decode_steps)
            for i, length in enumerate(spec.get("prompt_lengths", (1, 7, 21)))
        ]
        expected = {"made_with": versions(transformers, torch), "cases": cases}
        if dynamic:
            expected["note"] = (
                "Each forward pass computes the frequencies for seq_len = its last position + 1, and no less than "
                "max_position_embeddings. Keys already in the cache keep the rotation of the pass that made them, so "
                "beyond max_position_embeddings a cached step (decode_logits) differs from one pass over the whole "
                "sequence (uncached_logits). Every case starts from a freshly loaded model."
            )
            for case in cases:
                case["uncached_logits"] = tensor_json(uncached_logits(directory, case))
        write_json(directory / "expected.json", expected)
        size = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
        margins = ", ".join(f"{case['margin']:.3f}" for case in cases)
        distinct = ", ".join(str(len(set(case["greedy_ids"]))) for case in cases)
        print(f"llama/{name}: weights {size} bytes, margins {margins}, distinct tokens {distinct}")


# --- tokenizer ----------------------------------------------------------------------------------------------

TOKENIZER_TEXTS = [
    "", " ", "  ", "\n", "\n\n", "\t", "\r\n", " \n ", "a", "I", " a", "a ", "  a", "   leading and trailing   ",
    "In the beginning God created the heaven and the earth.",
    "And God said, Let there be light: and there was light.",
    "the LORD's house; Abraham's seed; he'll, we've, I'm, they're, don't, she'd",
    "DON'T SHOUT, IT'S LATE, WE'LL GO, I'VE SEEN",
    "thou shalt not kill.\n\nThou shalt not steal.\n",
    "Genesis 1\n\nIn the beginning", "1 Samuel 17:4", "0 12 345 6789 1234567890", "3.14159, 1,000,000 and -42",
    "x=1;y=2", "a\tb\tc", "tabs\t\tand\t \tspaces", "line one\nline two\r\nline three\rline four",
    "trailing newline\n", "trailing spaces   \n   indented", "\n\n\n\nfour newlines",
    "ten          spaces", "no-break\u00a0space and thin\u2009space and ideographic\u3000space",
    "zero\u200bwidth and \u200djoiner and \ufeffBOM", "soft\u00adhyphen",
    "def f(x):\n    return {'a': [1, 2, 3], \"b\": x ** 2}  # comment\n",
    "for (let i = 0; i < n; i++) { sum += a[i]!; }", "<html>&nbsp;</html>", "C:\\path\\file.txt /usr/bin/env",
    "https://example.com/a?b=c&d=%20e#f", "user@example.com", "!!! ??? ... --- *** ((( )))", "\"quoted\" and “curly” ‘quotes’ – — …",
    "naïve café Ångström e\u0301 (combining) É ß ﬁ", "İstanbul ıI ſ K",
    "Привет, мир! Ёлка", "Καλημέρα κόσμε", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "你好,世界!天地玄黄", "こんにちは世界 カタカナ", "안녕하세요 세계", "Việt Nam đất nước",
    "🙂", "🙂🙃 👍🏽 👨‍👩‍👧‍👦 🇫🇷 ❤️", "math: ∑ ∫ √2 ≠ π ½ ² Ⅷ ٣ ५", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎",
    "control \u0000\u0001\u001b[0m\u007f\u0085 chars",
    "<|begin_of_text|>", "<|begin_of_text|>In the beginning<|end_of_text|>",
    "<|start_header_id|>user<|end_header_id|>\n\nLet there<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|begin_of_text", "< |eot_id|>", "a<|eot_id|>b <|eot_id|> c", "<|unknown_token|>",
    "Maher-shalal-hash-baz and Chushanrishathaim", "supercalifragilisticexpialidocious", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ﷺ ﷽ \u0344", "word" * 40, " the" * 30,
]


def make_tokenizer():
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    cases = []
    for text in TOKENIZER_TEXTS:
        ids = tokenizer.encode(text).ids
        cases.append(
            {
                "text": text,
                "ids": ids,
                "ids_without_special_tokens": tokenizer.encode(text, add_special_tokens=False).ids,
                "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                "decoded_skip_special_tokens": tokenizer.decode(ids, skip_special_tokens=True),
            }
        )
    # Ids that do not come from a text: characters cut short, and any order of tokens.
    rng = np.random.default_rng(7)
    sequences = [tokenizer.encode(text, add_special_tokens=False).ids for text in ("🙂", "é", "天地", "a🙂b")]
    sequences = [ids[:end] for ids in sequences for end in range(1, len(ids) + 1)]
    sequences += [rng.integers(0, tokenizer.get_vocab_size(), 24).tolist() for _ in range(8)]
    decode_cases = [
        {
            "ids": ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_skip_special_tokens": tokenizer.decode(ids, skip_special_tokens=True),
        }
        for ids in sequences
    ]
    write_json(
        FIXTURES / "tokenizer" / "kjv.json",
        {
            "made_with": versions(tokenizers),
            "tokenizer": "models/kjv-5m/tokenizer.json",
            "cases": cases,
            "decode_cases": decode_cases,
        },
    )
    print(f"tokenizer: {len(cases)} texts, {len(decode_cases)} id sequences")


# --- nf4 ----------------------------------------------------------------------------------------------------


def make_nf4():
    import bitsandbytes
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    generator = torch.Generator().manual_seed(64)
    cases = []
    for rows, columns in ((96, 128), (40, 192), (7, 64), (5, 96), (3, 33)):
        # A scale for each row, so that neighbouring blocks have different absmax.
        matrix = torch.randn(rows, columns, generator=generator)
        matrix *= torch.exp(torch.randn(rows, 1, generator=generator)) * 0.05
        if (rows, columns) == (96, 128):
            matrix[10, :64] = 0.0
        # Flattened: bitsandbytes quantizes the row-major sequence of elements, and its vectorised CPU
        # dequantization is wrong for a matrix whose rows are not whole blocks.
        packed, state = quantize_4bit(
            matrix.flatten(), blocksize=64, quant_type="nf4", compress_statistics=False
        )
        dequantized = dequantize_4bit(packed, state).flatten()
        indices = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten()[: matrix.numel()]
        scales = state.absmax.repeat_interleave(64)[: matrix.numel()]
        assert torch.equal(dequantized, state.code[indices.long()] * scales)
        cases.append(
            {
                "shape": [rows, columns],
                "input": tensor_json(matrix),
                "packed": tensor_json(packed.flatten()),
                "absmax": tensor_json(state.absmax),
                "dequantized": tensor_json(dequantized.view(rows, columns)),
            }
        )
    write_json(
        FIXTURES / "nf4" / "nf4.json",
        {
            "made_with": versions(bitsandbytes, torch),
            "blocksize": 64,
            "layout": (
                "The matrix is read row-major as one sequence, cut into blocks of 64 elements that may span rows; "
                "the last may be short. Two elements a byte, the earlier in the high nibble; an odd count leaves the "
                "last low nibble as padding. element = code[nibble] * absmax[block]."
            ),
            "code": float32_list(state.code),
            "cases": cases,
        },
    )


# --- rope ---------------------------------------------------------------------------------------------------


def make_rope():
    llama31 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=8192, rope_theta=500000.0)
    dynamic = dict(rope_type="dynamic", factor=2.0, rope_theta=10000.0)
    specs = [
        ("llama-2-7b", 128, 4096, dict(rope_type="default", rope_theta=10000.0), None),
        ("llama-3-8b", 128, 8192, dict(rope_type="default", rope_theta=500000.0), None),
        ("default, head_dim 32", 32, 512, dict(rope_type="default", rope_theta=10000.0), None),
        ("llama-3.1-8b", 128, 131072, llama31, None),
        ("llama-3.2-1b", 64, 131072, llama31 | dict(factor=32.0), None),
        ("linear 4", 128, 4096, dict(rope_type="linear", factor=4.0, rope_theta=10000.0), None),
    ]
    specs += [(f"dynamic 2 at {n}", 128, 4096, dynamic, n) for n in (1, 4096, 4097, 6000, 8192, 16384)]
    yarn = dict(rope_type="yarn", rope_theta=10000.0, original_max_position_embeddings=4096)
    specs += [
        ("qwen2.5 yarn 4", 128, 32768,
         yarn | dict(factor=4.0, rope_theta=1000000.0, original_max_position_embeddings=32768), None),
        ("deepseek-v3 yarn", 64, 163840,
         yarn | dict(factor=40.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0), None),
        ("deepseek-v2-lite yarn", 64, 163840,
         yarn | dict(factor=40.0, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=0.5), None),
        ("gpt-oss yarn", 64, 131072,
         yarn | dict(factor=32.0, rope_theta=150000.0, beta_fast=32.0, beta_slow=1.0, truncate=False), None),
        ("yarn with its own attention factor", 64, 8192, yarn | dict(factor=2.0, attention_factor=0.75), None),
    ]
    # As many factors as pairs, of Phi 3.5's range.
    longrope = dict(
        rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=4096,
        short_factor=[1.0 + 0.03 * i for i in range(48)], long_factor=[1.0 + 0.026 * i * i for i in range(48)],
    )
    specs += [(f"phi-3.5 longrope at {n}", 96, 131072, longrope, n) for n in (1, 4096, 4097, 131072)]
    cases = []
    for name, head_dim, positions, parameters, seq_len in specs:
        config = LlamaConfig(
            hidden_size=head_dim * 4, num_attention_heads=4, head_dim=head_dim,
            max_position_embeddings=positions, rope_parameters=dict(parameters),
        )
        if parameters["rope_type"] == "default":
            inv_freq, scaling = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        else:
            # The model passes the sequence length as a tensor.
            length = None if seq_len is None else torch.tensor(seq_len)
            inv_freq, scaling = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, seq_len=length)
        cases.append(
            {
                "name": name,
                "head_dim": head_dim,
                "max_position_embeddings": positions,
                "rope_parameters": parameters,
                "seq_len": seq_len,
                "attention_scaling": scaling,
                "inv_freq": float32_list(inv_freq),
            }
        )
    write_json(FIXTURES / "rope.json", {"made_with": versions(transformers, torch), "cases": cases})


PARTS = {
    "golden": make_golden, "llama": make_llama, "tokenizer": make_tokenizer, "nf4": make_nf4, "rope": make_rope,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"what to write: {', '.join(PARTS)} (default: all)")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for part in args.parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
