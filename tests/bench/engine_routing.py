"""What routing by trajectory is worth, what the client costs, how soon the turns of a lost engine are redone.

    python -m tests.bench.engine_routing [--repetitions 3] [--json FILE]

Fake engines in processes of their own, each with a true prefix cache; our client, router and admission as in
a run. Prefill: the same trajectories, sticking to one of two engines, to a random one at each turn, and all to
one engine; each time with an empty cache. Requests per second: at an engine with seats for 300 a second, ours
and a bare aiohttp loop, taking turns. Loss: an engine of two ends with calls in flight, and until the last of
them is sent to the other it counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from runner.config import RunConfig, check_config
from runner.engines import open_engines
from runner.models import OpenAIClient
from runner.models.endpoint import Answer, Endpoint
from tests.bench.conversations import ask_bare, ask_by, client, prefill_ratios, requests_per_s, talk
from tests.fake_engine import COMMAND, ENVIRONMENT, write_model

N_TURNS = (6, 10)
REQUESTS_PER_S = 300
SEATS = 60
REPLY_TOKENS = 19
"""Of a cell that the fake engine writes."""

WARM_UP_S = 10.0
WINDOW_S = 5.0
TARGETS = {
    "sticky / random prefill": 0.6,
    "sticky / single hit rate": 0.9,
    "ours / bare": 0.95,
    "hosted / plain": 0.95,
    "redone s": 2.0,
}


def config(folder: Path, n_engines: int, **args: Any) -> RunConfig:
    """Return a config of so many fake engines."""
    engines = {
        "command": COMMAND, "env": {**ENVIRONMENT, "FOLDER": str(folder)}, "gpus_per_replica": 0,
        "replicas": n_engines, "served_name": "m", "args": args,
    }  # fmt: skip
    return check_config({"model": f"vllm:{write_model(folder / 'model')}", "engines": engines})


async def measure_prefill(folder: Path, repetitions: int, n_trajectories: int = 48) -> dict[str, list[float]]:
    """Return the ratios of sticky to random and to single, once for each repetition."""
    settings = config(folder, 2, prefill_token_s=1e-5, token_s=1e-3)
    figures: dict[str, list[float]] = defaultdict(list)
    async with await open_engines(settings, folder / "logs") as group:
        urls = [row.url for row in group.endpoints()]
        for number in range(repetitions):
            for n_turns in N_TURNS:
                ratios = await prefill_ratios(urls, f"{number} {n_turns}", n_trajectories, n_turns)
                for what, ratio in ratios.items():
                    figures[what].append(ratio)
    return dict(figures)


async def measure_throughput(
    folder: Path,
    repetitions: int,
    n_trajectories: int,
    warm_up_s: float = WARM_UP_S,
    window_s: float = WINDOW_S,
) -> dict[str, list[float]]:
    """Return requests per second of both, and their ratios, once for each repetition."""
    settings = config(folder, 1, max_num_seqs=SEATS, token_s=SEATS / REQUESTS_PER_S / REPLY_TOKENS)
    ours: list[float] = []
    bare: list[float] = []
    async with (
        await open_engines(settings, folder / "logs") as group,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        (row,) = group.endpoints()
        model = client([row.url], n_trajectories)
        await model.start()
        await requests_per_s(ask_by(model), n_trajectories, warm_up_s, model.forget)
        for _ in range(repetitions):
            ours.append(await requests_per_s(ask_by(model), n_trajectories, window_s, model.forget))
            without = ask_bare(http, row.url)
            bare.append(await requests_per_s(without, n_trajectories, window_s, lambda attempt: None))
        await model.close()
    ratios = [o / b for o, b in zip(ours, bare, strict=True)]
    return {"ours req/s": ours, "bare req/s": bare, "ours / bare": ratios}


class Posts:
    """When which body was sent to an endpoint, which wait for an answer, and which have a reply."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._post = endpoint.post
        self.in_flight: set[bytes] = set()
        self.answered: set[bytes] = set()
        self.sent_at: dict[bytes, float] = {}
        endpoint.post = self.post  # type: ignore[method-assign]

    async def post(self, http: aiohttp.ClientSession, body: bytes) -> Answer:
        """Send a body."""
        self.sent_at[body] = time.perf_counter()
        self.in_flight.add(body)
        try:
            answer = await self._post(http, body)
            if answer.status == 200:
                self.answered.add(body)
            return answer
        finally:
            self.in_flight.discard(body)


async def measure_loss(folder: Path, how: str, n_trajectories: int = 64) -> float:
    """End one of two engines with calls in flight; return the seconds until the last is sent to the other."""
    settings = config(folder, 2, token_s=0.03)
    async with await open_engines(settings, folder / "logs") as group:
        model = OpenAIClient([], settings.model, admission=settings.admission, concurrency=n_trajectories)
        unsubscribe = group.subscribe(model.set_endpoints)
        await model.start()
        lost, other = (Posts(endpoint) for endpoint in model._endpoints)
        root = group.endpoints()[0].url.removesuffix("/v1")
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            for number in range(n_trajectories):
                tasks.create_task(talk(ask_by(model), f"{number}@1", 4))
            await asyncio.sleep(1.5)
            in_flight, ended_at = set(lost.in_flight), time.perf_counter()
            with suppress(aiohttp.ClientError):  # it is gone before it can say so
                await http.post(f"{root}/admin/die?how={how}")
        unsubscribe()
        await model.close()
    redone = in_flight - lost.answered
    assert redone, "no call was in flight"
    return max(other.sent_at[body] for body in redone) - ended_at


async def measure(repetitions: int) -> dict[str, list[float]]:
    """Measure all."""
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        figures |= await measure_prefill(Path(name) / "prefill", repetitions)
        for n in (64, 256):
            measured = await measure_throughput(Path(name) / f"throughput-{n}", repetitions, n)
            figures |= {f"{what}, {n} in flight": values for what, values in measured.items()}
        for how in ("core500", "exit"):
            figures[f"redone s, {how}"] = [
                await measure_loss(Path(name) / f"{how}-{number}", how) for number in range(repetitions)
            ]
    return figures


def markdown(figures: dict[str, list[float]]) -> str:
    """Return a table of medians, extremes and targets."""
    lines = ["| | median | lowest to highest | target |", "|---|---:|---:|---:|"]
    for what, values in figures.items():
        target = TARGETS.get(what.partition(",")[0])
        extremes = f"{min(values):.3g} to {max(values):.3g}"
        lines.append(f"| {what} | {statistics.median(values):.3g} | {extremes} | {target or ''} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = uvloop.run(measure(arguments.repetitions))
    print(markdown(figures), file=sys.stdout)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
