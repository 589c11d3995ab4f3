"""What is asked in token ids, and what an answer to it says."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.models.token_history import TokenIds
from runner.models.token_wire import (
    completion_parameters,
    read_ids,
    read_text,
    read_token_reply,
    render_body,
)
from runner.models.wire import BadAnswer


def answered(**choice: Any) -> bytes:
    """Return the body of a completion."""
    whole = {"text": "hi", "token_ids": [5, 1], "prompt_token_ids": [3], "finish_reason": "stop", **choice}
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    return orjson.dumps({"choices": [whole], "usage": usage})


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, {"max_tokens": None}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"max_completion_tokens": 9, "max_tokens": 8}, {"max_tokens": 8}),
        ({"temperature": 0, "cache_salt": "a"}, {"temperature": 0, "cache_salt": "a", "max_tokens": None}),
        ({"chat_template_kwargs": {"a": 1}}, {"max_tokens": None}),
        ({"logprobs": False}, {"max_tokens": None, "logprobs": None}),
        ({"logprobs": True}, {"max_tokens": None, "logprobs": 0, "return_tokens_as_token_ids": True}),
        (
            {"logprobs": True, "top_logprobs": 3, "return_tokens_as_token_ids": False},
            {"max_tokens": None, "logprobs": 3, "return_tokens_as_token_ids": False},
        ),
    ],
)
def test_chats_words_in_those_of_completions(said: dict[str, Any], meant: dict[str, Any]) -> None:
    """A limit of a reply is always said: unset, it is 16 tokens."""
    assert completion_parameters(said) == {**meant, "return_token_ids": True}


@pytest.mark.parametrize("key", ["tools", "reasoning_effort", "truncate_prompt_tokens", "echo", "prompt"])
def test_what_completions_have_no_word_for(key: str) -> None:
    """It would be passed over, or change what the ids mean."""
    with pytest.raises(ConfigError, match=rf"model\.request\.{key} cannot be sent.*model\.transport=chat"):
        completion_parameters({key: None})


def test_a_template_is_told_what_is_its_own() -> None:
    request = {"chat_template_kwargs": {"think": False}, "temperature": 1}
    body = orjson.loads(render_body("m", request, b'[{"role":"user"}]'))
    assert body == {
        "messages": [{"role": "user"}],
        "model": "m",
        "add_generation_prompt": True,
        "chat_template_kwargs": {"think": False},
    }


@pytest.mark.parametrize(
    ("choice", "is_ended"),
    [
        ({}, True),
        ({"stop_reason": 1}, True),
        ({"stop_reason": 7}, False),
        ({"stop_reason": "hi"}, False),
        ({"finish_reason": "length"}, False),
        ({"token_ids": []}, False),
    ],
)
def test_whose_end_a_reply_has(choice: dict[str, Any], is_ended: bool) -> None:
    """The model's own, unless a limit, a stop string or a stop token of the request ended it."""
    reply = read_token_reply(answered(**choice), {"stop_token_ids": [7]})
    assert reply.is_ended is is_ended
    assert (reply.completion.text, reply.completion.usage.total_tokens) == ("hi", 3)


@pytest.mark.parametrize(
    "choice",
    [{"text": None}, {"token_ids": None}, {"token_ids": [1.5]}, {"token_ids": ["1"]}, {"token_ids": [True]},
     {"finish_reason": "abort"}],
)  # fmt: skip
def test_answers_that_are_no_reply(choice: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer):
        read_token_reply(answered(**choice), {})


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"tokens": []}', b'{"tokens": [null]}', b'{"prompt": 1}']
)
def test_answers_that_are_no_tokens_or_text(body: bytes) -> None:
    for read in (read_ids, read_text):
        with pytest.raises(BadAnswer):
            read(body)


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for read in (read_ids, read_text, lambda some: read_token_reply(some, {})):
        with pytest.raises(BadAnswer):
            read(body)


def test_logprobs_that_are_no_completions_stay_as_they_are() -> None:
    for said in (None, [1], {"content": []}, {"tokens": 1}):
        assert read_token_reply(answered(logprobs=said), {}).completion.logprobs == said


@given(st.lists(st.lists(st.integers(0, 2**31), max_size=5)))
def test_ids_are_encoded_as_they_grow(parts: list[list[int]]) -> None:
    """Each part once; together they are the JSON of all."""
    ids = TokenIds()
    for part in parts:
        ids = ids.plus(part)
    everything = [token for part in parts for token in part]
    assert orjson.loads(b"[%b]" % ids.encoded) == everything
    assert ids.n_tokens == len(everything)
