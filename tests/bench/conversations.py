"""Conversations held through our client, as the measurements of engines need them, and what they cost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from runner.config import AdmissionConfig, ModelConfig
from runner.models import ModelRequest, OpenAIClient
from runner.models.conversation import Conversation
from runner.models.engine_metrics import parse_engine_load
from tests.runner.factories import sample

SYSTEM = "You write Python, and are told what it printed. " * 30
TASK_CHARS = 600
OBSERVATION_CHARS = 800

Ask = Callable[[str, Conversation], Awaitable[str]]
"""Attempt and conversation -> reply."""


@dataclass(frozen=True)
class Prefill:
    """What engines were asked for, and had in their caches, in tokens."""

    n_queries: int
    n_hits: int

    @property
    def n_computed(self) -> int:
        """What their prompts cost."""
        return self.n_queries - self.n_hits

    @property
    def hit_rate(self) -> float:
        """Of the tokens asked for."""
        return self.n_hits / self.n_queries


def client(urls: Sequence[str], n_trajectories: int, *, name: str = "m", **model: Any) -> OpenAIClient:
    """Return our client, as a run has it; `model` are further settings of its section."""
    settings = ModelConfig.model_validate({"client": "openai:x", "name": name, **model})
    return OpenAIClient(urls, settings, admission=AdmissionConfig(), concurrency=n_trajectories)


def ask_by(model: OpenAIClient) -> Ask:
    """Return what asks our client."""

    async def ask(attempt: str, conversation: Conversation) -> str:
        name, _, epoch = attempt.rpartition("@")
        request = ModelRequest(sample(name), int(epoch), len(conversation) // 2, conversation, seed=7)
        return (await model.complete(request)).text

    return ask


def ask_bare(http: aiohttp.ClientSession, url: str, **body: Any) -> Ask:
    """Return what asks with nothing between."""

    async def ask(attempt: str, conversation: Conversation) -> str:
        data = orjson.dumps({"model": "m", "seed": 7, **body, "messages": conversation.messages})
        async with http.post(f"{url}/chat/completions", data=data) as response:
            return str(orjson.loads(await response.read())["choices"][0]["message"]["content"])

    return ask


async def talk(ask: Ask, attempt: str, n_turns: int) -> None:
    """Hold a conversation."""
    rng = random.Random(attempt)
    task = "".join(rng.choices("abcdefgh ", k=TASK_CHARS))
    conversation = Conversation([{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}])
    for _ in range(n_turns):
        reply = await ask(attempt, conversation)
        conversation.append({"role": "assistant", "content": reply})
        observed = "".join(rng.choices("0123456789 ", k=OBSERVATION_CHARS))
        conversation.append({"role": "user", "content": observed})


async def cached(urls: Sequence[str]) -> Prefill:
    """Return what the engines have counted so far."""
    n_queries = n_hits = 0
    async with aiohttp.ClientSession() as http:
        for url in urls:
            async with http.get(f"{url.removesuffix('/v1')}/metrics") as response:
                load = parse_engine_load(await response.text())
            assert load is not None
            n_queries, n_hits = n_queries + load.n_prefix_queries, n_hits + load.n_prefix_hits
    return Prefill(n_queries, n_hits)


async def prefill(
    urls: Sequence[str], policy: str, salt: str, n_trajectories: int, n_turns: int, **model: Any
) -> Prefill:
    """Hold so many conversations at once, behind two others; `policy` is sticky, random or single.

    Each policy and salt has prefixes of its own. `model` goes to `client`.
    """
    groups = {"sticky": [urls], "random": [[url] for url in urls], "single": [urls[:1]]}[policy]
    request = {**model.pop("request", {}), "cache_salt": f"{policy} {salt}"}
    clients = [client(group, n_trajectories, request=request, **model) for group in groups]
    asks, rng = [ask_by(one) for one in clients], random.Random(salt)

    async def ask(attempt: str, conversation: Conversation) -> str:
        return await rng.choice(asks)(attempt, conversation)

    before = await cached(urls)
    for one in clients:
        await one.start()
    for name in ("first", "second"):  # as in a run under way, each engine knows the system prompt
        await talk(ask, f"{name}@1", n_turns)
    async with asyncio.TaskGroup() as tasks:
        for number in range(n_trajectories):
            tasks.create_task(talk(ask, f"{number}@1", n_turns))
    for one in clients:
        await one.close()
    after = await cached(urls)
    return Prefill(after.n_queries - before.n_queries, after.n_hits - before.n_hits)


async def prefill_ratios(
    urls: Sequence[str], salt: str, n_trajectories: int, n_turns: int, **model: Any
) -> dict[str, float]:
    """Return what sticking computes beside chance, and how often it hits beside one engine for all."""
    of = {
        policy: await prefill(urls, policy, salt, n_trajectories, n_turns, **model)
        for policy in ("sticky", "random", "single")
    }
    return {
        f"sticky / random prefill, {n_turns} turns": of["sticky"].n_computed / of["random"].n_computed,
        f"sticky / single hit rate, {n_turns} turns": of["sticky"].hit_rate / of["single"].hit_rate,
    }


async def requests_per_s(
    ask: Ask, n_trajectories: int, window_s: float, forget: Callable[[str], None]
) -> float:
    """Keep so many short conversations going; return the replies per second, but for the first second."""
    n_replies, counted_from = 0, time.perf_counter() + min(1.0, window_s / 5)
    until = counted_from + window_s

    async def counted(attempt: str, conversation: Conversation) -> str:
        nonlocal n_replies
        reply = await ask(attempt, conversation)
        n_replies += counted_from <= time.perf_counter() < until
        return reply

    async def work(number: int) -> None:
        n_done = 0
        while time.perf_counter() < until:
            attempt = f"{number}-{n_done}@1"
            conversation = Conversation([{"role": "user", "content": f"Count to three, {attempt}."}])
            for _ in range(3):
                reply = await counted(attempt, conversation)
                conversation.append({"role": "assistant", "content": reply})
                conversation.append({"role": "user", "content": "1\n"})
            forget(attempt)
            n_done += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(n_trajectories):
            tasks.create_task(work(number))
    return n_replies / window_s
