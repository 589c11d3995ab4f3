"""What each tier promises on a machine, what it lacks there, and which one is taken. Pure.

`probe` finds the facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sandbox_pool.config import DEFAULT_PROFILE, MIB, PoolConfig, Profile
from sandbox_pool.errors import UnsupportedHost
from sandbox_pool.host.hierarchies import Hierarchies

Tier = Literal["namespace", "landlock", "process"]
TIERS: tuple[Tier, ...] = ("namespace", "landlock", "process")

_LANDLOCK_SIGNALS = 6  # the ABI from which signals and abstract sockets are confined
_USE_A_LINUX = "use Linux, a virtual machine or a container with it for one"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter that kernels run in."""

    python: str
    """Its version; empty if it cannot be started."""

    modules: frozenset[str] = frozenset()
    """Those of IPython, ipykernel, zmq, numpy, pandas, matplotlib that it has."""

    problem: str = ""
    """Why it cannot be started."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine lets this process do."""

    platform: str
    """As sys.platform."""

    uid: int
    landlock_abi: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)
    """What was tried and failed -> the system's words and what would help: `namespace_tier` for the whole,
    beside it the parts that it fails for; `seccomp`, `drop_uid`."""

    groups: Hierarchies = field(default_factory=Hierarchies)
    interpreters: Mapping[str, Interpreter] = field(default_factory=dict)
    """By path: those of all profiles."""

    @property
    def is_root(self) -> bool:
        """Whether sandboxes can be given uids."""
        return self.uid == 0


# -- what is missing


def lacks(tier: Tier, facts: Facts) -> list[str]:
    """Return what this machine lacks for a tier, each with what would help; nothing if it has all."""
    if tier == "process":
        return _problems(facts, "drop_uid") if facts.is_root else []
    if facts.platform != "linux":
        return [f"{facts.platform} has none of what it is made of: {_USE_A_LINUX}"]
    if tier == "namespace":
        if "namespace_tier" not in facts.problems:
            return []
        parts = [name for name in facts.problems if name != "namespace_tier"]
        if "user_namespaces" in parts:  # all the others fail for it
            parts = [name for name in parts if name in ("user_namespaces", "seccomp", "drop_uid")]
        return _problems(facts, *(parts or ["namespace_tier"]))
    missing = _problems(facts, "seccomp", *(["drop_uid"] if facts.is_root else []))
    if not facts.landlock_abi:
        missing.append("Landlock: it takes Linux 5.13 or newer, with landlock among CONFIG_LSM or lsm=")
    return missing


def _problems(facts: Facts, *names: str) -> list[str]:
    return [f"{name}: {facts.problems[name]}" for name in names if name in facts.problems]


def unmet(config: PoolConfig, facts: Facts, tier: Tier) -> list[str]:
    """Return what the config asks for that a tier cannot give on this machine, each with what would help."""
    if tier == "namespace":
        if config.uid in (None, facts.uid) or facts.is_root:
            return []
        return [
            f"sandbox.uid is {config.uid} and this is uid {facts.uid}: only root may choose; leave it out, "
            "or start as root"
        ]
    moved = [
        f"{where}.mounts has {target!r} for {source}: only in the tier namespace has a mount another path "
        "inside than outside"
        for where, profile in _profiles(config)
        for target, source in profile.mounts.items()
        if target != str(source)
    ]
    return list(dict.fromkeys(moved))


def unmet_anywhere(config: PoolConfig, facts: Facts) -> list[str]:
    """Return what the config asks for that no tier can give on this machine, each with what would help."""
    problems = []
    for where, profile in _profiles(config):
        problems += _unmet_interpreter(profile, facts, where)
        if profile.max_cores is not None and "cpu" not in facts.groups.controllers:
            reason = facts.groups.missing.get("cpu", "there are no control groups")
            problems.append(f"{where}.max_cores takes a control group with the cpu controller: {reason}")
    return problems


