"""Whether a model can be served, as far as its files say: before any GPU is taken.

Not covered: weights that are incomplete or damaged, a hub that refuses; vLLM finds out, and its log is shown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.config import EnginesConfig, read_options
from runner.errors import ConfigError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json",
    "tiktoken.model",
)  # fmt: skip
TEMPLATES = ("chat_template.jinja", "chat_template.json", "chat_templates")
OWN_TEMPLATE = ("tekken.json",)  # mistral-common builds prompts without one
LFS_POINTER = b"version https://git-lfs"
BFLOAT16_CAPABILITY = 8.0


def check_model(model: str, config: EnginesConfig) -> None:
    """Check what `vllm:` names, its tokenizer, template and shape.

    Raises:
        ConfigError: says which of it is not there or does not go together, and what to do.
    """
    if not model:
        raise ConfigError("--model vllm: names no model; write vllm:PATH or vllm:ORGANISATION/NAME")
    check_template_file(config.chat_template)
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return
    folder = path if path.is_dir() else find_in_hub_cache(model, config.env)
    if folder is not None:
        check_folder(folder, config)


def check_folder(folder: Path, config: EnginesConfig) -> None:
    """Check a model's folder. Raises ConfigError."""
    facts = read_json(folder / "config.json")
    if facts is None:
        if (folder / "params.json").is_file():
            return  # Mistral's own format
        raise ConfigError(
            f"--model vllm:{folder}: no config.json is in it; name the folder that holds the model"
        )
    check_weights(folder, read_options(config.args))
    check_parallelism(facts, config)
    if not {"tokenizer", "skip_tokenizer_init", "tokenizer_mode"} & read_options(config.args).keys():
        check_tokenizer(folder, config)


def find_in_hub_cache(model: str, env: Mapping[str, str]) -> Path | None:
    """Return the folder of a model of the Hugging Face hub that was downloaded; None if vLLM has to do it.

    Raises:
        ConfigError: it cannot be a hub's name, or is not here and may not be downloaded.
    """
    if not HUB_ID.fullmatch(model):
        raise ConfigError(
            f"--model vllm:{model}: no such folder; name one with a config.json, or ORGANISATION/NAME"
        )
    variables = {**os.environ, **env}
    home = Path(variables.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(variables.get("HF_HUB_CACHE") or home / "hub")
    snapshots = cache / f"models--{model.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob("*/config.json"))
    if found:
        return found[-1].parent
    if any(variables.get(key, "0") not in ("", "0") for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        raise ConfigError(
            f"--model vllm:{model}: no such folder, not in {cache}, and HF_HUB_OFFLINE forbids a download; "
            f"correct the name, or download it first where there is a network"
        )
    return None


def check_weights(folder: Path, args: Mapping[str, Any]) -> None:
    """Raise ConfigError where a folder has no weights, or Git LFS's pointers to them."""
    if args.get("load_format") in ("dummy", "tensorizer", "runai_streamer"):
        return
    weights = [path for pattern in WEIGHTS for path in folder.glob(pattern)]
    if not weights:
        raise ConfigError(
            f"--model vllm:{folder}: no weights are in it ({', '.join(WEIGHTS)}); finish the download, or "
            f"set engines.args.load_format to dummy for random ones"
        )
    with min(weights, key=lambda path: path.stat().st_size).open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ConfigError(f"--model vllm:{folder}: its weights are Git LFS pointers: git lfs pull there")


def check_parallelism(facts: Mapping[str, Any], config: EnginesConfig) -> None:
    """Raise ConfigError where the attention heads cannot be divided among the GPUs."""
    inner = facts.get("text_config")
    n_heads = (inner if isinstance(inner, Mapping) else facts).get("num_attention_heads")
    if isinstance(n_heads, int) and n_heads % config.tensor_parallel:
        raise ConfigError(
            f"engines.tensor_parallel is {config.tensor_parallel}, and the model's {n_heads} attention heads "
            f"cannot be divided by it; take a divisor of {n_heads}"
        )


def check_dtype(model: str, config: EnginesConfig, capability: float | None) -> None:
    """Raise ConfigError where the GPUs cannot compute with the dtype; None for an unknown capability."""
    if capability is None or capability >= BFLOAT16_CAPABILITY:
        return
    facts = read_json(Path(model).expanduser() / "config.json") or {}
    dtype = config.dtype if config.dtype != "auto" else facts.get("dtype") or facts.get("torch_dtype")
    if dtype == "bfloat16":
        raise ConfigError(
            f"--model vllm:{model}: bfloat16 needs GPUs of compute capability {BFLOAT16_CAPABILITY:g}, and "
            f"there are some of {capability:g}; set engines.dtype to half"
        )


def check_tokenizer(folder: Path, config: EnginesConfig) -> None:
    """Raise ConfigError where a folder has no tokenizer, or no chat template and the config none either."""
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise ConfigError(
            f"--model vllm:{folder}: no tokenizer is in it ({', '.join(TOKENIZERS)}); copy it there, or name "
            f"one in engines.args.tokenizer"
        )
    has_own = any((folder / name).exists() for name in (*TEMPLATES, *OWN_TEMPLATE))
    said = read_json(folder / "tokenizer_config.json") or {}
    if config.chat_template is None and not has_own and not said.get("chat_template"):
        raise ConfigError(
            f"--model vllm:{folder}: it has no chat template, as base models have none; set "
            f"engines.chat_template to a Jinja file, or take the model's chat version"
        )


def check_template_file(path: Path | None) -> None:
    """Raise ConfigError where the template of the config cannot be read, or is no Jinja."""
    if path is None:
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"engines.chat_template: cannot read {path}: {error}; name a Jinja file") from error
    if "{%" not in text and "{{" not in text:
        raise ConfigError(
            f"engines.chat_template: {path} holds no Jinja; it would say the same to every prompt"
        )


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, None if there is no such file. Raises ConfigError for anything else."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}; download the model again") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JSON object; download the model again")
    return found
