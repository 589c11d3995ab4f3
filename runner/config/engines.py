"""The `engines:` section: the vLLM engines that a run hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from runner.config.base import ConfigModel

OWN_ENGINE_ARGS = {
    "host": "the runner chooses it",
    "port": "the runner takes a free one",
    "uds": "engines are asked over TCP",
    "api_key": "set engines.env.VLLM_API_KEY and model.api_key_env",
    "hf_token": "set engines.env.HF_TOKEN: the values of args are written to the run directory",
    "ssl_keyfile": "engines are asked over plain HTTP",
    "ssl_certfile": "engines are asked over plain HTTP",
    "root_path": "engines are asked at /",
    "model": "name it with --model vllm:PATH_OR_ID",
    "served_model_name": "set engines.served_name",
    "dtype": "set engines.dtype",
    "chat_template": "set engines.chat_template",
    "tensor_parallel_size": "set engines.tensor_parallel",
    "pipeline_parallel_size": "set engines.pipeline_parallel",
}
"""Options of vLLM's server that are not for `engines.args`, and what to do instead."""

OTHER_NAMES = {
    "tp": "tensor_parallel_size",
    "tensor_parallel": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "dp": "data_parallel_size",
}
"""What vLLM takes as well for options that the runner reads: short names, and beginnings of long ones."""

OPTION = re.compile(r"--?[a-zA-Z]")


def read_options(args: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Return `engines.args` by vLLM's full names, with underscores.

    Of a list, the value is the first word behind an option, as it stands there; True where there is none.
    """
    if isinstance(args, Mapping):
        return {_full_name(str(key)): value for key, value in args.items()}
    options: dict[str, Any] = {}
    latest = ""
    for word in args:
        if OPTION.match(word):
            name, has_value, value = word.partition("=")
            latest = _full_name(name)
            options[latest] = value if has_value else True
        elif options.get(latest) is True:
            options[latest] = word
    return options


def _full_name(name: str) -> str:
    plain = name.lstrip("-").replace("-", "_")
    return OTHER_NAMES.get(plain, plain)


class EnginesConfig(ConfigModel):
    """The vLLM engines that a run hosts for `model.client: vllm:PATH_OR_ID`; unused with other clients."""

    kind: Literal["auto", "local", "ray"] = "auto"
    """`local`: on this machine; `ray`: on the GPUs of a Ray cluster; `auto`: where the run itself is."""

    replicas: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """How many engines; `auto`: GPUs divided by GPUs per replica, and one where vLLM runs on the CPU."""

    tensor_parallel: int = Field(default=1, ge=1)
    pipeline_parallel: int = Field(default=1, ge=1)
    gpus_per_replica: int | None = Field(default=None, ge=0)
    """None: tensor_parallel times pipeline_parallel times args.data_parallel_size, and 0 where vLLM was built
    for the CPU."""

    cpus_per_replica: int = Field(default=1, ge=0)
    """What Ray sets aside for each."""

    args: dict[str, Any] | tuple[str, ...] = Field(default_factory=dict)
    """Further options of vLLM's server: a mapping (`max_model_len: 8192`; true and false for switches, null
    for none of our defaults), or a list that goes to its command line as it is."""

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the engines, beside the runner's own."""

    chat_template: Path | None = None
    """A Jinja file; None: the model's own."""

    served_name: str | None = None
    """The model's name in requests; None: as it stands behind `vllm:`."""

    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = "auto"

    start_timeout_s: float = Field(default=1800.0, gt=0)
    """From the start of the process to its first answer: downloads, weights, compilation."""

    stall_s: float = Field(default=300.0, gt=0)
    """An engine that has requests and makes no token for so long is started again."""

    max_restarts: int = Field(default=3, ge=0)
    """Of one engine within `restart_window_s`; then it is given up."""

    restart_window_s: float = Field(default=3600.0, gt=0)
    """Of the time that it works: starts take no part of it."""

    command: tuple[str, ...] = ()
    """What is run in place of `python -m vllm.entrypoints.openai.api_server`: a wrapper, another Python."""

    @field_validator("args", mode="before")
    @classmethod
    def _not_ours(cls, args: Any) -> Any:
        is_list = isinstance(args, list | tuple) and all(isinstance(arg, str) for arg in args)
        if not (is_list or isinstance(args, Mapping)):
            raise ValueError(
                "write a mapping (max_model_len: 8192), or a list of texts (['--lora-modules', 'a=b'])"
            )
        for name in read_options(args):
            if instead := OWN_ENGINE_ARGS.get(name):
                raise ValueError(f"{name} is not passed through; {instead}")
        return args

    @field_validator("chat_template")
    @classmethod
    def _absolute_template(cls, path: Path | None) -> Path | None:
        return path.absolute() if path else None
