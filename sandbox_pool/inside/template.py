"""What the zygote prepares once, so that no kernel has to: the shell, and what a first cell would load."""

# IPython's classes are typed in part, and its traits not at all
# mypy: disable-error-code="no-untyped-call, union-attr, override, attr-defined, arg-type"

from __future__ import annotations

import asyncio
import io
import linecache
import sys
import warnings
from collections.abc import Iterator

from sandbox_pool.inside.front import Front
from sandbox_pool.inside.shell import ZMQInteractiveShell, make_shell

_CELLS = (
    "1 + 1",
    "print('warm')",
    "1 / 0",
    "def f(: pass",
    "import asyncio\nawait asyncio.sleep(0)",
    "!true",
    "%pwd",
    "display('x')",
)
_PANDAS_CELLS = (
    "import pandas\npandas.DataFrame({'a': [1, 2], 'b': ['x', 'y']})",
    "print(pandas.DataFrame({'a': [1.5]}).describe())",
)
_FIGURE_CELL = (
    "import matplotlib.pyplot\n_ = matplotlib.pyplot.plot([1, 2], label='x')\nmatplotlib.pyplot.title('x')\n"
    "matplotlib.pyplot.legend()\nmatplotlib.pyplot.show()"
)


def make_template() -> ZMQInteractiveShell:
    """Return a shell that has run cells of each kind and remembers none of them."""
    shell = make_shell(Front())
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for code in warm_up_cells():
                shell.run_request(code, silent=False, store_history=False)
            forget(shell)
    finally:
        sys.stdout, sys.stderr = streams
    return shell


def warm_up_cells() -> Iterator[str]:
    """Return what to run, for the libraries that are loaded."""
    yield from _CELLS
    if "pandas" in sys.modules:
        yield from _PANDAS_CELLS
    if "matplotlib.pyplot" in sys.modules:
        yield _FIGURE_CELL


def forget(shell: ZMQInteractiveShell) -> None:
    """Undo what cells leave in a shell and its process."""
    shell.reset(new_session=True)
    shell.user_ns.update({"_": "", "__": "", "___": ""})  # as in a new shell
    shell.payload_manager.clear_payload()
    shell.last_execution_result = None
    shell.last_traceback = None
    shell.cell_loop.close()
    asyncio.set_event_loop_policy(None)  # as if nobody had asked for a loop
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    linecache.clearcache()
    getattr(shell.compile, "_filename_map", {}).clear()
    for name in ("outputs", "exceptions"):
        getattr(shell.history_manager, name, {}).clear()
