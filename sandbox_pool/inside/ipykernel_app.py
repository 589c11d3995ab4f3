"""ipykernel itself, where a profile asks for it: on sockets that the manager has bound, and within bounds.

The recorded PyBench runs were made under ipykernel; it is also what the lean kernel is compared with.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import types
from typing import Any

from sandbox_pool.inside.interrupts import Interrupts
from sandbox_pool.inside.shell import ZMQInteractiveShell

_LATE_MODULES = (
    "IPython.core.completerlib", "IPython.core.debugger", "IPython.core.oinspect",
    "IPython.extensions.storemagic", "IPython.utils.wildcard", "debugpy", "debugpy.server.api",
    "encodings.idna", "faulthandler", "http.server", "ipykernel.debugger", "ipykernel.kernelapp",
    "ipykernel.ipkernel", "ipykernel.zmqshell", "mimetypes", "pdb", "pkgutil", "pydoc", "stringprep",
    "tornado.gen", "tornado.locks", "tornado.platform.asyncio", "tornado.queues", "xmlrpc.server",
    "psutil",
)  # fmt: skip
"""What ipykernel 7 loads at its start or with the first cell: half of its start, when it is not there."""


def prepare() -> None:
    """Load all that a kernel of this kind needs. Raises ImportError without ipykernel."""
    import ipykernel.kernelapp  # noqa: F401

    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else the debugger writes a warning
    for name in _LATE_MODULES:
        try:
            __import__(name)
        except ImportError:
            continue  # another version's
    del os.environ["PYDEVD_DISABLE_FILE_VALIDATION"]


def run(start: dict[str, Any], channel: int, interrupt: int, listeners: list[int]) -> None:
    """Be ipykernel until the manager hangs up, which ends the process at once."""
    interrupts = Interrupts(interrupt)
    interrupts.install()
    app = make_app(start, listeners, interrupts)
    for name in [name for name in sys.modules if name.partition(".")[0] == "sandbox_pool"]:
        del sys.modules[name]  # not the code's to find
    os.write(channel, b"r\0\0\0\0")
    threading.Thread(target=_end_with, args=(channel,), name="lifeline", daemon=True).start()
    app.start()


def _end_with(channel: int) -> None:
    while os.read(channel, 4096):
        pass
    os._exit(0)


def pieces(message: dict[str, Any], max_piece: int, max_message: int) -> list[dict[str, Any]]:
    """Cut a message's text into pieces that its reader can refuse one by one.

    A result or a display is cut off where the reader gives the cell up anyway.
    """
    content = message.get("content")
    if not isinstance(content, dict):
        return [message]
    text, data = content.get("text"), content.get("data")
    if isinstance(text, str) and len(text) > max_piece:
        parts = [text[start : start + max_piece] for start in range(0, len(text), max_piece)]
        return [dict(message, content=dict(content, text=part)) for part in parts]
    if isinstance(data, dict):
        cut = {mime: value[:max_message] if isinstance(value, str) else value for mime, value in data.items()}
        return [dict(message, content=dict(content, data=cut))]
    return [message]


def bounded_session(max_sizes: list[int], key: str) -> Any:
    """Return a session that sends no message that is larger than its reader takes, and fails at no text."""
    from jupyter_client.jsonutil import json_default
    from jupyter_client.session import Session

    def pack_any(content: Any) -> bytes:
        # Jupyter's own raises at a lone surrogate, in the one thread that sends: then a cell has no end.
        text = json.dumps(content, default=json_default, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace")

    class PiecewiseSession(Session):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.pack = pack_any

        def send(self, stream: Any, msg_or_type: Any, *args: Any, **kwargs: Any) -> Any:
            sent = None
            whole = isinstance(msg_or_type, dict)
            for part in pieces(msg_or_type, *max_sizes) if whole else [msg_or_type]:
                sent = super().send(stream, part, *args, **kwargs)
            return sent

    return PiecewiseSession(key=key.encode())


def bounded_stream(max_piece: int, *, captures: bool) -> Any:
    """Return a class for sys.stdout and sys.stderr that keeps their order and hands on huge texts in pieces.

    Whole, such a text would be copied several times over, and zmq's thread ends the process when that
    is more than the memory limit allows.

    Args:
        max_piece: characters.
        captures: whether what is written to descriptors 1 and 2 becomes messages. Without, it goes where
            they lead: to the manager's pipes, which make the writer wait instead of filling memory.
    """
    from ipykernel.iostream import OutStream

    written_last: list[Any] = [None]

    class PiecewiseStream(OutStream):
        def __init__(self, session: Any, thread: Any, name: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(session, thread, name, *args, **{**kwargs, "watchfd": captures})  # type: ignore[no-untyped-call]
            self._descriptor = 1 if name == "stdout" else 2

        def fileno(self) -> int:
            return int(super().fileno()) if captures else self._descriptor  # type: ignore[no-untyped-call]

        def write(self, string: Any) -> Any:
            before, written_last[0] = written_last[0], self
            if before is not None and before is not self:
                before.flush()
            for start in range(0, max(len(string), 1), max_piece) if isinstance(string, str) else ():
                if start:
                    self.flush()  # type: ignore[no-untyped-call]
                super().write(string[start : start + max_piece])
            return len(string) if isinstance(string, str) else super().write(string)

    return PiecewiseStream


def guarded_kernel(interrupts: Interrupts) -> Any:
    """Return ipykernel's kernel, less its obedience to signals from outside."""
    from ipykernel import ipkernel

    class SignalsOfInit:
        """The signal module, as _cancel_on_sigint uses it for cells that await."""

        def __getattr__(self, name: str) -> Any:
            return getattr(signal, name)

        def signal(self, number: int, handler: Any) -> Any:
            return signal.signal(number, interrupts.guard(handler) if callable(handler) else handler)

    ipkernel.signal = SignalsOfInit()  # type: ignore[assignment, attr-defined]

    class GuardedKernel(ipkernel.IPythonKernel):
        def pre_handler_hook(self) -> None:
            interrupts.arm()

        def post_handler_hook(self) -> None:
            interrupts.disarm()

    return GuardedKernel


