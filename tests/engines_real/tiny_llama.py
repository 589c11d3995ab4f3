"""A Llama of two layers with random weights, its tokenizer and chat template, made without a download.

`python -m tests.engines_real.tiny_llama FOLDER` writes it. It speaks nonsense: what a test needs of a reply
(a block of code, say) it asks for by structured output. Vectors are 128 wide, so a token costs next to
nothing; the window is 32,768 tokens.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import numpy.typing as npt

N_LAYERS = 2
HIDDEN = 128
INTERMEDIATE = 256
N_HEADS = 2
LORA_RANK = 8
HEAD_DIM = 64  # a size for which vLLM has an attention kernel on CPU
WINDOW_TOKENS = 32_768
END = "<|end|>"
SPECIAL = ("<|start|>", END)
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else each engine of a machine takes the same core for its own
    "VLLM_NO_USAGE_STATS": "1",
}
"""What an engine of this model has in its environment: no network, one thread."""
N_BLOCKS = 1024
ARGUMENTS = ("--enforce-eager", "--num-gpu-blocks-override", str(N_BLOCKS))
"""For vLLM: no compiler, and 0.6 GB for the worker instead of 1.6 GB (blocks are of 128 tokens on CPU)."""
# No message's text depends on those behind it: a conversation's prompt begins with its last turn's.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def write_tiny_llama(folder: Path) -> Path:
    """Write what vLLM loads a model from into `folder`, and return it. The same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    n_vocab = _write_tokenizer(folder)
    _write_json(folder / "config.json", _config(n_vocab))
    _write_json(folder / "generation_config.json", {"eos_token_id": SPECIAL.index(END)})
    _write_weights(folder, n_vocab)
    return folder


def _write_tokenizer(folder: Path) -> int:
    """Train a byte-level BPE on Python and English that every machine has; return the number of tokens."""
    from tokenizers import ByteLevelBPETokenizer  # only where vLLM is

    tokenizer = ByteLevelBPETokenizer()
    texts = [inspect.getsource(module) for module in (textwrap, argparse)]
    tokenizer.train_from_iterator(
        texts, vocab_size=512, special_tokens=list(SPECIAL), show_progress=False, length=len(texts)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "model_max_length": WINDOW_TOKENS,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    return int(tokenizer.get_vocab_size())


def _config(n_vocab: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": n_vocab,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": WINDOW_TOKENS,
        "eos_token_id": SPECIAL.index(END),
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }


def _write_weights(folder: Path, n_vocab: int) -> None:
    from safetensors.numpy import save_file  # only where vLLM is

    random = np.random.default_rng(0)

    def matrix(n_out: int, n_in: int) -> npt.NDArray[np.float32]:
        return random.normal(0, n_in**-0.5, (n_out, n_in)).astype(np.float32)

    ones = np.ones(HIDDEN, dtype=np.float32)
    weights = {
        "model.embed_tokens.weight": matrix(n_vocab, HIDDEN),
        "model.norm.weight": ones,
        "lm_head.weight": matrix(n_vocab, HIDDEN),
    }
    for n in range(N_LAYERS):
        layer = f"model.layers.{n}"
        for name in ("q", "k", "v"):
            weights[f"{layer}.self_attn.{name}_proj.weight"] = matrix(N_HEADS * HEAD_DIM, HIDDEN)
        weights[f"{layer}.self_attn.o_proj.weight"] = matrix(HIDDEN, N_HEADS * HEAD_DIM)
        weights[f"{layer}.mlp.gate_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[f"{layer}.mlp.up_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[f"{layer}.mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE)
        weights[f"{layer}.input_layernorm.weight"] = ones.copy()
        weights[f"{layer}.post_attention_layernorm.weight"] = ones.copy()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_adapter(folder: Path) -> Path:
    """Write a LoRA adapter of this model into `folder`, and return it. It changes what the model says."""
    from safetensors.numpy import save_file  # only where vLLM is

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    weights = {}
    for n in range(N_LAYERS):
        for name, n_out in (("q_proj", N_HEADS * HEAD_DIM), ("v_proj", N_HEADS * HEAD_DIM)):
            matrix = f"base_model.model.model.layers.{n}.self_attn.{name}"
            for part, shape in (("lora_A", (LORA_RANK, HIDDEN)), ("lora_B", (n_out, LORA_RANK))):
                weights[f"{matrix}.{part}.weight"] = random.normal(0, 0.5, shape).astype(np.float32)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    facts = {"peft_type": "LORA", "r": LORA_RANK, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    _write_json(folder / "adapter_config.json", {**facts, "base_model_name_or_path": "", "bias": "none"})
    return folder


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


if __name__ == "__main__":
    write_tiny_llama(Path(sys.argv[1]))
