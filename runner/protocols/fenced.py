"""PyBench's protocol: code in the first ```` ```python ```` block of a reply.

Behaviour and strings as in github.com/Mercury7353/PyBench at fa90fae, `utils/output_parser.py` and
`inference.py`: a reply without a block, or whose block is not closed, ends the task; later blocks are
not executed; figures are not mentioned; an error is its name and value without a traceback.
"""

from __future__ import annotations

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

SYSTEM_PROMPT = """\
You solve tasks by writing Python code, which is run for you in a Jupyter kernel.

Each of your replies is one step. To run code, write exactly one block:

```python
your code
```

The next message shows what the block printed and the value of its last expression. Variables,
imports and files are kept from step to step. The packages numpy, pandas, matplotlib, scipy,
scikit-learn, sympy, openpyxl and Pillow are installed; there is no internet and no input().

Rules:
- Input files are below ./data. Save every file that the task asks for below ./output, under the name
  that it asks for. Save figures with savefig; do not show them.
- Look at the data before you rely on its form, and check a result before you report it.
- A reply without a code block ends the task. When everything is done and seen to be right, reply with
  your final answer and no code block.
"""


class Fenced(Protocol):
    """First ```` ```python ```` block; an unclosed or absent one ends the task."""

    name = "fenced"
    system_prompt = SYSTEM_PROMPT
    default_limits = TextLimits(head_chars=8000, tail_chars=8000)

    def parse(self, completion: str, finish_reason: str | None, tool_calls: list[Any] | None = None) -> Reply:
        """Return the code between the first opening fence and the next fence, stripped."""
        _, opened, rest = completion.partition(CODE_START)
        code, closed, _ = rest.partition(CODE_END)
        if opened and closed and code.strip():
            return Reply(assistant(completion), (Action(code.strip()),))
        return Reply(assistant(completion))

    def write_action(self, code: str) -> WrittenAction:
        """Return the code in a block."""
        return WrittenAction(f"{CODE_START}\n{code}\n{CODE_END}")

    def render_observation(self, observation: Observation) -> str:
        """Return upstream's message; a note is added only where upstream would have hung or died."""
        text = "".join(_text(output) for output in observation.outputs)
        text = self.shorten(text)
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
