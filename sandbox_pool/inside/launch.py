"""Start one kernel and guard it: a script, run by path, that knows nothing of the rest of the project.

Two processes come of it. The *guardian* reads its settings as one line of JSON from standard input,
prepares what needs privileges and forks the *kernel*, which gives up all privileges and becomes an
ordinary ipykernel. The guardian then only waits. Standard input is its lifeline: an `i` interrupts
the kernel's process group, and the end of it (close() or the death of the runner, by whatever
signal) kills every process of the sandbox. When the guardian has ended, nothing of the sandbox is
left, but for its folders while the runner lives; it ends with the kernel's own exit status.

How all processes are found: as root the sandbox has a uid of its own, and one kill(-1) under that
uid is atomic even against a fork bomb. Otherwise the guardian is the subreaper of all descendants,
also of those that called setsid, and kills until it has no child. Code that shares the guardian's
uid can kill the guardian first; the process tier promises nothing against that.

Exit codes of its own: 71 the kernel could not be set up, 72 this machine cannot do what was asked.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

EXIT_SETUP = 71
EXIT_UNSUPPORTED = 72

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38

IS_LINUX = sys.platform == "linux"
libc = ctypes.CDLL(None, use_errno=True)


class Unsupported(Exception):  # noqa: N818 - ends as an exit code, never as an exception of the API
    """This machine cannot do what was asked; the text says what would help."""


def check(result: int, what: str) -> None:
    """Raise OSError when a C call has failed."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def prctl(option: int, value: int) -> None:
    """Set a property of this process; does nothing where there is no prctl."""
    if IS_LINUX:
        check(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option}, {value})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Attach a file system or a folder at `target`; None is a null pointer."""
    encode = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    result = libc.mount(encode[0], encode[1], encode[2], ctypes.c_ulong(flags), encode[3])
    check(result, f"mount {source} on {target}")


# -- the interpreter, where another uid can reach it


def first_blocked(path: str) -> str | None:
    """Return the outermost folder above `path` that other users may not enter, or None."""
    parts = path.strip("/").split("/")
    for n in range(len(parts)):
        folder = "/" + "/".join(parts[:n])
        if not Path(folder).stat().st_mode & 0o001:
            return folder
    return None


def interpreter_folders() -> list[str]:
    """Return the folders that this interpreter lives in, by the names that it uses, outermost first."""
    names = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    return sorted(names | {os.path.realpath(name) for name in names}, key=len)


def open_the_way(folders: list[str]) -> None:
    """Make `folders` reachable for every uid, in a mount namespace of this process alone.

    A blocked ancestor is covered by an empty tmpfs in which only the wanted folders exist again, so
    that nothing else below it becomes readable.
    """
    blocked = {path: cover for path in folders if (cover := first_blocked(path)) is not None}
    if not blocked:
        return
    if libc.unshare(CLONE_NEWNS) != 0:
        path, cover = next(iter(blocked.items()))
        raise Unsupported(
            f"the interpreter's folder {path} lies below {cover}, which only its owner may enter, and this "
            "process may not make a mount namespace: install Python and the virtual environment elsewhere "
            f"(/opt, for one), `chmod o+x {cover}`, or do not run as root"
        )
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    # only now: a bind from a descriptor of the old namespace is refused
    saved = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in blocked}
    for cover in sorted(set(blocked.values()), key=len):
        mount("tmpfs", cover, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k")
    done: list[str] = []
    for path, folder in saved.items():
        if not any(path.startswith(above + "/") for above in done):
            Path(path).mkdir(mode=0o755, parents=True, exist_ok=True)
            mount(f"/proc/self/fd/{folder}", path, None, MS_BIND | MS_REC)
            mount("none", path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)
            done.append(path)
        os.close(folder)


# -- the kernel's process


def limit(settings: dict[str, Any]) -> None:
    """Set the resource limits; one that the hard limit forbids is set as high as it goes."""
    for name, value in settings["rlimits"].items():
        number = getattr(resource, name, None)
        if number is None:
            continue
        _, hard = resource.getrlimit(number)
        top = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # one second between SIGXCPU, which tells the reason, and SIGKILL
        soft = top - 1 if name == "RLIMIT_CPU" and top > 1 else top
        resource.setrlimit(number, (soft, top))


def drop(settings: dict[str, Any], guardian: int) -> None:
    """Give up all privileges for good and tie this process to the life of its guardian."""
    os.setsid()
    limit(settings)
    if settings["uid"] is not None:
        try:
            os.setgroups([])
            os.setresgid(settings["gid"], settings["gid"], settings["gid"])
            os.setresuid(settings["uid"], settings["uid"], settings["uid"])
        except PermissionError:
            raise Unsupported(
                "started as root without the right to change to another uid (CAP_SETUID, CAP_SETGID): "
                "grant both, or run as an ordinary user"
            ) from None
        prctl(PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of uid clears it
    if os.getppid() != guardian:
        os._exit(EXIT_SETUP)
    for path in interpreter_folders():
        if not os.access(path, os.R_OK | os.X_OK):
            raise Unsupported(f"uid {os.getuid()} cannot read the interpreter's folder {path}: chmod o+rx it")


def be_kernel(settings: dict[str, Any], guardian: int, ready: int) -> None:
    """Become the kernel: drop, start ipykernel, say `r` on `ready` once its sockets listen."""
    drop(settings, guardian)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(settings["work"])
    app = make_app(settings)
    os.write(ready, b"r")
    os.close(ready)
    app.start()


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
    """Return a session that sends no message that is larger than its reader takes."""
    from jupyter_client.session import Session

    class PiecewiseSession(Session):
        def send(self, stream: Any, msg_or_type: Any, *args: Any, **kwargs: Any) -> Any:
            sent = None
            whole = isinstance(msg_or_type, dict)
            for part in pieces(msg_or_type, *max_sizes) if whole else [msg_or_type]:
                sent = super().send(stream, part, *args, **kwargs)
            return sent

    return PiecewiseSession(key=key.encode())


def bounded_stream(max_piece: int) -> Any:
    """Return a class for sys.stdout and sys.stderr that keeps their order and hands on huge texts in pieces.

    Whole, such a text would be copied several times over, and zmq's thread ends the process when that
    is more than the memory limit allows.
    """
    from ipykernel.iostream import OutStream

    written_last: list[Any] = [None]

    class PiecewiseStream(OutStream):
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


def make_app(settings: dict[str, Any]) -> Any:
    """Return an ipykernel application whose sockets listen.

    It reads and writes no connection file, has no heartbeat (the guardian is one) and loses no output
    when its reader is slow.
    """
    import zmq
    from ipykernel import iostream
    from ipykernel.kernelapp import IPKernelApp
    from traitlets.config import Config

    class App(IPKernelApp):
        def init_connection_file(self) -> None:
            self.transport, self.ip = "ipc", settings["socket_prefix"]
            self.shell_port, self.iopub_port, self.stdin_port, self.control_port = 1, 2, 3, 4

        def write_connection_file(self, **kwargs: Any) -> None: ...

        def log_connection_info(self) -> None: ...

        def init_heartbeat(self) -> None: ...

        def _bind_socket(self, s: Any, port: int) -> Any:
            if s.type == zmq.XPUB:
                s.sndhwm = 0  # at the default of 1000 messages, idle is lost under back-pressure
            return super()._bind_socket(s, port)  # type: ignore[no-untyped-call]

    max_sizes = settings["max_sizes"]
    iostream.OutStream = bounded_stream(max_sizes[0])  # type: ignore[misc] # the app finds it by this name
    config = Config()
    config.HistoryManager.enabled = False  # it would start a thread
    config.InteractiveShell.colors = "nocolor"
    app = App.instance(config=config, session=bounded_session(max_sizes, settings["key"]))
    app.initialize([])  # type: ignore[no-untyped-call]
    return app


# -- the guardian


def kill_by_uid(settings: dict[str, Any]) -> None:
    """Kill every process of the sandbox's uid, in one call that nothing can fork away from."""
    helper = os.fork()
    if helper == 0:
        # effective uid of the sandbox, so that kill reaches it; real and saved uid of no one, so
        # that the sandbox cannot reach back
        try:
            os.setgroups([])
            os.setresuid(settings["killer_uid"], settings["uid"], settings["killer_uid"])
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass  # ESRCH: there is none
        finally:
            os._exit(0)
    os.waitpid(helper, 0)


