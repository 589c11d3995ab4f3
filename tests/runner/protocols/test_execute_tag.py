"""CodeAct's protocol, against what upstream does (d607f56) and against arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocols import Action, ExecuteTag, Reply
from runner.protocols.base import assistant
from sandbox_pool import Display, Error, Observation, Result, Status, Stream

START = "Execution Output:\n"
protocol = ExecuteTag(ExecuteTag.default_limits)
text = st.text(st.characters(exclude_categories=())) | st.lists(
    st.sampled_from(["<execute>", "</execute>", "</execute", "<exec", "\n", "x = 1", "\ud800"])
).map("".join)


@pytest.mark.parametrize(
    ("completion", "code", "message"),
    [
        pytest.param("a <execute>\nx\n</execute> b", "x", None, id="closed"),
        pytest.param("a <execute>\nx\n", "x", "a <execute>\nx\n</execute>", id="cut-by-the-stop-string"),
        pytest.param("<execute>x</execute", "x", "<execute>x</execute>", id="cut-but-for-one-character"),
        pytest.param("<execute>x</execute> <execute>y</execute>", "x", None, id="first-of-two"),
        pytest.param(
            "<execute>x</execute> then <execute>y", "x", "<execute>x</execute> then <execute>y</execute>",
            id="second-cut",
        ),
    ],
)  # fmt: skip
def test_first_block_is_the_action(completion: str, code: str, message: str | None) -> None:
    """The first block is executed; a tag that the stop string cut off is put back."""
    assert protocol.parse(completion, "stop") == Reply(assistant(message or completion), (Action(code),))


@pytest.mark.parametrize(
    ("completion", "finish_reason"),
    [
        pytest.param("The answer is 3.", "stop", id="absent"),
        pytest.param("<execute>\nx = 1", "length", id="cut-by-length"),
        pytest.param("<execute> </execute>", "stop", id="blank"),
        pytest.param("</execute> x <exec", "stop", id="no-opening-tag"),
    ],
)
def test_no_code_is_an_answer(completion: str, finish_reason: str) -> None:
    """A reply without a whole block is an answer, kept as it is."""
    assert protocol.parse(completion, finish_reason) == Reply(assistant(completion))


@given(text, st.none() | st.sampled_from(["stop", "length", "tool_calls"]))
def test_parsing_never_raises(completion: str, finish_reason: str | None) -> None:
    """Any text is an action or an answer; at most a closing tag is added."""
    assert protocol.parse(completion, finish_reason).message["content"].startswith(completion)


@given(st.text().filter(lambda code: code.strip() and "execute>" not in code))
def test_rendered_action_is_read_back(code: str) -> None:
    """What the oracle writes is what is executed."""
    reply = protocol.parse(protocol.write_action(code).text, "stop")
    assert reply.actions == (Action(code.strip()),)


def test_observation_is_upstreams_string() -> None:
    """Everything in order, with tracebacks, and a line in the place of a picture."""
    observation = Observation(
        status=Status.ERROR,
        outputs=(
            Stream("stdout", "a\n"),
            Display({"image/png": b"x", "text/plain": "<Figure>"}),
            Result({"text/plain": "42"}),
            Error("KeyError", "'x'", "Traceback\nKeyError: 'x'"),
        ),
    )
    shown = "a\n<Figure>\n[An image is already displayed to the user.]\n42Traceback\nKeyError: 'x'"

    assert protocol.render_observation(observation) == START + shown


def test_no_output() -> None:
    """A cell without output says so."""
    expected = START + "[Code executed successfully with no output]"
    assert protocol.render_observation(Observation(status=Status.OK)) == expected


def test_timeout_keeps_what_was_printed() -> None:
    """The time-out line follows the partial output, which upstream throws away."""
    observation = Observation(Status.TIMEOUT, (Stream("stdout", "so far"),), duration_s=60.0)

    assert protocol.render_observation(observation) == START + "so far\n[Execution timed out (60 seconds).]"


def test_long_output_shows_its_first_and_last_2000() -> None:
    """Over 4000 characters, upstream's marker stands between the first and last 2000."""
    observation = Observation(Status.OK, (Stream("stdout", "a" * 3000 + "b" * 3000),))
    shown = "a" * 2000 + "\n... [Output truncated due to length]...\n" + "b" * 2000

    assert protocol.render_observation(observation) == START + shown
