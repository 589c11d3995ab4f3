"""vLLM's command line and environment, from the config. Pure."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from runner.config import EnginesConfig, read_options

SERVER = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")

DEFAULT_ARGS: Mapping[str, Any] = {
    "enable_prompt_tokens_details": True,  # without it, nobody knows which prompts hit the prefix cache
    "enable_prefix_caching": True,
    "enable_server_load_tracking": True,
    "enable_log_requests": False,
    "disable_uvicorn_access_log": True,
}
"""What batch work needs; keys of `engines.args` replace these."""

DEFAULT_ENV: Mapping[str, str] = {
    # Above the client's 60 s: a connection that the server closes first fails the request just sent on it.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120",
    "PYTHONUNBUFFERED": "1",
}


def server_command(config: EnginesConfig, model: str) -> tuple[str, ...]:
    """Return the command line of an engine, less the address to listen on."""
    settings: dict[str, Any] = {
        "model": os.path.expanduser(model),  # noqa: PTH111 - a hub's name is no path
        "served_model_name": config.served_name or model,
        "dtype": config.dtype,
        "tensor_parallel_size": config.tensor_parallel,
        "pipeline_parallel_size": config.pipeline_parallel,
    }
    if config.chat_template is not None:
        settings["chat_template"] = str(config.chat_template)
    is_mapping = isinstance(config.args, dict)
    given = read_options(config.args) if is_mapping else {}
    verbatim = () if is_mapping else tuple(config.args)
    flags = command_flags({**settings, **DEFAULT_ARGS, **given})
    return (*(config.command or SERVER), *flags, *verbatim)


def command_flags(settings: Mapping[str, Any]) -> list[str]:
    """Return options as vLLM reads them.

    True and False are switches (`--x`, `--no-x`), None leaves an option out, a list is several words behind
    one option, a mapping is JSON.
    """
    flags: list[str] = []
    for key, value in settings.items():
        name = key.replace("_", "-")
        match value:
            case None:
                continue
            case True:
                flags.append(f"--{name}")
            case False:
                flags.append(f"--no-{name}")
            case list() | tuple():
                flags += [f"--{name}", *map(_word, value)]
            case _:
                flags += [f"--{name}", _word(value)]
    return flags


def server_environment(config: EnginesConfig, gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what is laid over the environment of an engine that has these GPUs; none: all or no GPU.

    Where the config names GPUs, they are those that were shared out among the engines.
    """
    devices = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    return {**DEFAULT_ENV, **config.env, **devices}


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
