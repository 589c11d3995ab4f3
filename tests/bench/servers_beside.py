"""Servers of one model, side by side: requests per second of each, taking turns.

    python -m tests.bench.servers_beside --model NAME plain=http://HOST:8000/v1 serve=http://HOST:8001/v1 ...

For Ray Serve LLM beside vLLM's own server and an engine of ours: start them, name them, and read the table. A
bare aiohttp loop asks, with nothing of ours between. The first that is named is what the others are divided by.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import aiohttp
import uvloop

from tests.bench.conversations import ask_bare, requests_per_s
from tests.bench.engine_routing import markdown

WARM_UP_S, WINDOW_S = 5.0, 8.0


async def measure(
    urls: Mapping[str, str],
    model: str,
    n_in_flight: int,
    max_tokens: int,
    repetitions: int,
    *,
    warm_up_s: float = WARM_UP_S,
    window_s: float = WINDOW_S,
) -> dict[str, list[float]]:
    """Return requests per second of each server and its ratio to the first, once for each repetition."""
    first, *others = urls
    figures: dict[str, list[float]] = {f"{name} req/s": [] for name in urls}
    figures |= {f"{name} / {first}": [] for name in others}
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        # No seed: vLLM's build for the CPU ends when several requests with one come together.
        asks = {
            name: ask_bare(http, url, model=model, max_tokens=max_tokens, seed=None, temperature=0.5)
            for name, url in urls.items()
        }
        for ask in asks.values():
            await requests_per_s(ask, n_in_flight, warm_up_s, lambda attempt: None)
        for number in range(repetitions):
            order = list(asks)[number % len(asks) :] + list(asks)[: number % len(asks)]
            rates = {
                name: await requests_per_s(asks[name], n_in_flight, window_s, lambda attempt: None)
                for name in order
            }
            for name in urls:
                figures[f"{name} req/s"].append(rates[name])
            for name in others:
                figures[f"{name} / {first}"].append(rates[name] / rates[first])
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("servers", metavar="NAME=URL", nargs="+")
    parser.add_argument("--model", required=True, help="its name in requests")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    asked = parser.parse_args(argv)
    urls = dict(server.split("=", 1) for server in asked.servers)
    figures = uvloop.run(measure(urls, asked.model, asked.in_flight, asked.max_tokens, asked.repetitions))
    print(markdown(figures), file=sys.stdout)


if __name__ == "__main__":
    main()
