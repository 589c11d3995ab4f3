"""What a turn costs in a long conversation: 60 turns, 200 kB of messages.

    python -m tests.bench.long_conversation [--turns 60] [--kilobytes 200] [--repetitions 5] [--json FILE]

`encode` is what a client does before each call: all messages as JSON. `ours` keeps each message encoded
and joins them; `naive` encodes the list anew, as clients do. `whole` is CPU of the runner per turn against
the stub server, which takes the bytes that the API wants sent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import uvloop

from tests.bench.stub import cpu_s, measured, stub_server

N_EDGE = 10
"""Turns at the start, and at the end, that are compared."""


def encode_us(n_turns: int, n_bytes: int) -> dict[str, list[float]]:
    """Return microseconds per turn that encoding takes, ours and naive."""
    from runner.models.conversation import Conversation

    text = "print('x')\n" * (n_bytes // n_turns // 2 // 11)
    conversation, naive = (
        Conversation([{"role": "user", "content": "go"}]),
        [{"role": "user", "content": "go"}],
    )
    took: dict[str, list[float]] = {"ours": [], "naive": []}
    for _ in range(n_turns):
        for kind, encode in (("ours", conversation.encoded), ("naive", lambda: orjson.dumps(naive))):
            began_at = time.perf_counter()
            encode()
            took[kind].append(1e6 * (time.perf_counter() - began_at))
        for role in ("assistant", "user"):
            conversation.append({"role": role, "content": text})
            naive.append({"role": role, "content": text})
    return took


async def whole_ms(url: str, n_turns: int, n_bytes: int, folder: Path) -> list[float]:
    """Return milliseconds of CPU per turn of one trajectory in the whole runner."""
    from runner.protocols import Fenced
    from runner.protocols.base import Reply
    from sandbox_pool import FakePool, Observation, Status, Stream
    from tests.bench.whole_runner import drive, samples

    text = "x" * (n_bytes // n_turns)
    marks: list[float] = []

    class Endless(Fenced):
        """Executes something after every reply."""

        def parse(self, completion: str, finish_reason: str | None, tool_calls: Any = None) -> Reply:
            marks.append(cpu_s())
            return super().parse(f"```python\n{len(marks)}\n```", finish_reason)

    pool = FakePool(lambda _: lambda _: Observation(Status.OK, (Stream("stdout", text),)))
    await drive(
        url, samples(1), 1, folder, concurrency=1, pool=pool, max_turns=n_turns, protocol=Endless(None)
    )
    return [1000 * (after - before) for before, after in pairwise(marks)]


def one(url: str, n_turns: int, n_bytes: int) -> dict[str, float]:
    """Measure once."""
    row: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        whole = uvloop.run(whole_ms(url, n_turns, n_bytes, Path(folder)))
    for name, values in {**encode_us(n_turns, n_bytes), "whole": whole}.items():
        row[f"{name} first"] = statistics.mean(values[1 : N_EDGE + 1])
        row[f"{name} last"] = statistics.mean(values[-N_EDGE:])
    return row


def main() -> None:
    """Measure in fresh processes and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--kilobytes", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    n_bytes = 1000 * arguments.kilobytes
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.turns, n_bytes)))
        return
    with stub_server(0.01) as url:
        command = [sys.executable, "-m", "tests.bench.long_conversation", "--one", url]
        command += ["--turns", str(arguments.turns), "--kilobytes", str(arguments.kilobytes)]
        rows = [measured(command) for _ in range(arguments.repetitions)]
    table = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    print(
        f"per turn, first {N_EDGE} and last {N_EDGE} of {arguments.turns}, {arguments.kilobytes} kB at the end:"
    )
    for name, unit in (("ours", "µs to encode"), ("naive", "µs to encode"), ("whole", "ms of CPU")):
        print(f"  {name:6} {table[f'{name} first']:8.2f} -> {table[f'{name} last']:8.2f} {unit}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
