"""PyBench's protocol: code in the first ```` ```python ```` block of a reply.

Behaviour and strings as in github.com/Mercury7353/PyBench at fa90fae, `utils/output_parser.py` and
`inference.py`: a reply without a block, or whose block is not closed, ends the task; later blocks are
not executed; figures are not mentioned; an error is its name and value without a traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.protocols.base import Action, Protocol, Reply, TextLimits, WrittenAction, assistant, status_note
from sandbox_pool import Observation
from sandbox_pool.observation import Error, Result, Stream

CODE_START = "```python"
CODE_END = "```"
OBSERVATION_START = "[INFO]This is a Code Interpreter Message:\n"
ERROR_START = (
    "There are some errors in the code. All variables in this cell should be redefined. Please Debug:\n"
)

SYSTEM_PROMPT = f"""\
You solve tasks by writing Python code, which is run for you in a Jupyter kernel, step by step.

Each of your replies is one step. Begin it with a sentence or two: what the latest output tells you, and what
this step is to do. Then write the code for it, as exactly one block:

{CODE_START}
your code
{CODE_END}

The next message shows what the block printed and the value of its last expression. Variables,
imports and files are kept from step to step. The packages numpy, pandas, matplotlib, scipy,
scikit-learn, sympy, openpyxl and Pillow are installed, and others may be; there is no internet and no
input().

Rules:
- Input files are below ./data. Save every file that the task asks for below ./output, under the name
  that it asks for. Save figures with savefig; do not show them.
- Look at the data before you rely on its form, and check a result before you report it.
- After an error, read it, and write the whole step again, corrected.
- A reply without a code block ends the task. Never end it on results that you have not seen: first run
  the code that gives them. When everything is done and seen to be right, reply with your final answer, the
  names of the files that you saved included, and no code block.
"""


class Fenced(Protocol):
    """First ```` ```python ```` block; an unclosed or absent one ends the task. No token is empty."""

    name = "fenced"
    default_limits = TextLimits(head_chars=8000, tail_chars=8000)

    def __init__(
        self,
        limits: TextLimits | None,
        code_start_token: str = CODE_START,
        code_end_token: str = CODE_END,
    ) -> None:
        super().__init__(limits)
        self._start, self._end = code_start_token, code_end_token
        example = f"{CODE_START}\nyour code\n{CODE_END}"
        self.system_prompt = SYSTEM_PROMPT.replace(example, self.write_action("your code").text)

    def parse(self, completion: str, finish_reason: str | None, tool_calls: list[Any] | None = None) -> Reply:
        """Return the code between the first opening fence and the next fence, stripped."""
        _, opened, rest = completion.partition(self._start)
        code, closed, _ = rest.partition(self._end)
        if opened and closed and code.strip():
            return Reply(assistant(completion), (Action(code.strip()),))
        return Reply(assistant(completion))

    def write_action(self, code: str) -> WrittenAction:
        """Return the code in a block."""
        return WrittenAction(f"{self._start}\n{code}\n{self._end}")

    def render_observation(self, observation: Observation) -> str:
        """Return upstream's message."""
        return render_as_upstream(observation, self.shorten)


def render_as_upstream(observation: Observation, shorten: Callable[[str], str]) -> str:
    """Return upstream's message; a note is added only where upstream would have hung or died."""
    text = shorten("".join(_text(output) for output in observation.outputs))
    note = status_note(observation)
    if note:
        text += ("\n" if text and not text.endswith("\n") else "") + note + "\n"
    return OBSERVATION_START + text


def _text(output: object) -> str:
    if isinstance(output, Stream):
        return output.text
    if isinstance(output, Result):
        plain = output.data.get("text/plain", "")
        return plain if isinstance(plain, str) else ""
    if isinstance(output, Error):
        return f"{ERROR_START}Error: {output.ename}\n{output.evalue}\n"
    return ""