def _profiles(config: PoolConfig) -> Iterator[tuple[str, Profile]]:
    """Yield each profile with the key that it stands at; a profile alone has what it does not inherit."""
    yield "sandbox", config.profile_named(DEFAULT_PROFILE)
    for name in config.profiles:
        yield f"sandbox.profiles.{name}", config.profile_named(name)


def _unmet_interpreter(profile: Profile, facts: Facts, where: str) -> list[str]:
    interpreter = facts.interpreters.get(str(profile.python))
    if interpreter is None:
        return []
    if interpreter.problem:
        return [f"cannot start {profile.python} ({where}.python): {interpreter.problem}"]
    wanted = {"IPython"} if profile.kernel == "lean" else {"IPython", "ipykernel", "zmq"}
    missing = ["pyzmq" if name == "zmq" else name.lower() for name in sorted(wanted - interpreter.modules)]
    if not missing:
        return []
    what = " and ".join(missing)
    return [
        f"{profile.python} ({where}.python) lacks {what}, which `kernel: {profile.kernel}` needs: "
        f"`{profile.python} -m pip install {' '.join(missing)}`"
    ]


# -- which one


def choose_tier(config: PoolConfig, facts: Facts, *, trusted_code: bool = False) -> tuple[Tier, list[str]]:
    """Return the tier of a pool, and warnings for its user.

    `auto` takes namespace, else landlock. It never takes process, unless the code is our own.

    Args:
        config: what is asked for.
        facts: what there is.
        trusted_code: whether all code is that of the built-in demo.

    Raises:
        UnsupportedHost: no tier that may be taken gives what is asked for; says what would help.
    """
    if config.tier == "process" and not config.allow_unsafe:
        raise UnsupportedHost(
            "sandbox.tier is process, which promises nothing against code that attacks: it can use the "
            "network and reach what this user can. Set sandbox.allow_unsafe: true if you trust the code, or "
            "sandbox.tier: auto"
        )
    if problems := unmet_anywhere(config, facts):
        raise UnsupportedHost("this machine cannot hold sandboxes as asked: " + "; ".join(problems))
    wanted: tuple[Tier, ...] = TIERS[:2] if config.tier == "auto" else (config.tier,)
    if config.tier == "auto" and trusted_code:
        wanted = TIERS
    passed: list[str] = []
    for tier in wanted:
        missing = lacks(tier, facts) + unmet(config, facts, tier)
        if not missing:
            return tier, [*passed, *warnings(config, facts, tier)]
        passed.append(f"no tier {tier} here: {'; '.join(missing)}")
    text = "this machine cannot hold sandboxes as asked:\n" + "\n".join(f"  {line}" for line in passed)
    if config.tier == "auto":
        text += (
            "\nFor code that you trust with all that this user can reach, set sandbox.tier: process and "
            "sandbox.allow_unsafe: true."
        )
    raise UnsupportedHost(text)


def warnings(config: PoolConfig, facts: Facts, tier: Tier) -> list[str]:
    """Return what whoever runs code in this tier, on this machine, should know."""
    found = []
    if tier == "process":
        found.append(
            "tier process promises nothing against code that attacks: it can use the network, and read what "
            "every user of this machine may read"
        )
        if not facts.is_root:
            found.append(
                "not root, so sandboxes run as the runner's user and can read and signal what is that "
                "user's, the runner's environment included: keep secrets out of it, or start as root"
            )
    if tier == "landlock" and facts.landlock_abi < _LANDLOCK_SIGNALS and not facts.is_root:
        found.append(
            f"Landlock of ABI {facts.landlock_abi} does not confine signals, so a sandbox can end processes "
            f"of this user, other sandboxes too: start as root, or use Linux 6.12 (ABI {_LANDLOCK_SIGNALS})"
        )
    if facts.platform != "linux":
        found.append("no PR_SET_PDEATHSIG here: kernels can outlive a killed guardian")
    profile = config.profile_named(None)
    if profile.memory_bytes is not None and "memory" not in facts.groups.controllers:
        reason = facts.groups.missing.get("memory", "no control groups")
        found.append(f"memory is bounded for each process, not for a sandbox as a whole: {reason}")
    return found


