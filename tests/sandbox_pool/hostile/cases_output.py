"""Attacks with output: too much, too odd, at the wrong time."""

from __future__ import annotations

import asyncio

from sandbox_pool import Display, Observation, Sandbox, SandboxPathError, Status
from tests.sandbox_pool.hostile.case import ANYHOW, HANG_S, Case, End, died, ends, raises, timeout

_FLOOD = ends(Status.OUTPUT_LIMIT)
_FLOOD_OR_MEMORY = ends(Status.OUTPUT_LIMIT, Status.ERROR, Status.MEMORY)


async def _exists(sandbox: Sandbox, path: str) -> bool:
    try:
        await sandbox.read(path)
    except SandboxPathError:
        return False
    return True


async def _late_text_is_not_kept(sandbox: Sandbox, seen: Observation) -> None:
    """What a thread prints between two cells is not in the second."""
    async with asyncio.timeout(10):
        while not await _exists(sandbox, "said"):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.005)
    assert "late" not in (await sandbox.execute("print('own')")).stdout


async def _has_text(sandbox: Sandbox, seen: Observation) -> None:
    """Whatever the code wrote, the observation is text that can be stored."""
    for output in seen.outputs:
        for text in output.data.values() if isinstance(output, Display) else ():
            if isinstance(text, str):
                text.encode()
    seen.stdout.encode()
    assert seen.error is None or "\x1b" not in seen.error.traceback


