"""What a turn costs the runner: milliseconds of CPU per turn, beside a bare loop in the same run.

    python -m tests.bench.loop_cost [--concurrency 16 64 256] [--repetitions 5] [--json FILE]

A stub model server in a process of its own answers every call after 50 ms: three cells and an answer
for each trajectory. `ours` is the whole runner (scheduler, rollout, client, protocol, journal with its
artifacts folder and syncs, progress) with a sandbox that does nothing. `bare` is aiohttp, uvloop and
orjson: the same requests, and one line of the same content a trajectory. The two take turns, each
measurement in a fresh process; CPU is that process's own user and system time, imports not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop

N_TURNS = 4
LATENCY_S = 0.05
CELL_OUTPUT = "1\n"


@dataclass(frozen=True)
class Cost:
    """One measurement."""

    cpu_ms_per_turn: float
    turns_per_s: float
    bytes_per_trajectory: float


def cpu_s() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


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
    return Cost(1000 * used_s / n_turns, n_turns / wall_s, n_bytes / n)


async def ours(url: str, concurrency: int, n: int, folder: Path) -> None:
    """Run n trajectories through the runner."""
    from rich.console import Console

    from runner.config import Limits, ModelConfig
    from runner.journal import Journal
    from runner.models import OpenAIClient
    from runner.plan import attempts
    from runner.progress import watch
    from runner.protocols import Fenced
    from runner.rollout import RolloutSettings
    from runner.scheduler import RunIdentity, Scheduler
    from sandbox_pool import FakePool, Observation, Status, Stream

    observation = Observation(Status.OK, (Stream("stdout", CELL_OUTPUT),))
    model = OpenAIClient(url, ModelConfig(client=f"openai:{url}", name="stub"))
    await model.start()
    settings = RolloutSettings(
        model,
        Fenced(Fenced.default_limits),
        FakePool(lambda _: lambda _: observation),
        Limits(),
        "",
        True,
        (),
    )
    identity = RunIdentity("r", "h", "bench", "stub", "fenced", "none", "none", "here", 0)
    with Journal(folder) as journal:
        scheduler = Scheduler(settings, identity, journal, concurrency=concurrency, n_total=n, grace_s=0)
        watcher = asyncio.create_task(watch(scheduler.statistics, Console(stderr=True, quiet=True)))
        await scheduler.run(attempts(samples(n), 1, frozenset()))
        watcher.cancel()
    await model.close()


def samples(n: int) -> Any:
    """Return n samples of one user message."""
    from bench_data import Sample

    return [Sample(f"s{i}", ({"role": "user", "content": "Count to three."},)) for i in range(n)]


async def bare(url: str, concurrency: int, n: int, folder: Path) -> None:
    """Make the same requests with nothing around them, and write as many bytes a trajectory as ours."""
    padding = "x" * 1872
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
    command = [sys.executable, "-m", "tests.bench.loop_cost", "--one", kind, url, str(concurrency)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return Cost(**json.loads(ran.stdout))


def main() -> None:
    """Measure both loops in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("KIND", "URL", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, url, concurrency = arguments.one
        print(json.dumps(measure(kind, url, int(concurrency)).__dict__))
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.stub_server", "--latency-s", str(LATENCY_S)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        table = compare(server.stdout.readline().strip(), arguments.concurrency, arguments.repetitions)
    finally:
        server.kill()
        server.wait()
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2))


def compare(url: str, concurrencies: list[int], repetitions: int) -> list[dict[str, float]]:
    """Return and print a row per concurrency."""
    print(
        "concurrency | ours ms/turn | bare ms/turn | ratio | ours turns/s | bare turns/s | bytes/trajectory"
    )
    table = []
    for concurrency in concurrencies:
        pairs = [
            (in_a_fresh_process("ours", url, concurrency), in_a_fresh_process("bare", url, concurrency))
            for _ in range(repetitions)
        ]
        row = {
            "concurrency": concurrency,
            "ours_cpu_ms_per_turn": statistics.median(o.cpu_ms_per_turn for o, _ in pairs),
            "bare_cpu_ms_per_turn": statistics.median(b.cpu_ms_per_turn for _, b in pairs),
            "ratio": statistics.median(o.cpu_ms_per_turn / b.cpu_ms_per_turn for o, b in pairs),
            "ours_turns_per_s": statistics.median(o.turns_per_s for o, _ in pairs),
            "bare_turns_per_s": statistics.median(b.turns_per_s for _, b in pairs),
        }
        ours_bytes = statistics.median(o.bytes_per_trajectory for o, _ in pairs)
        bare_bytes = statistics.median(b.bytes_per_trajectory for _, b in pairs)
        print(
            f"{concurrency:11} | {row['ours_cpu_ms_per_turn']:12.2f} | {row['bare_cpu_ms_per_turn']:12.2f} | "
            f"{row['ratio']:5.2f} | {row['ours_turns_per_s']:12.0f} | {row['bare_turns_per_s']:12.0f} | "
            f"{ours_bytes:.0f} and {bare_bytes:.0f}",
            flush=True,
        )
        table.append(row)
    return table


if __name__ == "__main__":
    main()
