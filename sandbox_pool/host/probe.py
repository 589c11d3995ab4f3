"""What this machine enforces for a sandbox: as facts to choose a tier by, as data for a run's record."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sandbox_pool.config import PoolConfig
from sandbox_pool.errors import UnsupportedHost
from sandbox_pool.host import cgroups, hierarchies
from sandbox_pool.host.tiers import (
    TIERS,
    Facts,
    Interpreter,
    Tier,
    choose_tier,
    enforced,
    lacks,
    uid_policy,
    unmet,
    unmet_anywhere,
    warnings,
)

_BOOT = Path(__file__).parent.parent / "inside" / "boot.py"
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_LIMIT_S = 30
_MAX_WORDS = 2000
_NOT_BOUNDS = {
    *("tier", "allow_unsafe", "python", "kernel", "environment", "scratch", "uid", "profile", "profiles"),
    *("preload", "mounts", "extra_paths", "network"),
    *("min_idle", "max_idle", "max_idle_s", "max_starting", "recycle_after", "zygote_timeout_s"),
}


def look(config: PoolConfig) -> Facts:
    """Return what this machine offers, by trying it in processes that are thrown away.

    Blocks for about 0.1 s for each interpreter; call it in a thread. What was found of the machine and of
    an interpreter is kept for the life of this process. Leaves nothing behind.
    """
    paths = {str(config.profile_named(name).python) for name in ("default", *config.profiles)}
    interpreters: dict[str, Interpreter] = {}
    machine: dict[str, Any] = {}
    for path in sorted(paths, key=lambda path: path != str(config.profile_named(None).python)):
        try:
            said = _ask(path)
        except UnsupportedHost as error:
            interpreters[path] = Interpreter("", problem=str(error))
        else:
            modules = frozenset(name for name, is_there in said["modules"].items() if is_there)
            interpreters[path] = Interpreter(str(said["python"]), modules)
            machine = machine or said
    problems = {name: _why(name, trial) for name, trial in machine.items() if _has_failed(trial)}
    return Facts(
        platform=sys.platform,
        uid=os.geteuid(),
        landlock_abi=int(machine.get("landlock_abi", 0)),
        problems=problems,
        groups=_groups(),
        interpreters=interpreters,
    )


def _has_failed(trial: object) -> bool:
    return isinstance(trial, dict) and trial.get("ok") is False


def _why(name: str, trial: dict[str, Any]) -> str:
    keys = ("error",) if name == "namespace_tier" else ("error", "remedy")  # its parts have the remedies
    return "; ".join(str(trial[key]) for key in keys if trial.get(key))


@cache
def _ask(python: str) -> dict[str, Any]:
    """Let an interpreter look at itself and at the machine.

    Raises:
        UnsupportedHost: it cannot be started, or is no Python that can run sandboxes.
    """
    command = [python, "-s", str(_BOOT), "probe"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=_ENVIRONMENT, cwd="/", timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except OSError as error:
        raise UnsupportedHost(error.strerror or str(error)) from error
    except subprocess.TimeoutExpired:
        raise UnsupportedHost(f"it did not answer in {_LIMIT_S} s") from None
    try:
        said = json.loads(done.stdout)
        if isinstance(said, dict) and {"python", "modules"} <= said.keys():
            return said
    except ValueError:
        pass
    words = (done.stderr or done.stdout).strip()[-_MAX_WORDS:] or "nothing"
    raise UnsupportedHost(f"it is no Python (3.9 or newer) that runs sandboxes; it wrote: {words}")


@cache
def _groups() -> hierarchies.Hierarchies:
    return cgroups.try_out(hierarchies.find())


def capabilities(config: PoolConfig, facts: Facts, tier: Tier | None, said: list[str]) -> dict[str, Any]:
    """Return what sandboxes of this config are held by, for a run's record. Pure, and holds no secrets.

    Args:
        config: what is asked for.
        facts: from `look`.
        tier: from `choose_tier`; None: none could be chosen.
        said: the warnings, or why there is no tier.
    """
    profile = config.profile_named(None)
    interpreter = facts.interpreters.get(str(profile.python), Interpreter(""))
    return {
        "tier": tier or "none",
        "kernel": profile.kernel,
        "platform": platform.platform(),
        "uid_policy": uid_policy(facts, tier) if tier else "",
        "python": str(profile.python),
        "python_version": interpreter.python,
        "network": profile.network,
        "limits": config.model_dump(mode="json", exclude=_NOT_BOUNDS)
        | profile.model_dump(mode="json", exclude=_NOT_BOUNDS),
        "enforced": enforced(profile, facts, tier) if tier else {},
        "warnings": said,
        "landlock_abi": facts.landlock_abi,
        "cgroups": {
            "found": [
                {"version": place.version, "controllers": sorted(place.controllers)}
                for place in facts.groups.places
            ],
            "missing": dict(facts.groups.missing),
        },
        "tiers": {name: _offer(config, facts, name) for name in TIERS},
    }


def _offer(config: PoolConfig, facts: Facts, tier: Tier) -> dict[str, Any]:
    """Return what a tier would be on this machine, taken or not."""
    missing = lacks(tier, facts) + unmet_anywhere(config, facts) + unmet(config, facts, tier)
    offer: dict[str, Any] = {"is_available": not missing, "missing": missing}
    if not missing:
        offer |= {
            "enforced": enforced(config.profile_named(None), facts, tier),
            "warnings": warnings(config, facts, tier),
        }
    return offer


def probe(config: PoolConfig | None = None, *, trusted_code: bool = False) -> dict[str, Any]:
    """Return what sandboxes of this config would be held by here; `tier` is `none` if they cannot be.

    Blocks as `look` does.
    """
    config = config or PoolConfig()
    facts = look(config)
    try:
        tier, said = choose_tier(config, facts, trusted_code=trusted_code)
    except UnsupportedHost as error:
        return capabilities(config, facts, None, [str(error)])
    return capabilities(config, facts, tier, said)
