"""The fake engine counts its cache truly, refuses in vLLM's words, and keeps what it says by prompt and seed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.models.engine_metrics import parse_engine_load
from runner.models.wire import is_context_overflow
from tests.fake_engine import parse
from tests.fake_engine_core import FakeCore, PrefixCache, Refused, detokenize, render, tokenize


def core(*options: str) -> FakeCore:
    """Return the part without HTTP."""
    return FakeCore(parse(["--model", "m", *options]))


async def chat(engine: FakeCore, text: str, **body: Any) -> dict[str, Any]:
    """Ask with one message."""
    prompt = render([{"role": "user", "content": text}])
    made = await engine.generate(tokenize(prompt), body, len(prompt))
    return {**made, "text": detokenize(made["output"], skip_special=True)}


@given(st.text())
def test_tokens_are_text(text: str) -> None:
    """Any text, and numbers that JSON can hold."""
    ids = tokenize(text)
    assert detokenize(ids) == text
    assert all(0 < token < 2**53 for token in ids)


@given(shared=st.integers(0, 40), own=st.integers(1, 40), block_size=st.integers(1, 8))
def test_hits_are_whole_blocks_of_a_shared_beginning(shared: int, own: int, block_size: int) -> None:
    """Never the last token, which is always computed."""
    cache = PrefixCache(block_size, 10_000)
    first, second = [1] * shared + [2] * own, [1] * shared + [3] * own
    cache.hold(first, "")
    assert cache.look_up(second, "") == shared // block_size * block_size
    assert cache.look_up(first, "") == (shared + own - 1) // block_size * block_size
    assert cache.look_up(first, "another salt") == 0
    assert cache.n_queries == 3 * (shared + own)


def test_a_full_cache_forgets_what_was_used_longest_ago() -> None:
    """As vLLM's does."""
    cache = PrefixCache(2, 2)
    for ids in ([1, 1], [2, 2], [3, 3]):
        cache.hold(ids, "")
    assert [cache.look_up([*ids, 0], "") for ids in ([1, 1], [2, 2], [3, 3])] == [0, 2, 2]


async def test_replies_depend_on_prompt_and_seed() -> None:
    """So that a turn that was redone elsewhere can be told from one that was changed."""
    first, again, other = [await chat(core(), "hello", seed=seed) for seed in (1, 1, 2)]
    assert first["text"] == again["text"] != other["text"]
    assert first["text"].startswith("```python")


async def test_a_conversation_that_goes_on_hits() -> None:
    """And the metrics page says so, in vLLM's names."""
    engine = core()
    messages = [{"role": "user", "content": "a question " * 40}]
    for _ in range(4):
        prompt = render(messages)
        made = await engine.generate(tokenize(prompt), {}, len(prompt))
        messages += [
            {"role": "assistant", "content": detokenize(made["output"], skip_special=True)},
            {"role": "user", "content": "ok"},
        ]
    load = parse_engine_load(engine.metrics())
    assert load is not None
    assert load.n_prefix_hits / load.n_prefix_queries > 0.6
    assert load.n_generated_tokens > 0
    assert load.max_kv_tokens == 16 * 65536
    assert "All done" in messages[-2]["content"]


@pytest.mark.parametrize(("n_chars", "param"), [(120, "input_tokens"), (200, "input_text")])
async def test_overflow_is_refused_as_vllm_does(n_chars: int, param: str) -> None:
    """By the tokens that were asked for as well, and recognized by the client."""
    with pytest.raises(Refused) as caught:
        await chat(core("--max-model-len", "80"), "x" * (n_chars - 36), max_tokens=40)
    error = caught.value.body["error"]
    assert (caught.value.status, error["type"], error["param"]) == (400, "BadRequestError", param)
    assert error["message"].startswith("This model's maximum context length is 80 tokens.")
    assert is_context_overflow(400, str(caught.value.body).encode())


async def test_stop_strings_and_lengths() -> None:
    """Cut before or behind, or at the limit."""
    engine = core()
    cut = await chat(engine, "x", stop=["print"])
    assert (cut["text"], cut["reason"], cut["stop"]) == ("```python\n", "stop", "print")
    kept = await chat(engine, "x", stop=["print"], include_stop_str_in_output=True)
    assert kept["text"] == "```python\nprint"
    short = await chat(engine, "x", max_tokens=3)
    assert (len(short["output"]), short["reason"]) == (3, "length")
    long = await chat(engine, "x", max_tokens=300, ignore_eos=True)
    assert (len(long["output"]), long["reason"]) == (300, "length")


async def test_another_model_is_not_there() -> None:
    """404, as vLLM."""
    with pytest.raises(Refused, match="The model `n` does not exist") as caught:
        await chat(core(), "x", model="n")
    assert caught.value.status == 404


async def test_what_has_no_seat_waits() -> None:
    """And the metrics count it."""
    engine = core("--max-num-seqs", "1", "--token-s", "0.001")
    seen = []
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(chat(engine, "x"))
        await asyncio.sleep(0.005)
        seen.append((engine.n_running, engine.n_waiting))
    assert seen == [(1, 2)]
    assert (engine.n_running, engine.n_waiting) == (0, 0)


def test_options_of_vllm_are_taken() -> None:
    """Known ones count, others do not matter."""
    options = parse(
        ["--model", "m", "--no-enable-log-requests", "--lora-modules", "a=b", "--max-num-seqs", "3"]
    )
    assert (options.model, options.max_num_seqs) == ("m", 3)
