from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from sandbox_pool import PoolConfig, UnsupportedHost
from sandbox_pool.host.hierarchies import Hierarchies, Hierarchy
from sandbox_pool.host.probe import capabilities
from sandbox_pool.host.tiers import TIERS, Facts, Interpreter, choose_tier, enforced, lacks, unmet

ALL_GROUPS = Hierarchies((Hierarchy(1, Path("/cg"), frozenset({"memory", "pids", "cpu"})),))
NO_GROUPS = Hierarchies((), dict.fromkeys(("memory", "pids", "cpu"), "start as root"))
NO_USERS = {
    "namespace_tier": "EPERM",
    "user_namespaces": "EPERM; set the sysctl",
    "mount": "EPERM; other words",
}


def facts(**changes: Any) -> Facts:
    """A machine that has everything, but for the changes."""
    everything = frozenset({"IPython", "ipykernel", "zmq"})
    python = str(PoolConfig().python)
    usual = {
        "platform": "linux",
        "uid": 1000,
        "landlock_abi": 7,
        "groups": ALL_GROUPS,
        "interpreters": {python: Interpreter("3.11.7", everything)},
    }
    return Facts(**{**usual, **changes})


machines = st.builds(
    Facts,
    platform=st.sampled_from(["linux", "darwin"]),
    uid=st.sampled_from([0, 1000]),
    landlock_abi=st.sampled_from([0, 3, 7]),
    problems=st.dictionaries(
        st.sampled_from(["namespace_tier", "user_namespaces", "mount", "seccomp", "drop_uid", "pivot_root"]),
        st.just("EPERM; the remedy"),
    ),
    groups=st.sampled_from([ALL_GROUPS, NO_GROUPS]),
    interpreters=st.just(facts().interpreters),
)
configs = st.builds(
    PoolConfig,
    tier=st.sampled_from(["auto", *TIERS]),
    allow_unsafe=st.booleans(),
    uid=st.sampled_from([None, 1000, 77]),
    kernel=st.sampled_from(["lean", "ipykernel"]),
    network=st.sampled_from(["none", "host"]),
    max_cores=st.sampled_from([None, 2.0]),
    memory_bytes=st.sampled_from([None, 1 << 30]),
    mounts=st.sampled_from([{}, {"/data": Path("/srv")}, {"/srv": Path("/srv")}]),
)


@given(configs, machines, st.booleans())
def test_a_tier_that_is_taken_is_available(config: PoolConfig, machine: Facts, is_trusted: bool) -> None:
    """What is taken lacks nothing; what is asked for by name is taken or refused; process takes a yes."""
    try:
        tier, said = choose_tier(config, machine, trusted_code=is_trusted)
    except UnsupportedHost:
        event("refused")
        return
    event(f"{config.tier}: {tier}")
    assert not lacks(tier, machine)
    assert not unmet(config, machine, tier)
    assert config.tier in ("auto", tier)
    assert config.max_cores is None or "cpu" in machine.groups.controllers
    if tier == "process":
        assert config.allow_unsafe if config.tier == "process" else is_trusted
        assert any("promises nothing" in warning for warning in said)
    if config.tier == "auto":
        better = TIERS[: TIERS.index(tier)]
        assert all(lacks(name, machine) or unmet(config, machine, name) for name in better)
        assert all(any(f"no tier {name}" in warning for warning in said) for name in better)


@given(configs, machines, st.sampled_from(TIERS))
def test_record_is_whole(config: PoolConfig, machine: Facts, tier: Any) -> None:
    """Every machine gives a record that is JSON and says of each thing how it is bounded."""
    record = capabilities(config, machine, tier, [])
    assert json.loads(json.dumps(record)) == record
    assert record["tiers"].keys() == set(TIERS)
    assert all(record["enforced"].values())
    if tier == "process":
        assert record["enforced"]["network"] == "not limited"


@pytest.mark.parametrize("has_namespaces", [True, False])
@pytest.mark.parametrize("has_landlock", [True, False])
@pytest.mark.parametrize("is_trusted", [True, False])
@pytest.mark.parametrize("asked", ["auto", *TIERS])
def test_every_combination(has_namespaces: bool, has_landlock: bool, is_trusted: bool, asked: str) -> None:
    """Namespace before landlock; process only by name and permission, or for our own code."""
    machine = facts(problems={} if has_namespaces else NO_USERS, landlock_abi=7 if has_landlock else 0)
    config = PoolConfig.model_validate({"tier": asked})
    has = {"namespace": has_namespaces, "landlock": has_landlock, "process": is_trusted}
    order = TIERS if asked == "auto" else ((asked,) if asked != "process" else ())
    tier = next((name for name in order if has[name]), None)
    if tier is None:
        with pytest.raises(UnsupportedHost):
            choose_tier(config, machine, trusted_code=is_trusted)
    else:
        assert choose_tier(config, machine, trusted_code=is_trusted)[0] == tier