CASES = (
    Case("print-lines", "while True: print('x' * 99)", _FLOOD),
    Case("print-one-text", "print('x' * 30_000_000)", _FLOOD),
    Case("print-without-newline", "while True: print('x' * 50, end='')", _FLOOD),
    Case("print-nothing", "while True: print('', end='', flush=True)", timeout(), timeout_s=HANG_S),
    Case("result-repr", "'x' * 30_000_000", _FLOOD_OR_MEMORY),
    Case("write-to-descriptor", "import os\nwhile True: os.write(1, b'x' * 100_000)", _FLOOD),
    Case("write-to-stderr-descriptor", "import os\nwhile True: os.write(2, b'x' * 100_000)", _FLOOD),
    Case("shell-yes", "!yes", _FLOOD),
    Case("child-of-child-yes", "import subprocess\nsubprocess.run(['sh', '-c', 'yes | cat'])", _FLOOD),
    Case("one-long-line", "import sys\nsys.stdout.write('y' * 10_000_000); sys.stdout.flush()", _FLOOD),
    Case("stderr", "import sys\nwhile True: print('x' * 99, file=sys.stderr)", _FLOOD),
    Case("display-storm", "while True: display('x')", _FLOOD),
    Case("update-display-storm", "d = display('x', display_id=True)\nwhile True: d.update('y')", _FLOOD),
    Case(
        "clear-output-storm",
        "from IPython.display import clear_output\nwhile True: print('x'); clear_output()",
        _FLOOD,
    ),
    Case(
        "carriage-returns",
        "for n in range(3000): print('\\r', n, end='')\nprint()",
        ends(Status.OK, alive=True),
    ),
    Case("huge-picture", "display({'image/png': 'A' * 40_000_000}, raw=True)", _FLOOD_OR_MEMORY),
    Case("huge-html", "display({'text/html': '<b>' * 10_000_000}, raw=True)", _FLOOD_OR_MEMORY),
    Case(
        "many-pictures",
        "for n in range(100): display({'image/png': 'iVBORw0KGgo='}, raw=True)",
        ends(Status.OK, alive=True),
    ),
    Case(
        "picture-that-is-none",
        "display({'image/png': 'not base64 \\x00'}, raw=True); display({'image/png': 5}, raw=True)",
        ends(Status.OK, Status.ERROR, alive=True),
        check=_has_text,
    ),
    Case(
        "not-a-number-in-json",
        "display({'application/json': {'x': float('nan'), 'y': float('inf')}}, raw=True)",
        ends(Status.OK, Status.ERROR, alive=True),
        check=_has_text,
    ),
    Case(
        "bytes-in-a-display",
        "display({'application/octet-stream': b'\\xff\\x00', 'text/plain': b'x', 5: 'y'}, raw=True)",
        ends(Status.OK, Status.ERROR, alive=True),
        check=_has_text,
    ),
    Case(
        "odd-text",
        "import os, sys\nprint('a\\ud800\\0\\x1b[1mb\\u202e'); print('\\udcff', file=sys.stderr); _ = os.write(1, b'\\xff\\xfe\\n')",
        ends(Status.OK, alive=True),
        check=_has_text,
    ),
    Case(
        "odd-text-in-an-error",
        "raise ValueError('a\\ud800\\0\\x1b[1mb')",
        raises("ValueError"),
        check=_has_text,
    ),
    Case("odd-text-in-code", "x = '\ud800\x00'", ends(Status.OK, Status.ERROR, alive=True), check=_has_text),
    Case(
        "traceback-bomb",
        "raise ValueError('x' * 8_000_000)",
        {"lean": _FLOOD_OR_MEMORY, "": ANYHOW},
        timeout_s=4,
    ),
    Case(
        "exception-that-cannot-be-shown",
        """
class Bad(Exception):
    def __str__(self): raise RuntimeError
    def __repr__(self): raise RuntimeError
raise Bad
""",
        ends(Status.ERROR, alive=True),
    ),
    Case(
        "exception-whose-text-never-comes",
        "class Bad(Exception):\n  def __str__(self):\n    while True: pass\nraise Bad",
        timeout(),
        timeout_s=HANG_S,
    ),
    Case(
        "repr-that-never-comes",
        "class Bad:\n  def _repr_html_(self):\n    while True: pass\nBad()",
        timeout(),
        timeout_s=HANG_S,
    ),
    Case(
        "repr-that-raises-or-is-none",
        """
class Bad:
    def __repr__(self): raise RuntimeError
    def _repr_html_(self): return b'x'
    def _repr_png_(self): return 5
    def _repr_mimebundle_(self, **k): return [1], 2
display(Bad()); Bad()
""",
        ends(Status.OK, Status.ERROR, alive=True),
    ),
    Case("recursion", "def f(): f()\nf()", raises("RecursionError")),
    Case(
        "chain-of-exceptions",
        """
error = None
for n in range(3000):
    new = ValueError(n); new.__cause__ = error; error = new
raise error
""",
        ends(Status.ERROR, Status.TIMEOUT, Status.OUTPUT_LIMIT),
        timeout_s=6,
        stays_usable=False,
    ),
    Case(
        "exception-group-bomb",
        "e = ValueError()\nfor _ in range(200): e = ExceptionGroup('g', [e, e])\nraise e",
        ends(Status.ERROR, Status.TIMEOUT, Status.OUTPUT_LIMIT, Status.DIED, Status.MEMORY),
        timeout_s=0.5,
        stays_usable=False,
    ),
    Case(
        "output-after-idle",
        """
import threading, time
def late():
    for n in range(10): time.sleep(0.005); print('late', flush=True)
    open('said', 'w').close()
threading.Thread(target=late).start()
""",
        ends(Status.OK, alive=True),
        check=_late_text_is_not_kept,
    ),
    Case(
        "output-from-many-threads",
        """
import threading
def work():
    for n in range(200): print('x' * 50)
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
""",
        {
            "lean": End(frozenset({Status.OK}), alive=True, stdout="[x\n]{81600}"),
            "": ends(Status.OK, alive=True),
        },
    ),
    Case(
        "last-words",
        "import os\nprint('before', flush=True)\nos._exit(0)",
        End(died().statuses, stdout="before\n", alive=False),
        kernel="lean",  # zmq sends from a thread of ipykernel's, which os._exit() does not wait for
    ),
    Case(
        "last-words-without-newline",
        "import os, sys\nsys.stdout.write('before'); sys.stdout.flush()\nos.kill(os.getpid(), 9)",
        End(died().statuses, stdout="before", alive=False),
        kernel="lean",
    ),
    Case(
        "closed-stdout",
        "import os\nos.close(1); os.close(2)\nprint('x')",
        ends(Status.OK, Status.ERROR, Status.PROTOCOL),
    ),
    Case(
        "stdout-replaced-by-a-file",
        "import os\nfd = os.open('out', os.O_CREAT | os.O_WRONLY)\nos.dup2(fd, 1); os.dup2(fd, 2)\nos.system('echo x')",
        ends(Status.OK, alive=True),
    ),
    Case(
        "nonblocking-stdout",
        "import os\nos.set_blocking(1, False)\ntry:\n  for _ in range(20): os.write(1, b'x' * 65536)\nexcept BlockingIOError: pass",
        ends(Status.OK, Status.OUTPUT_LIMIT),
    ),
)