def app_class(listeners: list[int]) -> Any:
    """Return a class of applications on these sockets.

    They read and write no connection file and lose no output when their reader is slow.
    """
    import zmq
    from ipykernel.kernelapp import IPKernelApp

    from sandbox_pool.inside.jupyter import start_heartbeat

    class App(IPKernelApp):
        def init_connection_file(self) -> None:
            self.transport, self.ip = "ipc", "/kernel"
            self.shell_port, self.iopub_port, self.stdin_port, self.control_port = 1, 2, 3, 4

        def write_connection_file(self, **kwargs: Any) -> None: ...

        def log_connection_info(self) -> None: ...

        def init_heartbeat(self) -> None:
            if len(listeners) > 4:
                start_heartbeat(listeners[4])

        def init_signal(self) -> None:
            """Leave the signals as `Interrupts` has set them."""

        def init_control(self, context: Any) -> None:
            super().init_control(context)  # type: ignore[no-untyped-call]
            # the debugger's way to the shell socket: no file has that name, and zmq would try for ever
            self.debug_shell_socket.disconnect(self.shell_socket.getsockopt(zmq.LAST_ENDPOINT))

        def _bind_socket(self, s: Any, port: int) -> Any:
            if s.type == zmq.XPUB:
                s.sndhwm = 0  # at the default of 1000 messages, idle is lost under back-pressure
            s.setsockopt(zmq.USE_FD, listeners[port - 1])
            return super()._bind_socket(s, port)  # type: ignore[no-untyped-call]

    return App


def make_app(start: dict[str, Any], listeners: list[int], interrupts: Interrupts) -> Any:
    """Return an ipykernel application whose sockets listen."""
    from ipykernel import iostream
    from traitlets.config import Config

    if not has_tcp():
        iostream.IOPubThread._setup_pipe_in = without_pipe  # type: ignore[method-assign]
    captures = start.get("front") == "jupyter"
    max_sizes = start.get("max_sizes") or [1 << 20, 1 << 30]
    iostream.OutStream = bounded_stream(max_sizes[0], captures=captures)  # type: ignore[misc] # the app finds it by this name
    config = Config()
    config.HistoryManager.enabled = False  # it would start a thread
    config.InteractiveShell.colors = "nocolor"
    session = bounded_session(max_sizes, start.get("key") or "")
    app = app_class(listeners).instance(
        config=config, session=session, kernel_class=guarded_kernel(interrupts)
    )
    sys.argv = [""]
    app.initialize([])
    settle(app, interrupts)
    return app


def settle(app: Any, interrupts: Interrupts) -> None:
    """Take back what ipykernel does for terminals, and what the code's processes must not inherit."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for stream in (sys.stdout, sys.stderr):
        original = getattr(stream, "_original_stdstream_copy", None)
        if original is not None:  # it copies there what it captures, which we would see twice
            os.dup2(null, original, inheritable=False)
    os.close(null)
    if not has_terminals():
        lean: Any = ZMQInteractiveShell
        app.shell.system = types.MethodType(lean.system_piped, app.shell)
        app.shell.explain_pip = types.MethodType(lean.explain_pip, app.shell)
    os.register_at_fork(
        before=interrupts.before_fork,
        after_in_parent=interrupts.after_fork,
        after_in_child=interrupts.become_child,
    )


def has_terminals() -> bool:
    """Return whether there are pseudo terminals, in which IPython runs `!commands`."""
    try:
        for descriptor in os.openpty():
            os.close(descriptor)
    except OSError:
        return False
    return True


def has_tcp() -> bool:
    """Return whether this process may open a TCP socket: libzmq ends the process where it may not."""
    try:
        socket.socket(socket.AF_INET).close()
    except OSError:
        return False
    return True


def without_pipe(thread: Any) -> None:
    """Do without the TCP port by which processes that a cell forks would hand their output to ipykernel."""
    thread._pipe_flag = False
