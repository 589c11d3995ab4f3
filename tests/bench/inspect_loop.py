"""Inspect AI against the same stub server: run by `loop_cost` with the interpreter that Inspect is in.

    python inspect_loop.py URL CONCURRENCY N_SAMPLES plain|tool

Four model calls a sample: `plain` calls generate four times, `tool` lets the model call a Python tool
that does nothing three times. No display, no sandbox; limits on connections and samples as high as the
concurrency asked for.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time

os.environ["OPENAI_API_KEY"] = "none"

from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.solver import generate, solver, use_tools
from inspect_ai.tool import tool

N_TURNS = 4


@solver
def four_calls():
    async def solve(state, generate):
        for _ in range(N_TURNS):
            state = await generate(state)
            state.messages.append(ChatMessageUser(content="1\n"))
        return state

    return solve


@tool
def python():
    async def execute(code: str):
        """Run Python code.

        Args:
            code: The code.
        """
        return "1\n"

    return execute


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    url, concurrency, n, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    dataset = MemoryDataset([Sample(input="Count to three.", id=f"s{i}") for i in range(n)])
    plan = [four_calls()] if kind == "plain" else [use_tools([python()]), generate()]
    model = get_model(
        "openai-api/stub/stub",
        base_url=url,
        api_key="none",
        config=GenerateConfig(max_connections=concurrency),
    )
    with tempfile.TemporaryDirectory() as folder:
        began_cpu_s, began_at = cpu_s(), time.perf_counter()
        logs = eval(
            Task(dataset=dataset, solver=plan), model=model, display="none", log_dir=folder,
            max_samples=concurrency, max_connections=concurrency, score=False, log_level="error",
        )  # fmt: skip
        used_s, wall_s = cpu_s() - began_cpu_s, time.perf_counter() - began_at
    assert logs[0].status == "success", logs[0].error
    calls = sum(usage.total_tokens for usage in logs[0].stats.model_usage.values()) / 18
    assert calls == n * N_TURNS, f"{calls} calls, not {n * N_TURNS}"
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_ms_per_turn": 1000 * used_s / (n * N_TURNS), "turns_per_s": n * N_TURNS / wall_s,
                      "bytes_per_trajectory": 0.0, "max_rss_mib": rss}))  # fmt: skip


if __name__ == "__main__":
    main()
