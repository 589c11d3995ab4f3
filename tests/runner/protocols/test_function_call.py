"""PyBench's calls in the text of a reply, against what upstream does (fa90fae) and against arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocols import Action, Fenced, FunctionCall, Reply
from runner.protocols.base import assistant
from sandbox_pool import Error, Observation, Status, Stream

calls = FunctionCall(None)
text = st.text(st.characters(exclude_categories=())) | st.lists(
    st.sampled_from(["<|tool_call|>", "{", "}", '"code"', ":", '"x"', "\n", "\\", "[" * 50, "\ud800"])
).map("".join)


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        pytest.param('Look:<|tool_call|>{"code": "print(1)"}', "print(1)", id="one-call"),
        pytest.param('<|tool_call|>run {"code": "a"} now', "a", id="words-around-it"),
        pytest.param('<|tool_call|>{"code": "a\nb"}', "a\nb", id="raw-line-break-in-the-code"),
        pytest.param('<|tool_call|>{"code": "a\\nb"}', "a\nb", id="escaped-line-break"),
        pytest.param('<|tool_call|>{"name": "x", "code": "d = {1: 2}"}', "d = {1: 2}", id="braces-in-the-code"),
        pytest.param('{"code": "before"}<|tool_call|>{"code": "a"}', "a", id="json-before-the-token"),
        pytest.param('<|tool_call|>{"code": " a "}', "a", id="stripped"),
    ],
)  # fmt: skip
def test_json_behind_the_token_is_the_action(completion: str, code: str) -> None:
    """The code is what the JSON between the first and the last brace says."""
    assert calls.parse(completion, "stop") == Reply(assistant(completion), (Action(code),))


@pytest.mark.parametrize(
    "completion",
    [
        pytest.param("Finished: 42", id="absent"),
        pytest.param('{"code": "a"}', id="no-token"),
        pytest.param('<|tool_call|>{"code": "a"', id="cut-off"),
        pytest.param('<|tool_call|>{\n"code": "a"}', id="line-break-outside-the-strings"),
        pytest.param('<|tool_call|>{"code": "a"} {"code": "b"}', id="two-objects"),
        pytest.param('<|tool_call|>{"cell": "a"}', id="no-code"),
        pytest.param('<|tool_call|>{"code": ["a"]}', id="code-is-no-text"),
        pytest.param('<|tool_call|>{"code": " "}', id="blank"),
        pytest.param("<|tool_call|>}{", id="braces-the-wrong-way-round"),
        pytest.param("```python\na\n```", id="fence"),
        pytest.param("<|tool_call|>" + '{"code":' + "[" * 100_000 + "}", id="deep"),
    ],
)
def test_no_code_ends_the_task(completion: str) -> None:
    """What is no call, or cannot be read, is an answer."""
    assert calls.parse(completion, "stop") == Reply(assistant(completion))


@given(text, st.none() | st.text())
def test_parsing_never_raises(completion: str, finish_reason: str | None) -> None:
    """Any text is an action or an answer, and is kept as it is."""
    assert calls.parse(completion, finish_reason).message == assistant(completion)


@given(st.text().filter(str.strip), st.sampled_from(["<|tool_call|>", "CALL "]))
def test_rendered_action_is_read_back(code: str, token: str) -> None:
    """What the oracle writes is what is executed, whatever the token."""
    protocol = FunctionCall(None, token)
    written = protocol.write_action(code).text
    assert protocol.parse(written, "stop") == Reply(assistant(written), (Action(code.strip()),))


def test_observation_is_upstreams_string() -> None:
    """The same as in its other mode."""
    outputs = (Stream("stdout", "a\n"), Error("KeyError", "'x'", "Traceback ..."))
    observation = Observation(status=Status.ERROR, outputs=outputs)
    rendered = calls.render_observation(observation)
    assert rendered == Fenced(None).render_observation(observation)
    assert rendered.startswith("[INFO]This is a Code Interpreter Message:\na\n")


def test_own_prompt_shows_the_token() -> None:
    """The model is told the form that is read."""
    assert '<|tool_call|>{"code": "your code"}' in calls.system_prompt
    other = FunctionCall(None, "<call>").system_prompt
    assert '<call>{"code": "your code"}' in other
    assert "<|tool_call|>" not in other
