"""From a fork of init to a kernel: what must be done, and given up, before the first line of its code."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from sandbox_pool.inside import isolation, lines, syscalls, tiers
from sandbox_pool.inside.syscalls import SetupFailed, Unsupported

if TYPE_CHECKING:
    from sandbox_pool.inside.tiers import Tier

EXIT_SETUP = 71


class Ends(NamedTuple):
    """The descriptors that came with a fork request."""

    control: int
    channel: int
    stdout: int
    stderr: int
    listeners: list[int]
    cgroups: list[int]


def be_kernel(
    settings: dict[str, Any], tier: Tier, ends: Ends, start: dict[str, Any], interrupt: int, guardian: int
) -> None:
    """Become the kernel; never returns. What keeps it from becoming one is told over the control socket."""
    try:
        for descriptor in ends.cgroups:
            os.write(descriptor, b"0")  # this process
        os.setsid()
        signal.set_wakeup_fd(-1)
        isolation.reset_signals()
        if settings["tier"] == "namespace":
            isolation.give_up_rights(tier.filter)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        else:
            confine(settings, tier, start, guardian)
        arrange_descriptors(ends, interrupt)
        if settings["tier"] != "namespace":
            isolation.limit(
                settings["rlimits"]
            )  # last: Landlock's rules are more descriptors than a kernel may have
    except BaseException as error:
        is_known = isinstance(error, (SetupFailed, Unsupported))
        text = str(error) if is_known else f"the kernel cannot be set up: {type(error).__name__}: {error}"
        kind = "unsupported" if isinstance(error, Unsupported) else "setup"
        os.write(ends.control, lines.encode({"error": text, "kind": kind}))
        os._exit(EXIT_SETUP)
    os.close(ends.control)
    os._exit(run(start, ends, interrupt))


def arrange_descriptors(ends: Ends, interrupt: int) -> None:
    """Leave open only what the kernel is given; programs that it starts inherit 0, 1 and 2."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((null, 0), (ends.stdout, 1), (ends.stderr, 2)):
        os.dup2(source, target)
    kept = [0, 1, 2, ends.control, ends.channel, ends.stdout, ends.stderr, interrupt, *ends.listeners]
    syscalls.close_all_but(kept)


def run(start: dict[str, Any], ends: Ends, interrupt: int) -> int:
    """Run the kernel until its end, and return the exit code."""
    from sandbox_pool.inside import kernel

    try:
        return kernel.run(
            start,
            channel=ends.channel,
            stdout=ends.stdout,
            stderr=ends.stderr,
            interrupt=interrupt,
            listeners=ends.listeners,
        )
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
        os.write(2, b"")
        return EXIT_SETUP


def confine(settings: dict[str, Any], tier: Tier, start: dict[str, Any], guardian: int) -> None:
    """Limit this process and take its rights, where namespaces do not hold it."""
    os.environ.update(tiers.environment(settings, start["work"]))
    os.chdir(f"{start['work']}/work")
    if syscalls.IS_LINUX:
        isolation.write(isolation.OOM_SCORE, "/proc/self/oom_score_adj")
    if start.get("uid") is not None:
        if syscalls.IS_LINUX:
            syscalls.drop_bounding_set()  # takes a right that the change of uid takes
        isolation.drop_to(start["uid"])
    if start.get("workspace") is not None:
        link_workspace(settings, start["workspace"])
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of uid clears it
    if os.getppid() != guardian:
        os._exit(EXIT_SETUP)
    if tier.rules is not None:
        tier.rules.restrict(start["work"], workspace_path(settings, start.get("workspace")))
    if tier.filter is not None:
        tier.filter.install()


def workspace_path(settings: dict[str, Any], name: str | None) -> str | None:
    """Return the host's folder of a workspace."""
    return None if name is None else f"{settings['workspaces']}/{name}"


def link_workspace(settings: dict[str, Any], name: str) -> None:
    """Link the host's folder of a workspace from the working directory."""
    path = workspace_path(settings, name)
    if path is None or name in ("", ".", "..") or "/" in name or not os.path.isdir(path):  # noqa: PTH112
        raise SetupFailed(f"there is no workspace {name!r}")
    os.symlink(path, "workspace")  # noqa: PTH211