def test_process_takes_permission() -> None:
    """The unsafe tier is refused without a word for it, though the code be our own, and taken with it."""
    for is_trusted in (False, True):
        with pytest.raises(UnsupportedHost, match=r"allow_unsafe: true.*tier: auto"):
            choose_tier(PoolConfig(tier="process"), facts(), trusted_code=is_trusted)
    tier, said = choose_tier(PoolConfig(tier="process", allow_unsafe=True), facts())
    assert tier == "process"
    assert any("not root" in warning for warning in said)


def test_auto_never_takes_process() -> None:
    """Permission for the unsafe tier is no wish for it."""
    machine = facts(problems=NO_USERS, landlock_abi=0)
    with pytest.raises(UnsupportedHost, match=r"sandbox\.tier: process"):
        choose_tier(PoolConfig(allow_unsafe=True), machine)


def test_remedies_are_said() -> None:
    """A refusal says, tier by tier, what is missing and what would help; not what fails for the same reason."""
    with pytest.raises(UnsupportedHost) as caught:
        choose_tier(PoolConfig(), facts(problems=NO_USERS, landlock_abi=0))
    text = str(caught.value)
    assert "set the sysctl" in text
    assert "other words" not in text
    assert "lsm=" in text
    with pytest.raises(UnsupportedHost, match="virtual machine"):
        choose_tier(PoolConfig(), facts(platform="darwin"))


def test_part_that_is_missing_is_named() -> None:
    """Where user namespaces work, the part that does not is what is said; else the whole's own words."""
    parts = {"namespace_tier": "no /proc", "proc": "EPERM; unmask /proc"}
    assert lacks("namespace", facts(problems=parts)) == ["proc: EPERM; unmask /proc"]
    assert lacks("namespace", facts(problems={"namespace_tier": "odd"})) == ["namespace_tier: odd"]


def test_downgrade_is_said() -> None:
    """Taking landlock for want of namespaces comes with the reason."""
    tier, said = choose_tier(PoolConfig(), facts(problems=NO_USERS))
    assert tier == "landlock"
    assert "set the sysctl" in said[0]


@pytest.mark.parametrize(
    ("asked", "machine", "says"),
    [
        ({"max_cores": 2}, {"groups": NO_GROUPS}, "sandbox.max_cores.*start as root"),
        ({"profiles": {"a": {"max_cores": 2}}}, {"groups": NO_GROUPS}, "sandbox.profiles.a.max_cores"),
        ({"uid": 77}, {"landlock_abi": 0}, "sandbox.uid is 77 and this is uid 1000"),
        ({"mounts": {"/data": "/srv"}}, {"problems": NO_USERS}, "'/data' for /srv: only in the tier namespace"),
        ({"profiles": {"a": {"python": "/no/python"}}},
         {"interpreters": {"/no/python": Interpreter("", problem="No such file")}},
         r"cannot start /no/python \(sandbox.profiles.a.python\): No such file"),
        ({"python": "/py"}, {"interpreters": {"/py": Interpreter("3.9.1")}}, "-m pip install ipython"),
        ({"python": "/py", "kernel": "ipykernel"},
         {"interpreters": {"/py": Interpreter("3.9.1", frozenset({"IPython"}))}}, "lacks ipykernel and pyzmq"),
    ],
)  # fmt: skip
def test_what_cannot_be_met_is_an_error(asked: dict[str, Any], machine: dict[str, Any], says: str) -> None:
    """A wish is never dropped: the key, the reason and the remedy are named."""
    with pytest.raises(UnsupportedHost, match=says):
        choose_tier(PoolConfig.model_validate(asked), facts(**machine))


def test_broken_interpreter_is_not_blamed_on_the_machine() -> None:
    """Where the interpreter does not start, nothing is known of the machine, and nothing said of it."""
    machine = facts(interpreters={"/py": Interpreter("", problem="No such file")}, landlock_abi=0)
    with pytest.raises(UnsupportedHost) as caught:
        choose_tier(PoolConfig(python=Path("/py")), machine)
    assert "Landlock" not in str(caught.value)


def test_bound_in_force_is_the_next_best() -> None:
    """Without control groups memory is bounded by process, and how many of those by user namespace or uid."""
    profile = PoolConfig().profile_named(None)
    with_groups = enforced(profile, facts(), "namespace")
    assert "cgroup v1 memory" in with_groups["memory"]
    assert "cgroup v1 pids" in with_groups["processes"]
    bare = facts(groups=NO_GROUPS)
    assert "RLIMIT_AS" in enforced(profile, bare, "namespace")["memory"]
    assert "user namespace" in enforced(profile, bare, "namespace")["processes"]
    assert "not limited" in enforced(profile, bare, "landlock")["processes"]
    assert "own uid" in enforced(profile, facts(groups=NO_GROUPS, uid=0), "landlock")["processes"]
    assert "memory is bounded for each process" in choose_tier(PoolConfig(), bare)[1][-1]


def test_weak_landlock_is_said() -> None:
    """Before ABI 6 sandboxes of an ordinary user can signal each other."""
    config = PoolConfig(tier="landlock")
    assert any("signals" in text for text in choose_tier(config, facts(landlock_abi=5))[1])
    assert not any("signals" in text for text in choose_tier(config, facts(landlock_abi=6))[1])
    assert not any("signals" in text for text in choose_tier(config, facts(landlock_abi=5, uid=0))[1])