# -- what is enforced


def enforced(profile: Profile, facts: Facts, tier: Tier) -> dict[str, str]:
    """Return by which means a sandbox of this profile is bounded, for all that one may wish bounded."""
    return {
        "memory": _memory(profile, facts, tier),
        "cpu": _cpu(profile, facts),
        "file_size": f"{profile.max_file_bytes // MIB} MiB each file (RLIMIT_FSIZE)",
        "processes": _processes(profile, facts, tier),
        "disk": _disk(profile, tier),
        "network": _network(profile, tier),
        "files_of_others": _files_of_others(facts, tier),
        "system_calls": "not limited"
        if tier == "process"
        else "deny list (seccomp); no capabilities, no new privileges",
        "kill_all": _kill_all(facts, tier),
    }


def _memory(profile: Profile, facts: Facts, tier: Tier) -> str:
    if profile.memory_bytes is None:
        return "not limited"
    size = f"{profile.memory_bytes // MIB} MiB"
    each = f"{size} address space of each process (RLIMIT_AS)"
    if "memory" in facts.groups.controllers:
        files = ", its files included" if tier == "namespace" else ""
        return f"{size} of each sandbox{files} ({_group(facts, 'memory')}); {each}"
    return each if tier == "process" else f"{each}; no memory files or segments beside it (seccomp)"


def _group(facts: Facts, controller: str) -> str:
    versions = {place.version for place in facts.groups.places if controller in place.controllers}
    return f"cgroup v{max(versions)} {controller}"


def _cpu(profile: Profile, facts: Facts) -> str:
    found = [f"{profile.cpu_s} s of each process (RLIMIT_CPU)"] if profile.cpu_s else []
    if profile.max_cores is not None and "cpu" in facts.groups.controllers:  # else there is no sandbox
        found.append(f"{profile.max_cores:g} cores of each sandbox ({_group(facts, 'cpu')})")
    return "; ".join(found) or "not limited"


def _processes(profile: Profile, facts: Facts, tier: Tier) -> str:
    n = f"{profile.max_processes} of each sandbox"
    if "pids" in facts.groups.controllers:
        return f"{n} ({_group(facts, 'pids')})"
    if tier == "namespace":
        return f"{n} (RLIMIT_NPROC in its own user namespace)"
    if facts.is_root:
        return f"{n} (RLIMIT_NPROC of its own uid)"
    return "not limited: that takes a user namespace, a control group, or root's right to give it a uid"


def _disk(profile: Profile, tier: Tier) -> str:
    if tier == "namespace":
        return f"{profile.disk_bytes // MIB} MiB and {profile.max_files} files of each sandbox (tmpfs)"
    return "not limited beyond the size of each file"


def _network(profile: Profile, tier: Tier) -> str:
    if tier == "process" or profile.network == "host":
        return "not limited"
    return (
        "none (own network namespace)"
        if tier == "namespace"
        else "none (unix sockets only, seccomp and Landlock)"
    )


def _files_of_others(facts: Facts, tier: Tier) -> str:
    if tier == "namespace":
        return "not there: own read-only root with what the code needs"
    if tier == "landlock":
        return "cannot be opened, but for the system's and the interpreter's (Landlock)"
    return "own uid, folders 0700" if facts.is_root else "not protected: all sandboxes share our uid"


def _kill_all(facts: Facts, tier: Tier) -> str:
    if tier == "namespace":
        return "all that is in its pid namespace"
    if facts.is_root:
        return "all processes of the sandbox's uid"
    return "all descendants (subreaper)" if facts.platform == "linux" else "the kernel's process group"


def uid_policy(facts: Facts, tier: Tier) -> str:
    """Return whose rights sandboxes have."""
    if tier == "namespace":
        whose = "one that is nobody's" if facts.is_root else f"uid {facts.uid}, the runner's"
        return f"{whose}, without rights outside of a user namespace of its own"
    return "own uid per sandbox" if facts.is_root else f"shares uid {facts.uid} with the runner"