def descendants() -> list[int]:
    """Return all processes below this one, from /proc."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir() if IS_LINUX else ():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_bytes().rsplit(b")", 1)[1].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, wave = [], [os.getpid()]
    while wave:
        wave = [child for parent in wave for child in parents.get(parent, [])]
        found += wave
    return found


def kill_all(settings: dict[str, Any], kernel: int, is_reaped: bool) -> None:  # noqa: FBT001
    """Kill every process of the sandbox and return when they are gone (or after ten seconds)."""
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        if settings["uid"] is not None:
            kill_by_uid(settings)
        else:
            for pid in [] if is_reaped else [kernel]:
                send_signal(-pid, signal.SIGKILL)
            for pid in descendants():
                send_signal(pid, signal.SIGKILL)
        is_reaped = True
        if reap_until_idle(0.05):
            return


def reap_until_idle(patience_s: float) -> bool:
    """Collect dead children, orphans of the sandbox included; True when none is left."""
    give_up_at = time.monotonic() + patience_s
    while time.monotonic() < give_up_at:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
        except ChildProcessError:
            return True
    return False


def remove_folders(settings: dict[str, Any]) -> None:
    """Remove the sandbox's folders, as the dead runner cannot; the last one out takes the pool's."""
    import shutil

    top = Path(settings["work"]).parent
    with suppress(RecursionError):  # a tree deeper than the stack stays
        shutil.rmtree(top, ignore_errors=True)
    with suppress(OSError):
        Path(settings["log"]).unlink()
        top.parent.rmdir()


def send_signal(pid: int, number: int) -> None:
    """Signal a process, or a group by its negative number, that may be gone."""
    with suppress(OSError):
        os.kill(pid, number)


def guard(settings: dict[str, Any], kernel: int, wakeup: int) -> int:
    """Wait until the kernel ends or the lifeline does, kill all, and return the kernel's status."""
    status = 0
    is_dead = False
    while not is_dead:
        readable, _, _ = select.select([0, wakeup], [], [])
        if wakeup in readable:
            os.read(wakeup, 4096)
        if 0 in readable:
            word = os.read(0, 64)
            if not word:
                break
            if b"i" in word:
                send_signal(-kernel, signal.SIGINT)
        while True:
            pid, ended = os.waitpid(-1, os.WNOHANG) if not is_dead else (0, 0)
            if pid == 0:
                break
            if pid == kernel:
                status, is_dead = ended, True
    kill_all(settings, kernel, is_dead)
    return status


def exit_like(status: int) -> None:
    """End this process as another one ended."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def read_settings() -> dict[str, Any]:
    """Read one line from standard input, byte-exact: what follows it belongs to the lifeline."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            os._exit(0)
        line += part
    settings: dict[str, Any] = json.loads(line)
    return settings


def main() -> None:
    """Start the kernel and guard it; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    settings = read_settings()
    wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    if settings["uid"] is not None and IS_LINUX:
        open_the_way(interpreter_folders())
    guardian = os.getpid()
    kernel = os.fork()
    if kernel == 0:
        signal.set_wakeup_fd(-1)
        os.close(wakeup)
        os.close(wakeup_write)
        ready = os.dup(1)
        be_kernel(settings, guardian, ready)
        os._exit(0)
    os.close(1)  # so that its end means that the kernel is up, or gone
    status = guard(settings, kernel, wakeup)
    if os.getppid() != settings["runner"]:
        remove_folders(settings)
    exit_like(status)


if __name__ == "__main__":
    try:
        main()
    except Unsupported as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        os._exit(EXIT_UNSUPPORTED)
    except Exception:
        sys.__excepthook__(*sys.exc_info())
        sys.stderr.flush()
        os._exit(EXIT_SETUP)
