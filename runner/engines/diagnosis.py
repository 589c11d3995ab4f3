"""Why an engine did not come up, as far as its log says, and what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

REMEDIES: Sequence[tuple[re.Pattern[str], str]] = (
    (
        re.compile(r"address already in use|Errno 98\b", re.IGNORECASE),
        "a port is taken: end what listens there (ss -ltnp lists it), or take another where engines.args "
        "names it, and run the same command again",
    ),
    (
        re.compile(r"is less than desired GPU memory utilization"),
        "another process holds memory of the GPU (nvidia-smi lists them): end it, or lower "
        "engines.args.gpu_memory_utilization",
    ),
    (
        re.compile(r"max seq len \(\d+\)|No available memory for the cache blocks"),
        "no memory is left for the KV cache: lower engines.args.max_model_len, raise "
        "engines.args.gpu_memory_utilization, or spread the model with engines.tensor_parallel",
    ),
    (
        re.compile(r"out of memory|OutOfMemoryError|MemoryError|Cannot allocate memory", re.IGNORECASE),
        "the model does not fit: raise engines.tensor_parallel, lower engines.args.max_model_len or "
        "max_num_seqs, or take a smaller or quantized model",
    ),
    (
        re.compile(r"Bfloat16 is only supported on GPUs"),
        "this GPU cannot compute with the model's dtype: set engines.dtype to half",
    ),
    (
        re.compile(r"unrecognized arguments?:|invalid choice:|expected one argument"),
        "this vLLM does not know an option: correct engines.args",
    ),
    (
        re.compile(r"No module named '?vllm|ModuleNotFoundError: No module named"),
        "a package is missing: make install-engines, or correct engines.command",
    ),
    (
        re.compile(r"trust_remote_code=True|trust-remote-code"),
        "the model brings code of its own: set engines.args.trust_remote_code to true if you trust it",
    ),
    (
        re.compile(r"valid model identifier|RepositoryNotFound|GatedRepo|LocalEntryNotFound|Can't load"),
        "the model is not there: name a folder that holds it, or log in to the hub and download it first",
    ),
    (
        re.compile(r"CUDA driver version|no CUDA-capable device|Failed to infer device type|NVML"),
        "vLLM found no usable GPU: check nvidia-smi, or install vLLM's build for the CPU",
    ),
)  # fmt: skip
"""The first that matches wins: the particular ones stand before the general."""

KILLED = (
    "it was killed from outside: where that was the memory killer (dmesg), the machine has too little memory"
)
UNKNOWN = "the log says why"

ERROR_LINE = re.compile(r"error|exception|died|killed|fatal", re.IGNORECASE)
N_ERROR_LINES = 10
N_LAST_LINES = 20
MAX_LINE_CHARS = 200


def error_lines(log: str, n_lines: int) -> list[str]:
    """Return the last lines that speak of errors; where none does, the last lines."""
    lines = log.splitlines()
    return [line for line in lines if ERROR_LINE.search(line)][-n_lines:] or lines[-n_lines:]


def excerpt(log: str) -> str:
    """Return the end of a log and the errors before it: vLLM writes much on its way out."""
    lines = log.splitlines()
    last, before = lines[-N_LAST_LINES:], lines[:-N_LAST_LINES]
    errors = [line for line in before if ERROR_LINE.search(line)][-N_ERROR_LINES:]
    return "\n".join([*errors, "[...]", *last] if errors else last)


def remedy(log: str, how: str) -> str:
    """Return what to do about an engine that ended while starting, and the line of the log that says so.

    Args:
        log: the end of it.
        how: how the engine ended.
    """
    for pattern, advice in REMEDIES:
        line = next((line for line in log.splitlines() if pattern.search(line)), None)
        if line is not None:
            return f"{advice} ({line.strip()[:MAX_LINE_CHARS]})"
    return KILLED if how == describe_status(-9) else UNKNOWN


def describe_status(status: int | None) -> str:
    """Return how a process ended, for messages; None for one that did not."""
    if status is None:
        return "it could not be killed"
    return f"exit code {status}" if status >= 0 else f"signal {-status}"
