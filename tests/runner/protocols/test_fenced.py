"""PyBench's protocol, against what upstream does (fa90fae) and against arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocols import Action, Fenced, Reply
from runner.protocols.base import TextLimits, assistant
from sandbox_pool import Display, Error, Observation, Result, Status, Stream

START = "[INFO]This is a Code Interpreter Message:\n"
fenced = Fenced(None)
text = st.text(st.characters(exclude_categories=())) | st.lists(
    st.sampled_from(["```python", "```", "\n", "x = 1", "``", "`", "python", "Finished: 3", "\ud800"])
).map("".join)


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        pytest.param("Look:\n```python\nprint(1)\n```\nbye", "print(1)", id="one-block"),
        pytest.param("```python\na\n```\n```python\nb\n```", "a", id="first-of-two"),
        pytest.param("```python\na\n```\nFinished: 3", "a", id="finished-does-not-end-it"),
        pytest.param("<|execute_start|>\n```python\na\n```\n<|execute_end|>", "a", id="tags-are-not-parsed"),
        pytest.param("```python a```", "a", id="in-one-line"),
        pytest.param("```\nx\n```python\ny\n```", "y", id="other-fence-before"),
        pytest.param("```python\ns = '''\n```\n'''\n```", "s = '''", id="fence-in-a-string-ends-the-block"),
    ],
)
def test_first_block_is_the_action(completion: str, code: str) -> None:
    """The code is what stands between the first opening fence and the next fence, stripped."""
    assert fenced.parse(completion, "stop") == Reply(assistant(completion), (Action(code),))


@pytest.mark.parametrize(
    "completion",
    [
        pytest.param("Finished: 42", id="absent"),
        pytest.param("```python\nprint(1)", id="unclosed"),
        pytest.param("```python\n \n```", id="blank"),
        pytest.param("```py\nprint(1)\n```", id="other-language"),
        pytest.param("", id="empty"),
    ],
)
def test_no_code_ends_the_task(completion: str) -> None:
    """An absent, unclosed or blank block is an answer, whatever the finish reason."""
    assert fenced.parse(completion, "length") == Reply(assistant(completion))


@given(text, st.none() | st.text())
def test_parsing_never_raises(completion: str, finish_reason: str | None) -> None:
    """Any text is an action or an answer, and is kept as it is."""
    assert fenced.parse(completion, finish_reason).message == assistant(completion)


@given(st.text().filter(lambda code: code.strip() and "```" not in code))
def test_rendered_action_is_read_back(code: str) -> None:
    """What the oracle writes is what is executed."""
    text = fenced.write_action(code).text
    assert fenced.parse(text, "stop") == Reply(assistant(text), (Action(code.strip()),))


def test_observation_is_upstreams_string() -> None:
    """Streams, result and error in order, without separators, traceback or figures."""
    observation = Observation(
        status=Status.ERROR,
        outputs=(
            Stream("stdout", "a\n"),
            Stream("stderr", "warn\n"),
            Display({"image/png": b"x", "text/plain": "<Figure>"}),
            Result({"text/plain": "42"}),
            Error("KeyError", "'x'", "Traceback ..."),
        ),
    )

    expected = (
        START
        + "a\nwarn\n42There are some errors in the code. All variables in this cell should be redefined. "
        "Please Debug:\nError: KeyError\n'x'\n"
    )
    assert fenced.render_observation(observation) == expected


def test_empty_observation() -> None:
    """A cell without output gives upstream's line alone."""
    assert fenced.render_observation(Observation(status=Status.OK)) == START


def test_observation_is_shortened() -> None:
    """With limits the head and the tail are shown, and how much is missing."""
    protocol = Fenced(TextLimits(head_chars=3, tail_chars=2))
    shown = protocol.render_observation(Observation(Status.OK, (Stream("stdout", "abcdefghij"),)))

    assert shown == START + "abc\n... [5 characters left out] ...\nij"


@pytest.mark.parametrize(
    ("observation", "note"),
    [
        (Observation(Status.TIMEOUT, duration_s=60.2), "[The code was stopped after 60 seconds.]\n"),
        (
            Observation(Status.DIED, kernel_alive=False),
            "[Kernel died. The kernel was restarted: all variables and imports are gone, files are kept.]\n",
        ),
    ],
)
def test_what_upstream_would_hang_on_is_said(observation: Observation, note: str) -> None:
    """A time-out and a dead kernel are told to the model."""
    assert fenced.render_observation(observation) == START + note


def test_other_tokens() -> None:
    """Tokens may be others; our own prompt then shows them, and the usual fence is plain text."""
    protocol = Fenced(None, "<code>", "</code>")

    assert protocol.parse("a <code> 1 </code> b", "stop").actions == (Action("1"),)
    assert protocol.parse("```python\n1\n```", "stop").actions == ()
    assert protocol.write_action("1").text == "<code>\n1\n</code>"
    assert "<code>\nyour code\n</code>" in protocol.system_prompt
    assert "```" not in protocol.system_prompt


def test_own_prompt_shows_the_form_that_is_read() -> None:
    """The example of our prompt is an action."""
    assert fenced.parse(fenced.system_prompt, "stop").actions == (Action("your code"),)
