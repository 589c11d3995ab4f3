"""What the probe finds, on this machine and where namespaces are forbidden."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from sandbox_pool.inside import probe
from tests.sandbox_pool.inside import driver
from tests.sandbox_pool.inside.driver import Keeper, settings
from tests.sandbox_pool.inside.test_zygote import FORBID

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="it tries what Linux has"),
]


def found(*prefix: str) -> dict[str, Any]:
    """Run the probe as the manager does."""
    command = [*prefix, sys.executable, "-s", str(driver.INSIDE / "boot.py"), "probe"]
    done = subprocess.run(command, capture_output=True, timeout=20, check=True, env=driver.ENVIRONMENT)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_it_agrees_with_a_zygote() -> None:
    """The namespace tier is possible by the probe where a zygote of it starts, and only there."""
    answer = found()
    with Keeper(settings()) as keeper:
        assert keeper.greeting is not None
        assert answer["namespace_tier"]["ok"] == ("ready" in keeper.greeting), (answer, keeper.greeting)
    assert answer["python"] == platform.python_version()
    assert answer["modules"]["IPython"]
    assert answer["uid"] == os.geteuid()


def test_what_is_forbidden_is_told_with_a_remedy() -> None:
    """Under a container's filter no namespace can be had, each with a reason; seccomp still can."""
    answer = found(sys.executable, "-c", FORBID)
    for name in ("namespace_tier", "user_namespaces", "mount", "pivot_root", "proc", "network"):
        assert not answer[name]["ok"], name
        assert answer[name]["error"], name
        assert answer[name]["remedy"], name
    assert answer["seccomp"]["ok"]
    assert answer["drop_uid"]["ok"]


def test_it_leaves_nothing() -> None:
    """No mount and no child of a trial is left."""
    before = probe.Path("/proc/self/mountinfo").read_text()
    answer = probe.probe()
    assert answer["kernel_release"] == platform.release()
    assert probe.Path("/proc/self/mountinfo").read_text() == before
    assert not driver.descendants(os.getpid())


@pytest.mark.parametrize(
    ("sysctls", "word"),
    [
        ({"kernel.unprivileged_userns_clone": 0}, "kernel.unprivileged_userns_clone=1"),
        ({"kernel.apparmor_restrict_unprivileged_userns": 1}, "apparmor_restrict_unprivileged_userns=0"),
        ({"user.max_user_namespaces": 0}, "max_user_namespaces"),
        ({"user.max_user_namespaces": 9999}, "seccomp"),
    ],
)
def test_remedy_for_user_namespaces(sysctls: dict[str, int], word: str) -> None:
    """The remedy names what forbids them on this kind of system."""
    assert word in probe.remedy_for_users(sysctls)


def test_a_trial_that_hangs_or_crashes() -> None:
    """A trial that ends its process is a failed trial, with the reason."""
    assert not probe.attempt(lambda: os._exit(3))["ok"]
    assert not probe.attempt(lambda: os.kill(os.getpid(), 9))["ok"]
    assert probe.attempt(lambda: None) == {"ok": True}
