"""Trajectories per second with real sandboxes, a fresh one each, beside a loop of cold kernels.

    python -m tests.bench.real_sandboxes [--concurrency 256] [--trajectories 1000] [--repetitions 3] [--json FILE]

Three cells and an answer, 50 ms for each answer of the stub server, which is a process of its own. `ours`
is the whole runner with the default tier; `cold` makes the same calls and starts a kernel with
jupyter_client for each trajectory, as notebook runners do, so many at a time as the machine has cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop

from sandbox_pool.config import n_cores
from tests.bench.stub import measured, stub_server

LATENCY_S = 0.05
N_COLD = 24


async def ours(url: str, n: int, concurrency: int) -> dict[str, float]:
    """Run n trajectories in the whole runner."""
    from sandbox_pool import PoolConfig, SandboxPool
    from tests.bench.whole_runner import drive, samples

    config = PoolConfig(max_sandboxes=concurrency)
    with tempfile.TemporaryDirectory() as folder:
        async with SandboxPool(config, trusted_code=True) as pool:
            began_at = time.perf_counter()
            ended = await drive(url, samples(n), n, Path(folder), concurrency=concurrency, pool=pool)
            wall_s = time.perf_counter() - began_at
    assert (ended.n_finished, ended.n_failed) == (n, 0), ended
    return {
        "trajectories_per_s": n / wall_s,
        "loop_lag_p50_ms": 1000 * ended.loop_lag_p50_s,
        "loop_lag_p99_ms": 1000 * ended.loop_lag_p99_s,
    }


async def cold(url: str, n: int) -> dict[str, float]:
    """Make the same calls, with a kernel started for each trajectory."""
    from jupyter_client.manager import start_new_async_kernel

    numbers = iter(range(n))

    async def work(http: aiohttp.ClientSession) -> None:
        for _ in numbers:
            manager = client = None
            messages: list[dict[str, Any]] = [{"role": "user", "content": "Count to three."}]
            while True:
                body = orjson.dumps({"model": "stub", "messages": messages})
                async with http.post(f"{url}/chat/completions", data=body) as response:
                    text = orjson.loads(await response.read())["choices"][0]["message"]["content"]
                if "```" not in text:
                    break
                if client is None:
                    manager, client = await start_new_async_kernel(
                        kernel_name="python3", extra_arguments=["--log-level=CRITICAL"]
                    )
                code = text.split("```python\n")[1].split("```")[0]
                await client.execute_interactive(code, output_hook=lambda message: None, timeout=60)
                messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "1\n"}]
            if client is not None:
                client.stop_channels()
                await manager.shutdown_kernel(now=True)

    began_at = time.perf_counter()
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        for _ in range(n_cores()):
            group.create_task(work(http))
    return {"trajectories_per_s": n / (time.perf_counter() - began_at)}


def main() -> None:
    """Measure both in turn, in fresh processes, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--trajectories", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, url = arguments.one
        if kind == "ours":
            row = uvloop.run(ours(url, arguments.trajectories, arguments.concurrency))
        else:
            row = asyncio.run(cold(url, N_COLD))
        print(json.dumps(row))
        return
    rows: dict[str, list[dict[str, float]]] = {"ours": [], "cold": []}
    with stub_server(LATENCY_S) as url:
        for _ in range(arguments.repetitions):
            for kind, of_kind in rows.items():
                command = [sys.executable, "-m", "tests.bench.real_sandboxes", "--one", kind, url]
                command += ["--trajectories", str(arguments.trajectories)]
                of_kind.append(measured([*command, "--concurrency", str(arguments.concurrency)]))
    table = {
        f"{kind} {key}": statistics.median(row[key] for row in of_kind)
        for kind, of_kind in rows.items()
        for key in of_kind[0]
    }
    table["ratio"] = statistics.median(
        o["trajectories_per_s"] / c["trajectories_per_s"] for o, c in zip(*rows.values(), strict=True)
    )
    for key, value in table.items():
        print(f"{key}: {value:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
