"""Real vLLM: what routing by trajectory saves, and what an engine of ours on Ray costs beside the plain server.

    python -m tests.bench.vllm_engines [--repetitions 3] [--json FILE]

Needs vLLM and Ray (`make bench-engines`). A tiny random model, whose replies are made code by structured output.
Prefill, by vLLM's own metrics: conversations that stick to one of two engines, go to a random one at each turn,
or all go to one engine; each time with an empty cache. Requests per second, through our client: an engine
on a Ray of its own and vLLM's server as anybody starts it, taking turns; both are up all the time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import uvloop

from tests.bench.conversations import ask_by, client, prefill_ratios, requests_per_s
from tests.bench.engine_routing import N_TURNS, markdown
from tests.engines_real.hosted import hosted_vllm, vllm_config
from tests.engines_real.serving import NAME, vllm_server
from tests.engines_real.tiny_llama import write_tiny_llama

CODE = r"```python\nprint\([1-9][0-9]{0,5}\)\n```"
N_TRAJECTORIES = 24
IN_FLIGHT = 64
WARM_UP_S, WINDOW_S = 5.0, 3.0
N_PAIRS = 5
"""Of windows, for each repetition: many short ones, since what else a machine does comes and goes."""

BLOCKS = {"block_size": 32, "num_gpu_blocks_override": 16384}
"""Room for all conversations at one engine: nothing is evicted."""


async def measure_prefill(urls: list[str], repetitions: int) -> dict[str, list[float]]:
    """Return the ratios of sticky to random and to single, once for each repetition."""
    figures: dict[str, list[float]] = defaultdict(list)
    request = {"max_tokens": 64, "structured_outputs": {"regex": CODE}}
    for number in range(repetitions):
        for n_turns in N_TURNS:
            ratios = await prefill_ratios(
                urls, f"{number} {n_turns}", N_TRAJECTORIES, n_turns,
                name=NAME, send_seed=False, request=request,
            )  # fmt: skip
            for what, ratio in ratios.items():
                figures[what].append(ratio)
    return dict(figures)


async def measure_hosting(hosted: str, plain: str, n_pairs: int) -> dict[str, list[float]]:
    """Return requests per second of both, and their ratios, once for each pair of windows."""
    figures: dict[str, list[float]] = defaultdict(list)
    models = {
        name: client([url], IN_FLIGHT, name=NAME, send_seed=False, request={"max_tokens": 4})
        for name, url in (("hosted", hosted), ("plain", plain))
    }
    for model in models.values():
        await model.start()
        await requests_per_s(ask_by(model), IN_FLIGHT, WARM_UP_S, model.forget)
    for number in range(n_pairs):
        for name in ("hosted", "plain") if number % 2 else ("plain", "hosted"):
            model = models[name]
            rate = await requests_per_s(ask_by(model), IN_FLIGHT, WINDOW_S, model.forget)
            figures[f"{name} req/s"].append(rate)
        figures["hosted / plain"].append(figures["hosted req/s"][-1] / figures["plain req/s"][-1])
    for model in models.values():
        await model.close()
    return dict(figures)


def measure(repetitions: int) -> dict[str, list[float]]:
    """Measure all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_tiny_llama(folder / "model")
        with hosted_vllm(vllm_config(model, replicas=2, args=BLOCKS), folder / "two") as urls:
            figures = uvloop.run(measure_prefill(urls, repetitions))
        on_ray = vllm_config(model, kind="ray")
        with (
            vllm_server(model, folder / "plain.log") as plain,
            hosted_vllm(on_ray, folder / "ray") as (hosted,),
        ):
            figures |= uvloop.run(measure_hosting(hosted, f"{plain}/v1", N_PAIRS * repetitions))
    return figures


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = measure(arguments.repetitions)
    print(markdown(figures), file=sys.stdout)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
