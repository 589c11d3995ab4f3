"""vLLM itself: boots on the tiny model, and says what our client, routing and admission read in its replies."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from runner.models.engine_metrics import parse_engine_load
from tests.engines_real.serving import BOOT_LIMIT_S, NAME
from tests.engines_real.tiny_llama import WINDOW_TOKENS

pytestmark = [pytest.mark.engines, pytest.mark.timeout(BOOT_LIMIT_S + 120)]

CODE = r"```python\nprint\([0-9]{1,6}\)\n```"
MESSAGES = [{"role": "user", "content": "Print a number. " * 20}]
CAPTURED = Path(__file__).parents[1] / "runner/models/vllm_metrics.txt"


def ask(url: str, **body: object) -> tuple[int, dict[str, Any]]:
    """Return the status and the reply to a JSON body, or to none."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def chat(server: str, **parameters: object) -> tuple[int, dict[str, Any]]:
    """Ask for a chat completion."""
    body = {"model": NAME, "messages": MESSAGES, "max_tokens": 32, **parameters}
    return ask(f"{server}/v1/chat/completions", **body)


def page(server: str) -> str:
    """Return the metrics page."""
    with urllib.request.urlopen(f"{server}/metrics", timeout=100) as answer:
        return str(answer.read(), "utf-8")


def test_models_are_named_with_their_window(server: str) -> None:
    status, listed = ask(f"{server}/v1/models")
    assert status == 200
    assert {row["id"]: row["max_model_len"] for row in listed["data"]}[NAME] == WINDOW_TOKENS


def test_chat_is_the_same_for_a_seed(server: str) -> None:
    """A completion by the template, as long as was asked for at most, and again with the same seed."""
    (status, first), (_, again), (_, other) = (chat(server, seed=seed) for seed in (1, 1, 2))
    assert status == 200
    assert 0 < first["usage"]["completion_tokens"] <= 32
    assert first["choices"][0]["message"]["content"] == again["choices"][0]["message"]["content"]
    assert first["choices"][0]["message"]["content"] != other["choices"][0]["message"]["content"]


@pytest.mark.parametrize("seed", range(3))
def test_structured_output_is_code(server: str, seed: int) -> None:
    """A random model writes a block of Python that prints, and stops."""
    status, reply = chat(server, seed=seed, max_tokens=100, structured_outputs={"regex": CODE})
    assert status == 200
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert re.fullmatch(CODE, reply["choices"][0]["message"]["content"])


def test_prompt_goes_on_where_it_ended(server: str) -> None:
    """By the template, a next turn's prompt begins with all of this turn's: the prefix is there again."""
    _, first = chat(server, seed=1, return_token_ids=True, structured_outputs={"regex": CODE}, max_tokens=100)
    said = {"role": "assistant", "content": first["choices"][0]["message"]["content"]}
    _, second = chat(server, messages=[*MESSAGES, said, MESSAGES[0]], return_token_ids=True)
    before = first["prompt_token_ids"]
    assert second["prompt_token_ids"][: len(before)] == before


def test_overflow_names_the_window(server: str) -> None:
    """What the runner takes for the end of a trajectory: a 400 that names the input as what is too long."""
    long = [{"role": "user", "content": "abcdefgh" * WINDOW_TOKENS}]
    status, reply = chat(server, messages=long)
    assert (status, reply["error"]["type"]) == (400, "BadRequestError")
    assert reply["error"]["param"] in {"input_tokens", "input_text"}
    assert f"maximum context length is {WINDOW_TOKENS} tokens" in reply["error"]["message"]


def test_metrics_are_read(server: str) -> None:
    """Tokens generated and prefixes hit are counted by vLLM as by its replies."""
    before = parse_engine_load(page(server))
    fresh = [{"role": "user", "content": "Count the words of this text. " * 40}]
    replies = [chat(server, messages=fresh, seed=1)[1] for _ in range(2)]
    after = parse_engine_load(page(server))

    assert before is not None
    assert after is not None
    generated = sum(reply["usage"]["completion_tokens"] for reply in replies)
    asked = sum(reply["usage"]["prompt_tokens"] for reply in replies)
    assert after.n_generated_tokens - before.n_generated_tokens == generated
    assert after.n_prefix_queries - before.n_prefix_queries == asked
    assert asked // 4 < after.n_prefix_hits - before.n_prefix_hits < asked // 2
    assert (after.n_running, after.n_waiting) == (0, 0)
    assert after.max_kv_tokens
    assert after.max_kv_tokens >= WINDOW_TOKENS


def test_metrics_have_the_names_of_the_captured_page(server: str) -> None:
    """The fast tests read a page that vLLM still serves."""
    names = set(re.findall(r"^(vllm:\w+)", page(server), re.MULTILINE))
    captured = set(re.findall(r"^(vllm:\w+)", CAPTURED.read_text(encoding="utf-8"), re.MULTILINE))
    assert captured
    assert captured <= names
