"""IPython's shell, with its output going to a front instead of a terminal.

What a cell sees is ipykernel's behaviour, which models know and the recorded runs were made under; names
that libraries look for are ipykernel's too.
"""

# IPython's classes are typed in part, and its traits not at all
# mypy: disable-error-code="no-untyped-call, union-attr, override, attr-defined, arg-type"

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

from IPython.core import page
from IPython.core.autocall import ZMQExitAutocall
from IPython.core.error import UsageError
from IPython.core.interactiveshell import (
    ExecutionResult,
    InteractiveShell,
    InteractiveShellABC,
)
from traitlets import Instance, Type
from traitlets import default as trait_default
from traitlets.config import Config

from sandbox_pool.inside.displays import FrontDisplayHook, FrontDisplayPublisher, flush_streams
from sandbox_pool.inside.front import Front
from sandbox_pool.inside.loops import CellLoop
from sandbox_pool.inside.private import tell_child_error
from sandbox_pool.inside.stand_ins import KernelStub, NoProfile, home_folder, ipython_folder, refuse_editor

_PIP_INSTALL = re.compile(r"\bpip3?\b.*\binstall\b")
_OUR_FOLDER = os.path.dirname(__file__)  # noqa: PTH120 - as code objects name it


class ZMQInteractiveShell(InteractiveShell):
    """The shell of a lean kernel. Named as ipykernel's: pandas, rich, tqdm and others look for this name."""

    displayhook_class = Type(FrontDisplayHook)
    display_pub_class = Type(FrontDisplayPublisher)
    exiter = Instance(ZMQExitAutocall)
    autoindent = False
    keepkernel_on_exit: bool | None = None

    def __init__(self, front: Front, **kwargs: Any) -> None:
        self.front = front
        self.kernel = KernelStub(self)
        self.cell_loop = CellLoop()
        self.last_traceback: list[str] | None = None
        self.has_failed_display = False
        self._lazy_db: Any = None
        super().__init__(**kwargs)
        self.loop_runner = self.cell_loop.run

    @trait_default("exiter")
    def _default_exiter(self) -> ZMQExitAutocall:
        return ZMQExitAutocall(self)

    @property
    def ipython_dir(self) -> str:
        """IPython's folder in this kernel's home; not made before it is needed."""
        return ipython_folder()

    @property
    def home_dir(self) -> str:
        """This kernel's home, which the zygote did not know."""
        return home_folder()

    def init_ipython_dir(self, ipython_dir: str | None) -> None:
        """Make no folder."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Make no folder."""
        self.profile_dir = NoProfile()

    def init_pushd_popd_magic(self) -> None:
        """As the base, less a home that is not known yet."""
        self.dir_stack: list[str] = []

    def init_virtualenv(self) -> None:
        """Change nothing for a virtual environment: the interpreter already is the wanted one."""

    def init_environment(self) -> None:
        """Keep commands from starting a pager. Unlike ipykernel, do not force colours upon them."""
        os.environ["PAGER"] = "cat"
        os.environ["GIT_PAGER"] = "cat"

    def init_hooks(self) -> None:
        """Give long texts, such as help, to the reply."""
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(self.add_page), 99)

    def init_magics(self) -> None:
        """Replace the magics that need a terminal."""
        super().init_magics()
        self.register_magic_function(refuse_editor, "line", "edit")
        for name in ("less", "more"):
            self.register_magic_function(self.page_file, "line", name)

    def enable_gui(self, gui: str | None = None) -> None:
        """Take no window toolkit: there is no screen."""
        if gui not in (None, "inline", "agg", "asyncio"):
            raise UsageError(
                f"no window can be opened here, so not by {gui!r} either: use %matplotlib inline"
            )

    # -- a cell

    def run_request(self, code: str, *, silent: bool, store_history: bool) -> ExecutionResult:
        """Run a cell and return what became of it. Errors are shown; only what breaks IPython itself raises.

        As InteractiveShell.run_cell, without the copies of all output that IPython 9 keeps.
        """
        self.last_traceback = None
        self.has_failed_display = False
        problem = None
        try:
            cell = self.transform_cell(code)
        except Exception:
            cell, problem = code, sys.exc_info()
        work = self.run_cell_async(
            code,
            store_history=store_history,
            silent=silent,
            transformed_cell=cell,
            preprocessing_exc_tuple=problem,
        )
        is_async = problem is None and self.should_run_async(code, transformed_cell=cell)
        runner: Callable[[Any], ExecutionResult] = self.loop_runner if is_async else run_at_once
        result = None
        try:
            result = runner(work)
        except BaseException as error:
            result = self.failure(error)
            self.showtraceback(running_compiled_code=True)
        finally:
            self.events.trigger("post_execute")
            if not silent:
                self.events.trigger("post_run_cell", result)
        return result

    def failure(self, error: BaseException) -> ExecutionResult:
        """Return the outcome of a cell that ended outside of IPython's own care."""
        result = ExecutionResult(None)
        result.error_in_exec = error
        return result

    def should_run_async(self, raw_cell: str, **kwargs: Any) -> bool:
        """Return whether a cell needs a running loop: by its syntax, or by what it calls."""
        return bool(super().should_run_async(raw_cell, **kwargs)) or self.cell_loop.is_needed_by(raw_cell)

    def _get_exc_info(self, exc_tuple: Any = None) -> Any:
        etype, value, traceback = super()._get_exc_info(exc_tuple)
        return etype, value, without_our_frames(traceback)

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        flush_streams()
        lines = [str(line) for line in stb]
        if self.displayhook.message is not None:
            self.has_failed_display = True
        if self.front.is_child:
            tell_child_error(lines)
        else:
            content = {"traceback": lines, "ename": str(etype.__name__), "evalue": text_of(evalue)}
            self.front.publish("error", content, is_urgent=False)
        self.last_traceback = lines

    # -- what a reply carries beside the outcome

    def add_page(
        self, text: Any, start: int = 0, screen_lines: int = 0, pager_cmd: str | None = None
    ) -> None:
        """Hand a long text to the client."""
        data = text if isinstance(text, dict) else {"text/plain": text}
        self.payload_manager.write_payload({"source": "page", "data": data, "start": max(0, start)})

    def page_file(self, name: str) -> None:
        """Hand a file's text to the client: %less, %more."""
        self.add_page(Path(name.strip()).expanduser().read_text(encoding="utf-8", errors="replace"))

    def set_next_input(self, text: str, replace: bool = False) -> None:  # noqa: FBT001, FBT002 - IPython's
        """Propose the text of the next cell."""
        self.payload_manager.write_payload({"source": "set_next_input", "text": text, "replace": replace})

    def ask_exit(self) -> None:
        """End the kernel after this cell."""
        self.exit_now = not self.keepkernel_on_exit
        self.payload_manager.write_payload({"source": "ask_exit", "keepkernel": self.keepkernel_on_exit})

    # -- commands

    def system_piped(self, cmd: str) -> None:
        """Run a command; what it writes goes straight to the sandbox's pipes.

        Its errors come on stdout, as under ipykernel, whose commands have one terminal for both.
        """
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        sys.stdout.flush()  # the command's output comes after what was printed
        command = self.var_expand(cmd, depth=1)
        shell = shutil.which(os.environ.get("SHELL", "sh")) or "/bin/sh"
        process = subprocess.Popen(
            command, shell=True, executable=shell, stdin=subprocess.DEVNULL, stdout=1, stderr=1
        )
        try:
            status = process.wait()
        finally:
            end_process(process)
        # as IPython has it: 128 plus the number of a signal
        status = status if status >= 0 else 128 - status
        self.user_ns["_exit_code"] = status
        if status != 0 and _PIP_INSTALL.search(command) and os.environ.get("PIP_NO_INDEX"):
            self.explain_pip()
        if getattr(self, "system_raise_on_error", False) and status != 0:
            raise subprocess.CalledProcessError(status, cmd)

    system = system_piped

    def explain_pip(self) -> None:
        """Say why nothing can be installed, and what can be done."""
        folders = os.environ.get("PIP_FIND_LINKS")
        found = f"only packages in {folders} can be installed" if folders else "nothing can be installed"
        sys.stderr.write(f"This sandbox has no network: {found}. Use what is there already.\n")

    # -- where IPython keeps things

    @property
    def db(self) -> Any:
        """IPython's store for `%store` and bookmarks; made when it is first used."""
        if self._lazy_db is None:
            is_own = importlib.util.find_spec("IPython.external.pickleshare")  # IPython 8 uses the package
            module = importlib.import_module("IPython.external.pickleshare" if is_own else "pickleshare")
            self._lazy_db = module.PickleShareDB(f"{self.profile_dir.location}/db")
        return self._lazy_db

    @db.setter
    def db(self, value: Any) -> None:
        """Take no notice of IPython 8, which makes its own at the start."""

    def move_in(self) -> None:
        """Begin in the folder of this process, which is not the zygote's."""
        self.starting_dir = os.getcwd()  # noqa: PTH109 - a string, as IPython wants it
        self.user_ns["_dh"][:] = [self.starting_dir]


