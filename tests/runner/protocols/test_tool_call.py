"""Native tool calls: what is executed, what is answered, what goes back to the server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocols import Action, Malformed, Reply, ToolCall
from sandbox_pool import Observation, Status, Stream

protocol = ToolCall(ToolCall.default_limits)


def call(arguments: Any, call_id: str = "c1", name: str = "python") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_several_calls_in_order() -> None:
    """Each call of one reply is an action, with the id that its answer must carry."""
    calls = [call('{"code": "a"}', "x"), call('{"code": "b"}', "y")]
    reply = protocol.parse("thinking", "tool_calls", calls)
    assert reply.actions == (Action("a", "x"), Action("b", "y"))
    assert reply.message == {"role": "assistant", "content": "thinking", "tool_calls": calls}


def test_no_call_is_the_answer() -> None:
    """Plain text ends the task."""
    assert protocol.parse("42", "stop", None) == Reply({"role": "assistant", "content": "42"})


@pytest.mark.parametrize(
    ("bad", "finish", "problem"),
    [
        (call("{}", name="bash"), "tool_calls", "no tool 'bash'; the only tool is 'python'"),
        (call('{"code": "pri'), "length", "cut off at the token limit"),
        (call("print(1)"), "tool_calls", 'not JSON .*; send {"code": "..."}'),
        (call('{"code": ""}'), "tool_calls", "there is no code"),
        (call('{"cod": "1"}'), "tool_calls", "there is no code"),
        (call('{"code": 1}'), "tool_calls", "there is no code"),
        (call("[]"), "tool_calls", "there is no code"),
        (call("[" * 20_000), "tool_calls", "nested too deeply"),
    ],
)
def test_bad_calls_are_answered(bad: dict[str, Any], finish: str, problem: str) -> None:
    """A call that cannot be executed is told why, under its id: servers refuse one without an answer."""
    (malformed,) = protocol.parse("", finish, [bad]).actions
    assert isinstance(malformed, Malformed)
    message = protocol.problem_message(malformed)
    assert (message["role"], message["tool_call_id"]) == ("tool", "c1")
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(message["content"])


def test_what_servers_send_is_mended() -> None:
    """A missing id is made up, arguments that are an object already or bare code as a string are taken."""
    calls: list[Any] = [
        {"function": {"name": "python", "arguments": {"code": "a"}}},
        call('"b"', ""),
        "nonsense",
    ]
    reply = protocol.parse("", "tool_calls", calls)
    assert reply.actions[:2] == (Action("a", "call_1"), Action("b", "call_2"))
    assert isinstance(reply.actions[2], Malformed)
    assert [sent["id"] for sent in reply.message["tool_calls"]] == ["call_1", "call_2", "call_3"]
    assert all(isinstance(sent["function"]["arguments"], str) for sent in reply.message["tool_calls"])


def nested(n_levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(n_levels):
        value = [value]
    return value


@pytest.mark.parametrize("n_levels", [300, 1020, 5000])
def test_arguments_nested_deeply_can_be_sent_back(n_levels: int) -> None:
    """An object in the place of the text, however deep, is answered; code beside what is deep is executed."""
    arguments: list[Any] = [nested(n_levels), {"code": "a", "more": nested(n_levels)}]
    reply = protocol.parse("", "tool_calls", [call(a) for a in arguments])
    assert isinstance(reply.actions[0], Malformed)
    assert reply.actions[1] == Action("a", "c1")
    assert all(json.loads(sent["function"]["arguments"]) for sent in reply.message["tool_calls"])


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "function", "name", "arguments", "code"]), inner, max_size=4), max_leaves=12)  # fmt: skip


TEXT = st.text(max_size=20) | st.integers(0, 3000).map(lambda n: "[" * n) | st.just("1" * 5000)


@given(st.text(max_size=20), st.none() | st.lists(JSON | TEXT.map(call), max_size=3))
def test_parsing_never_raises(text: str, calls: list[Any] | None) -> None:
    """Whatever a server sends; there is an answer for each call, and the message can be sent back."""
    reply = protocol.parse(text, None, calls)
    assert len(reply.actions) == len(calls or ())
    ids = [sent["id"] for sent in reply.message.get("tool_calls", ())]
    assert [action.call_id for action in reply.actions] == ids
    json.dumps(reply.message)


@given(st.text(min_size=1).filter(str.strip))
def test_rendered_action_is_read_back(code: str) -> None:
    """What the oracle writes is what is executed."""
    written = protocol.write_action(code)
    assert [a.code for a in protocol.parse(written.text, "tool_calls", written.tool_calls).actions] == [code]  # type: ignore[union-attr]


def test_observation_answers_its_call() -> None:
    """The output goes back as the tool's message; silence is said, and so is a stop."""
    printed = Observation(Status.OK, (Stream("stdout", "1\n"),))
    assert protocol.observation_message(Action("x", "c1"), printed) == {
        "role": "tool",
        "tool_call_id": "c1",
        "content": "1\n",
    }
    assert protocol.render_observation(Observation(Status.OK)) == "[no output]"
    assert "stopped after" in protocol.render_observation(Observation(Status.TIMEOUT, duration_s=3.0))
