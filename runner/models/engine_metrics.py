"""vLLM's metrics page -> EngineLoad. Pure.

Names as vLLM 0.29 serves them. Counters and requests are summed over the label `engine` (data parallel
ranks of one server); of the KV cache's use the highest counts.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict

from runner.admission import EngineLoad

_LINE = re.compile(
    r"^(vllm:[a-z_]+)(?:\{(.*)\})?\s+(NaN|[+-]?Inf|[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)$", re.MULTILINE
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_engine_load(text: str) -> EngineLoad | None:
    """Return what a metrics page says; None when it is not vLLM's."""
    sums: dict[str, float] = defaultdict(float)
    usage: float | None = None
    max_kv_tokens = 0
    n_waiting_for_room: int | None = None
    for name, labels, number in _LINE.findall(text):
        try:
            value = float(number)
        except ValueError:
            continue
        if not math.isfinite(value):
            continue
        sums[name] += value
        if name == "vllm:kv_cache_usage_perc":
            usage = max(usage or 0.0, value)
        elif name == "vllm:num_requests_waiting_by_reason":
            is_full = dict(_LABEL.findall(labels)).get("reason") == "capacity"
            n_waiting_for_room = (n_waiting_for_room or 0) + int(value) * is_full
        elif name == "vllm:cache_config_info":
            max_kv_tokens += _kv_tokens(labels)
    if "vllm:num_requests_running" not in sums:
        return None
    return EngineLoad(
        n_running=int(sums["vllm:num_requests_running"]),
        n_waiting=int(sums["vllm:num_requests_waiting"]),
        kv_usage=usage,
        n_preemptions=int(sums["vllm:num_preemptions_total"]),
        n_generated_tokens=int(sums["vllm:generation_tokens_total"]),
        max_kv_tokens=max_kv_tokens or None,
        n_prefix_queries=int(sums["vllm:prefix_cache_queries_total"]),
        n_prefix_hits=int(sums["vllm:prefix_cache_hits_total"]),
        n_waiting_for_room=n_waiting_for_room,
    )


def _kv_tokens(labels: str) -> int:
    found = dict(_LABEL.findall(labels))
    block_size, n_blocks = found.get("block_size", ""), found.get("num_gpu_blocks", "")
    return int(block_size) * int(n_blocks) if block_size.isdigit() and n_blocks.isdigit() else 0
