"""What many samples cost: memory, and CPU per trajectory, at the start and at the end of a long run.

    python -m tests.bench.memory [--samples 100000] [--concurrency 1024] [--turns 1] [--json FILE]

Samples are lines of a JSONL file, and one call answers each (with --turns 4: three cells and an answer).
The stub server answers at once, in a process of its own; the sandbox does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.stub import cpu_s, max_rss_mib, stub_server


def rss_mib() -> float:
    """Return the memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def run(url: str, n: int, concurrency: int, n_turns: int, folder: Path) -> list[dict[str, Any]]:
    """Run n samples; return a row for each tenth of them."""
    from bench_data import DataOptions, load
    from runner.plan import attempts
    from tests.bench.whole_runner import drive

    tasks = folder / "tasks.jsonl"
    with tasks.open("w") as file:
        for number in range(n):
            text = f"Task {number}: " + "Count to three, and say what you have found. " * 6
            row = {"id": f"sample-{number}", "messages": [{"role": "user", "content": text}]}
            file.write(json.dumps(row) + "\n")
    began_at = time.perf_counter()
    benchmark = load(f"jsonl:{tasks}", DataOptions())
    rows = [{"n_done": 0, "rss_mib": rss_mib(), "load_s": time.perf_counter() - began_at, "cpu_s": cpu_s()}]
    source = attempts(benchmark.samples, 1, frozenset())

    def watched() -> Any:
        for number, attempt in enumerate(source):
            if number and number % (n // 10) == 0:
                rows.append({"n_done": number, "rss_mib": rss_mib(), "cpu_s": cpu_s()})
            yield attempt

    statistics = await drive(url, watched(), n, folder, concurrency=concurrency, max_turns=n_turns)
    assert statistics.n_finished == n, statistics
    rows.append({"n_done": n, "rss_mib": rss_mib(), "cpu_s": cpu_s()})
    return rows


def main() -> None:
    """Run, and print memory and CPU per trajectory as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with stub_server(0.0) as url, tempfile.TemporaryDirectory() as folder:
        rows = uvloop.run(run(url, arguments.samples, arguments.concurrency, arguments.turns, Path(folder)))
    for before, row in pairwise(rows):
        n = row["n_done"] - before["n_done"]
        row["cpu_ms_per_trajectory"] = 1000 * (row["cpu_s"] - before["cpu_s"]) / n
        print(
            f"{row['n_done']:7} done: {row['rss_mib']:.0f} MiB, {row['cpu_ms_per_trajectory']:.2f} ms of CPU each"
        )
    print(f"loading {rows[0]['load_s']:.1f} s; at most {max_rss_mib():.0f} MiB; {os.cpu_count()} cores")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
