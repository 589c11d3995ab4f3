"""Asks the judge about pairs of trajectories, each twice, with the positions swapped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_data import Sample
from runner.errors import ConfigError, ContextOverflow, ModelRefused
from runner.models import (
    CachingClient,
    Conversation,
    ModelClient,
    ModelConfig,
    ModelRequest,
    OpenAIClient,
)
from runner.records import attempt_id
from scoring.judge.question import MESSAGE_CHARS, Pair, Recorded, judge_messages, shorten
from scoring.judge.verdicts import JudgedTask, Problem, Verdict, VerdictError, combine, parse_verdict

MAX_REPLIES = 3
"""Of the judge to one question: after that many without a verdict the task is unparsable."""

RETRY = "That reply cannot be used: {problem}. Reply with the JSON object alone, in the form asked for."


def judge_client(
    urls: Sequence[str],
    *,
    name: str | None,
    request: dict[str, Any],
    api_key_env: str | None,
    cache: Path | None,
    concurrency: int,
) -> ModelClient:
    """Return the client of a judge at OpenAI-compatible servers, not started yet.

    Args:
        urls: of servers of one model.
        name: the model's; None: the only one that the server lists.
        request: merged into each request.
        api_key_env: the environment variable that holds the API key; None: none is sent.
        cache: a folder of replies to what was asked before.
        concurrency: pairs at a time.

    Raises:
        ConfigError: that variable is not set.
    """
    key = None
    if api_key_env and not (key := os.environ.get(api_key_env)):
        raise ConfigError(f"--api-key-env: the environment variable {api_key_env} is not set")
    client_words = f"openai:{','.join(urls)}"
    config = ModelConfig(client=client_words, name=name, request=request, api_key_env=api_key_env)
    client = OpenAIClient(urls, config, key, concurrency=concurrency)
    return CachingClient(client, cache) if cache else client


async def judge_runs(client: ModelClient, pairs: Iterable[Pair], *, concurrency: int) -> list[JudgedTask]:
    """Ask the judge about each pair, `concurrency` pairs at a time; return its verdicts in their order.

    The caller starts and closes the client. Safe to cancel.

    Raises:
        ExceptionGroup: of ModelUnavailable, when the server gives no usable answer after all retries.
    """
    judged: dict[int, JudgedTask] = {}
    waiting = enumerate(pairs)

    async def work() -> None:
        for number, pair in waiting:
            judged[number] = await _judge_pair(client, pair)
            client.forget(attempt_id(pair.sample.id, 1))

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    return [judged[number] for number in sorted(judged)]


async def _judge_pair(client: ModelClient, pair: Pair) -> JudgedTask:
    runs = {"candidate": pair.candidate, "reference": pair.reference}
    verdicts: list[Verdict] = []
    n_tokens = 0
    task = JudgedTask(pair.sample.id)
    for first, second in ((pair.candidate, pair.reference), (pair.reference, pair.candidate)):
        answer, n_used = await _ask(client, pair.sample, first, second)
        n_tokens += n_used
        if not isinstance(answer, Verdict):
            task = replace(task, problem=answer[0], reasons=(answer[1],))
            break
        verdicts.append(answer)
    else:
        task = combine(pair, *verdicts)
    return replace(
        task,
        missing=[name for name, recorded in runs.items() if recorded is None],
        n_turns=pair.candidate.n_turns if pair.candidate else 0,
        model=client.name,
        n_tokens=n_tokens,
    )


async def _ask(
    client: ModelClient, sample: Sample, first: Recorded | None, second: Recorded | None
) -> tuple[Verdict | tuple[Problem, str], int]:
    """Return the verdict, or why there is none, and the tokens that it took."""
    conversation = Conversation(judge_messages(sample, first, second))
    n_tokens, problem = 0, ""
    for _ in range(MAX_REPLIES):
        try:
            completion = await client.complete(ModelRequest(sample, 1, 0, conversation))
        except (ContextOverflow, ModelRefused) as error:
            return ("refused", str(error)), n_tokens
        n_tokens += completion.usage.total_tokens
        try:
            return parse_verdict(completion.text), n_tokens
        except VerdictError as error:
            problem = str(error)
        said = shorten(completion.text, *MESSAGE_CHARS) or "(an empty reply)"
        conversation.append({"role": "assistant", "content": said})
        conversation.append({"role": "user", "content": RETRY.format(problem=problem)})
    return ("unparsable", problem), n_tokens
