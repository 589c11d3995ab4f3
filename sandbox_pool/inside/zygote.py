"""The fork server: one thread, no asyncio, no secrets; imports once what every kernel needs.

It is talked to in lock step over one socket: a line of JSON with descriptors each way. What comes first
are the settings, which its keeper has read; then one line for each sandbox to fork. Keys, seeds and names
of samples never come here: each sandbox's init is told by a socket of its own.
"""

from __future__ import annotations

import gc
import importlib
import os
import platform
import signal
import socket
import sys
from typing import Any

from sandbox_pool.inside import birth, init, interpreter, isolation, lines, mounts, syscalls, tiers
from sandbox_pool.inside.syscalls import SetupFailed, Unsupported

CONNECTION = 0


class PreloadFailed(Exception):  # noqa: N818 - it is told over the socket, and raised as another error there
    """A module of the profile cannot be loaded; the text names it."""


def main(settings: dict[str, Any], progress: int, go: int) -> None:
    """Become the zygote of these settings; never returns.

    Args:
        settings: the manager's first line, whose keys are those that the modules here read.
        progress: pipe to the keeper, which hears of each step, and of our death by its end.
        go: pipe from the keeper, which says when it has become our parent.
    """
    connection = socket.socket(fileno=CONNECTION)
    try:
        reach_tier(settings, progress, go)
        tier = tiers.prepare(settings)
        skipped = load(settings, progress)
        freeze()
    except (Unsupported, SetupFailed, PreloadFailed) as error:
        kind = {Unsupported: "unsupported", SetupFailed: "setup"}.get(type(error), "preload")
        refuse(connection, str(error), kind, progress)
    except Exception as error:
        sys.__excepthook__(*sys.exc_info())
        refuse(connection, f"the zygote cannot be set up: {type(error).__name__}: {error}", "setup", progress)
    else:
        lines.send(
            connection,
            {
                "ready": True,
                "python": platform.python_version(),
                "modules": [name for name in settings["preload"] if name not in skipped],
                "skipped": skipped,
                "enforced": tier.enforced,
            },
        )
        os.write(progress, b"ready\n")
        serve(connection, settings, tier, progress)
    os._exit(0)


def refuse(connection: socket.socket, text: str, kind: str, progress: int) -> None:
    """Tell the manager why there will be no zygote."""
    os.write(progress, b"ready\n")  # the keeper need not say it in our place
    lines.send(connection, {"error": text, "kind": kind})
    os._exit(1)


def reach_tier(settings: dict[str, Any], progress: int, go: int) -> None:
    """Become the process that stays the zygote, tied to the life of the keeper."""
    isolation.ignore_signals()
    os.environ.update(settings.get("environment") or {})
    if settings["tier"] == "namespace":
        isolation.build_namespaces(settings)
        pid = os.fork()
        if pid != 0:
            os.write(progress, b"pid %d\n" % pid)
            os._exit(0)
    else:
        os.write(progress, b"pid %d\n" % os.getpid())
    if os.read(go, 1) != b"g":  # the keeper is gone
        os._exit(1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if settings["tier"] == "namespace":
        isolation.settle_zygote()
        sys.modules["sandbox_pool.inside"].__path__ = [mounts.INSIDE]
    os.close(go)


def load(settings: dict[str, Any], progress: int) -> list[str]:
    """Import what the profile names and make the kernel ready; return the names that are not installed."""
    search_paths(settings)
    skipped = []
    for name in settings["preload"]:
        os.write(progress, f"doing importing {name!r}\n".encode())
        if not import_module(name, is_optional=settings["preload_optional"]):
            skipped.append(name)
    os.write(progress, b"doing importing the kernel\n")
    try:
        importlib.import_module("sandbox_pool.inside.service")  # what a kernel would load after the fork
        kernel = importlib.import_module("sandbox_pool.inside.kernel")
        kernel.prepare(settings["kernel"])
    except ImportError as error:
        raise SetupFailed(
            f"{sys.executable} cannot run the {settings['kernel']} kernel: {error}; install "
            f"{'ipykernel' if settings['kernel'] == 'ipykernel' else 'ipython'} for it"
        ) from error
    assert_one_thread("the kernel")
    os.write(progress, b"doing its last preparations\n")
    return skipped


def search_paths(settings: dict[str, Any]) -> None:
    """Leave on sys.path only what a sandbox can read too, and add the folders and wheels of users."""
    allowed = [*interpreter.prefixes(), "/usr", *(settings.get("extra_paths") or [])]
    allowed += [target for _, target in settings.get("mounts") or []]
    sys.path[:] = [entry for entry in sys.path if entry == "" or interpreter.is_beneath(entry, allowed)]
    sys.path += interpreter.extra_entries(settings)


def import_module(name: str, *, is_optional: bool) -> bool:
    """Import a module; False when it is optional and not there. Whatever it raises names it."""
    try:
        importlib.import_module(name)
    except BaseException as error:
        if is_optional and isinstance(error, ImportError):
            return False
        raise PreloadFailed(
            f"importing {name!r} for the profile failed with {type(error).__name__}: {error}; install it for "
            f"{sys.executable}, or take it off the preload list"
        ) from error
    assert_one_thread(name)
    return True


def assert_one_thread(name: str) -> None:
    """Refuse a module that started threads: a fork would leave them behind, with their locks held."""
    if syscalls.n_tasks() != 1:
        raise PreloadFailed(
            f"importing {name!r} started a thread, so kernels cannot be forked with it loaded: take it off "
            "the preload list, or find the setting that makes it start none"
        )


def freeze() -> None:
    """Make memory stay shared after a fork, and see to it that dead sandboxes are collected."""
    gc.collect()
    gc.disable()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # by the system, at once


def serve(connection: socket.socket, settings: dict[str, Any], tier: tiers.Tier, progress: int) -> None:
    """Fork a sandbox for each request, until the manager hangs up."""
    while True:
        received = lines.receive(connection)
        if received is None:
            return
        request, descriptors = received
        pidfd: tuple[int, ...] = ()
        try:
            pid = fork(connection, settings, tier, progress, request, descriptors)
            if syscalls.IS_LINUX:
                pidfd = (os.pidfd_open(pid),)
            lines.send(connection, {"pid": pid}, pidfd)
        except OSError as error:
            lines.send(connection, {"error": str(error)})
        for descriptor in (*descriptors, *pidfd):
            os.close(descriptor)


def fork(
    connection: socket.socket,
    settings: dict[str, Any],
    tier: tiers.Tier,
    progress: int,
    request: dict[str, Any],
    descriptors: list[int],
) -> int:
    """Fork one sandbox and return the pid of its init. Raises OSError when the system has none to give."""
    n_listeners, n_cgroups = request["listeners"], request["cgroups"]
    if len(descriptors) != 4 + n_listeners + n_cgroups:
        raise OSError(f"{len(descriptors)} descriptors came with {request}: too many open files?")
    if syscalls.n_tasks() != 1:
        raise OSError("the zygote has more than one thread and cannot be forked")
    pid = tier.fork()
    if pid == 0:
        control, channel, stdout, stderr = descriptors[:4]
        ends = birth.Ends(
            control, channel, stdout, stderr, descriptors[4 : 4 + n_listeners], descriptors[4 + n_listeners :]
        )
        connection.detach()
        init.main(settings, tier, ends, [CONNECTION, progress])
        os._exit(1)
    return pid