InteractiveShellABC.register(ZMQInteractiveShell)


def make_shell(front: Front) -> ZMQInteractiveShell:
    """Return the shell, the only one of this process."""
    config = Config()
    config.HistoryManager.enabled = False  # it would start a thread
    config.InteractiveShell.colors = "nocolor"
    config.IPKernelApp.tqdm = "present"  # where tqdm looks whether it is in a notebook
    shell = ZMQInteractiveShell.instance(front=front, config=config)
    shell.extension_manager.load_extension("storemagic")
    return shell


def run_at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that awaits nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise RuntimeError("a cell without `await` has awaited something")


def without_our_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of this folder's files, which are nobody's business."""
    kept: list[TracebackType] = []
    while traceback is not None:
        if os.path.dirname(traceback.tb_frame.f_code.co_filename) != _OUR_FOLDER:  # noqa: PTH120
            kept.append(traceback)
        traceback = traceback.tb_next
    shown = None
    for part in reversed(kept):
        line: int | None = part.tb_lineno  # None where an interrupt hit an instruction of no line
        first = part.tb_frame.f_code.co_firstlineno
        shown = TracebackType(shown, part.tb_frame, part.tb_lasti, first if line is None else line)
    return shown


def text_of(error: BaseException) -> str:
    """Return an exception's text, whatever its __str__ does."""
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} whose text cannot be made>"


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Leave no command behind when its cell was interrupted: ask it to end, then make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
