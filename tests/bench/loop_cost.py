"""What a turn costs the runner: milliseconds of CPU per turn, beside a bare loop and Inspect AI in the same run.

    python -m tests.bench.loop_cost [--concurrency 16 64 256 1024] [--repetitions 5] [--no-inspect]
                                    [--json FILE]

A stub model server in a process of its own answers every call after 50 ms: three cells and an answer
for each trajectory. `ours` is the whole runner (scheduler, rollout, client, adaptive admission, protocol,
journal with write-ahead of turns and syncs, progress and metrics) with a sandbox that does nothing.
`bare` is aiohttp, uvloop and orjson: the same requests, and one line of as many bytes a trajectory.
`inspect` is Inspect AI, installed once into an environment of its own: four calls a sample without a
tool, and with a Python tool that does nothing. They take turns, each measurement in a fresh process; CPU
is that process's own user and system time, imports not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop

from tests.bench.peers import installed
from tests.bench.stub import cpu_s, max_rss_mib, measured, stub_server

N_TURNS = 4
LATENCY_S = 0.05
CELL_OUTPUT = "1\n"
INSPECT = Path(__file__).with_name("inspect_loop.py")
INSPECT_REQUIREMENTS = Path(__file__).with_name("inspect_ai.txt")
PADDING_BYTES = 2095
"""What a line of ours holds beside the messages and the turns of the bare loop's."""


@dataclass(frozen=True)
class Cost:
    """One measurement."""

    cpu_ms_per_turn: float
    turns_per_s: float
    bytes_per_trajectory: float
    max_rss_mib: float


def measure(kind: str, url: str, concurrency: int) -> Cost:
    """Run one loop to its end and return what it cost."""
    n = max(400, 6 * concurrency)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        run = ours(url, concurrency, n, path) if kind == "ours" else bare(url, concurrency, n, path)
        began_cpu_s, began_at = cpu_s(), time.perf_counter()
        uvloop.run(run)
        used_s, wall_s = cpu_s() - began_cpu_s, time.perf_counter() - began_at
        n_bytes = (path / "trajectories.jsonl").stat().st_size
    n_turns = n * N_TURNS
    return Cost(1000 * used_s / n_turns, n_turns / wall_s, n_bytes / n, max_rss_mib())


async def ours(url: str, concurrency: int, n: int, folder: Path) -> None:
    """Run n trajectories through the runner."""
    from tests.bench.whole_runner import drive, samples

    ended = await drive(url, samples(n), n, folder, concurrency=concurrency)
    assert ended.n_finished == n, ended


async def bare(url: str, concurrency: int, n: int, folder: Path) -> None:
    """Make the same requests with nothing around them, and write as many bytes a trajectory as ours."""
    padding = "x" * PADDING_BYTES
    numbers = iter(range(n))
    connector = aiohttp.TCPConnector(limit=0)
    with (folder / "trajectories.jsonl").open("wb") as file:
        async with aiohttp.ClientSession(connector=connector) as session:

            async def work() -> None:
                for number in numbers:
                    messages: list[dict[str, str]] = [{"role": "user", "content": "Count to three."}]
                    turns = []
                    for _ in range(N_TURNS):
                        body = orjson.dumps({"model": "stub", "messages": messages})
                        async with session.post(f"{url}/chat/completions", data=body) as response:
                            answer = orjson.loads(await response.read())
                        text = answer["choices"][0]["message"]["content"]
                        messages.append({"role": "assistant", "content": text})
                        messages.append({"role": "user", "content": CELL_OUTPUT})
                        turns.append({"completion": text, "usage": answer["usage"]})
                    row = {"id": number, "messages": messages, "turns": turns, "padding": padding}
                    file.write(orjson.dumps(row) + b"\n")
                    file.flush()

            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())


def in_a_fresh_process(kind: str, url: str, concurrency: int) -> Cost:
    """Measure once in a process of its own."""
    if kind.startswith("inspect"):
        n = str(max(100, 2 * concurrency))
        command = [str(installed(INSPECT_REQUIREMENTS)), str(INSPECT), url, str(concurrency), n]
        return Cost(**measured([*command, kind.removeprefix("inspect-")]))
    command = [sys.executable, "-m", "tests.bench.loop_cost", "--one", kind, url, str(concurrency)]
    return Cost(**measured(command))


def compare(
    url: str, concurrencies: list[int], repetitions: int, *, with_inspect: bool
) -> list[dict[str, Any]]:
    """Measure each loop at each concurrency, in turn; return medians and the median of the pairs' ratios."""
    kinds = ["ours", "bare", *(["inspect-plain", "inspect-tool"] if with_inspect else [])]
    table = []
    for concurrency in concurrencies:
        costs: dict[str, list[Cost]] = {kind: [] for kind in kinds}
        for number in range(repetitions):
            for kind in kinds:
                if kind.startswith("inspect") and number >= max(1, repetitions // 2):
                    continue  # it is slow, and far away
                costs[kind].append(in_a_fresh_process(kind, url, concurrency))
        row: dict[str, Any] = {"concurrency": concurrency}
        for kind, of_kind in costs.items():
            for field in asdict(of_kind[0]):
                row[f"{kind} {field}"] = statistics.median(getattr(cost, field) for cost in of_kind)
        row["ratio to bare"] = statistics.median(
            o.cpu_ms_per_turn / b.cpu_ms_per_turn for o, b in zip(costs["ours"], costs["bare"], strict=True)
        )
        print(json.dumps(row), file=sys.stderr, flush=True)
        table.append(row)
    return table


def markdown(table: list[dict[str, Any]]) -> str:
    """Return the table of the README."""
    kinds = [k for k in ("ours", "bare", "inspect-plain", "inspect-tool") if f"{k} turns_per_s" in table[0]]
    lines = [
        "| in flight | "
        + " | ".join(f"{kind}: ms of CPU per turn (turns/s)" for kind in kinds)
        + " | ours / bare |",
        "|---:|" + "---:|" * (len(kinds) + 1),
    ]
    for row in table:
        cells = [f"{row[f'{k} cpu_ms_per_turn']:.2f} ({row[f'{k} turns_per_s']:.0f})" for k in kinds]
        lines.append(f"| {row['concurrency']} | {' | '.join(cells)} | {row['ratio to bare']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all loops in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-inspect", action="store_true", help="leave Inspect AI out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("KIND", "URL", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, url, concurrency = arguments.one
        print(json.dumps(asdict(measure(kind, url, int(concurrency)))))
        return
    with stub_server(LATENCY_S) as url:
        table = compare(
            url, arguments.concurrency, arguments.repetitions, with_inspect=not arguments.no_inspect
        )
    print(markdown(table))
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
