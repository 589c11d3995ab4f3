"""What `model.transport: tokens` saves beside chat: hits of the prefix cache, and prompt tokens computed.

    python -m tests.bench.token_ids [--url URL,URL...] [--repetitions 3] [--json FILE]

The same conversations by both transports, taking turns, each with an empty cache, counted by the servers' own
metrics. Without `--url`: two fake engines, whose replies are never of the ids that a tokenizer makes; with
it, vLLM's servers of one model, whose replies are made code by structured output, or are any text.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from runner.engines import open_engines
from tests.bench.conversations import prefill
from tests.bench.engine_routing import config, markdown

CODE = r"```python\nprint\([1-9][0-9]{0,5}\)\n```"
OF_VLLM: dict[str, dict[str, Any]] = {
    "code": {"max_tokens": 64, "structured_outputs": {"regex": CODE}},
    "any text": {"max_tokens": 64},
}
"""Kinds of replies; any text of a random model is the worst that a tokenizer may meet."""

N_TRAJECTORIES, N_TURNS = 12, 6


async def measure(
    urls: Sequence[str], kinds: Mapping[str, Mapping[str, Any]], repetitions: int, **model: Any
) -> dict[str, list[float]]:
    """Return hit rates, and what tokens compute beside chat, once for each repetition."""
    figures: dict[str, list[float]] = defaultdict(list)
    for number in range(repetitions):
        for kind, request in kinds.items():
            of = {
                transport: await prefill(
                    urls, "sticky", f"{transport} {number} {kind}", N_TRAJECTORIES, N_TURNS,
                    transport=transport, request=request, **model,
                )
                for transport in ("chat", "tokens")
            }  # fmt: skip
            for transport, found in of.items():
                figures[f"{transport} hit rate, {kind}"].append(found.hit_rate)
            figures[f"tokens / chat prefill, {kind}"].append(of["tokens"].n_computed / of["chat"].n_computed)
    return dict(figures)


async def measure_fakes(folder: Path, repetitions: int) -> dict[str, list[float]]:
    """Measure with engines of our own making."""
    settings = config(folder, 2, prefill_token_s=1e-5, token_s=1e-3, drift=True)
    async with await open_engines(settings, folder / "logs") as group:
        return await measure([row.url for row in group.endpoints()], {"fake": {}}, repetitions)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measuring = (
            measure(arguments.url.split(","), OF_VLLM, arguments.repetitions, name=None, send_seed=False)
            if arguments.url
            else measure_fakes(Path(name), arguments.repetitions)
        )
        figures = uvloop.run(measuring)
    print(markdown(figures), file=sys.stdout)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
