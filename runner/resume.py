"""Whether a run directory may be continued: what was recorded when it began, beside what is asked now."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from bench_data import Benchmark
from runner.config import RunConfig, flatten, public_config
from runner.errors import JournalError, RunMismatch
from runner.journal.reader import CONFIG, TRAJECTORIES, read_config
from runner.models import ModelClient, ReplayClient, ScriptedClient
from runner.protocols import Protocol

VERSIONS_OF = (
    *("kernelfleet", "aiohttp", "orjson", "uvloop", "pydantic"),
    *("jupyter_client", "ipykernel", "ipython", "pyzmq"),
    *("numpy", "pandas", "matplotlib", "openpyxl", "pillow", "scipy", "scikit-learn", "sympy"),
)


OPERATIONAL = frozenset(
    {
        "concurrency", "epochs", "limit", "samples", "shuffle", "run_dir", "grace_s",
        "admission", "cluster", "run_limits", "resume", "breaker", "max_failed_share", "progress",
        "metrics_port",
        "model.cache", "model.prices",
        "model.headers", "model.request.extra_headers", "model.api_key_env",
        "model.timeout_s", "model.max_retries", "model.max_backoff_s",
        "limits.max_tries", "data.root", "data.strict", "prompts",
        "sandbox.max_sandboxes", "sandbox.min_idle", "sandbox.max_idle", "sandbox.max_idle_s",
        "sandbox.max_starting", "sandbox.recycle_after", "sandbox.acquire_timeout_s",
        "sandbox.start_timeout_s", "sandbox.zygote_timeout_s", "sandbox.python", "sandbox.scratch",
        "sandbox.uid", "sandbox.allow_unsafe",
        "engines.kind", "engines.replicas", "engines.tensor_parallel", "engines.pipeline_parallel",
        "engines.gpus_per_replica", "engines.cpus_per_replica", "engines.env", "engines.start_timeout_s",
        "engines.stall_s", "engines.max_restarts", "engines.restart_window_s", "engines.command",
    }
)  # fmt: skip
"""Keys that change how fast or how much is run, not what a trajectory is: a resume may change them. What the
file of `prompts` gives is in the settings that it gives."""


RENAMED = {"limits.time_s": "limits.working_s"}
"""Keys of earlier versions, and what they are called now."""

BEFORE = {"model.send_seed": False}
"""What versions did that did not record a key, where that is not the key's default now."""

FIRST_PROMPTS = {
    "fenced": "e6ed964899ed02f98d8d341724dabcd986d1c860e4db78f3c3b420339bdda8b2",
    "execute_tag": "e2eb870e80a5cbf64d99d86cd5430e6ae9d6f30e984da3ac755606ae886dc982",
    "tool_call": "befbf7761af43b8e8bf98aba298b6c2e91acfed831ad28eab3f050729344eeed",
}
"""The protocols' own prompts when their digests were not recorded yet."""

FIRST_LIMITS = {"fenced": [8000, 8000], "execute_tag": [2000, 2000], "tool_call": [8000, 8000]}
"""What `protocol.truncation: default` was when it was recorded as that word."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What decides the results of a run, and what else is written down beside it."""

    settings: dict[str, Any]
    """Flat: what a resume compares, key by key."""

    config: dict[str, Any]
    sandbox: dict[str, Any]
    skipped: list[dict[str, str]]
    unknown: frozenset[str] = frozenset()
    """Settings that are not known: a run with nothing left to do asks no server for its model, and a dry run
    opens no pool, which finds out the tier."""

    @property
    def config_hash(self) -> str:
        """A short name for the settings."""
        return config_hash(self.settings)

    def as_json(self, run_dir: Path) -> dict[str, Any]:
        """Return what goes into `config.json`; what an earlier process of this run wrote first is kept."""
        before = read_config(run_dir) if (run_dir / CONFIG).exists() else {}
        return {
            "run_id": before.get("run_id") or uuid.uuid4().hex,
            "created_at": before.get("created_at") or time.time(),
            "config_hash": self.config_hash,
            "config": self.config,
            "settings": self.settings,
            "skipped": self.skipped,
            "versions": package_versions(),
            "git_commit": git_commit(),
            "machine": machine(),
            "sandbox": self.sandbox,
        }


def hashable_settings(config: RunConfig, profiles: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings that decide what a trajectory is, flat: `a.b` -> JSON value.

    `profiles` are the sandbox profiles that samples name: others in the config decide nothing.
    """
    data = config.model_dump(mode="json")
    data["sandbox"]["profiles"] = {
        name: {key: value for key, value in profile.items() if f"sandbox.{key}" not in OPERATIONAL}
        for name, profile in data["sandbox"]["profiles"].items()
        if name in profiles or name == config.sandbox.profile
    }
    flat = flatten(data)
    # Where a server listens does not change what the model says: the next night may use another.
    flat["model.client"] = flat["model.client"].partition(":")[0]
    # A file of tasks is known by its digest, wherever it lies.
    flat["benchmark"] = "jsonl" if flat["benchmark"].startswith("jsonl:") else flat["benchmark"]
    return {k: v for k, v in flat.items() if not any(k == o or k.startswith(o + ".") for o in OPERATIONAL)}


def config_hash(settings: Mapping[str, Any]) -> str:
    """Return a short name for a set of settings."""
    return hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def run_record(
    config: RunConfig,
    benchmark: Benchmark,
    model: ModelClient,
    protocol: Protocol,
    sandbox: Mapping[str, Any],
    system_prompt: str,
) -> RunRecord:
    """Return the record of a run that is about to begin or to go on."""
    profiles = benchmark.samples.profiles.keys()
    chosen = hashable_settings(config, profiles)
    settings = {key: chosen[key] for key in chosen if not key.startswith("protocol.truncation")} | {
        "benchmark.digest": benchmark.digest,
        "model.name": model.name,
        **protocol_settings(config, protocol, system_prompt),
    }
    if isinstance(model, ReplayClient):
        settings["model.replay_digest"] = model.digest
    if isinstance(model, ScriptedClient):
        settings["model.script_digest"] = model.digest(benchmark.samples)
    unknown = set() if model.name else {"model.name"}
    # What `auto` took: a run that began behind walls is not continued without them on another machine.
    settings["sandbox.tier"] = sandbox.get("tier", config.sandbox.tier)
    if settings["sandbox.tier"] == "auto":
        unknown.add("sandbox.tier")
    skipped = [{"sample_id": skipped.id, "reason": skipped.reason} for skipped in benchmark.skipped]
    return RunRecord(settings, public_config(config), dict(sandbox), skipped, frozenset(unknown))


def protocol_settings(config: RunConfig, protocol: Protocol, system_prompt: str) -> dict[str, Any]:
    """Return what the protocol's settings come to: whatever was left to a profile is decided."""
    limits = protocol.limits
    return {
        "protocol.kind": protocol.name,
        "protocol.merge_user_messages": config.merges_user_messages,
        "protocol.truncation": [limits.head_chars, limits.tail_chars] if limits else "off",
        "prompt.source": prompt_source(config),
        "prompt.sha256": prompt_digest(system_prompt),
    }


def prompt_source(config: RunConfig) -> str:
    """Return whose system prompt is sent: `own`, `config`, or the name of the file that `prompts` names."""
    if config.protocol.system_prompt is None:
        return "own"
    if config.prompts and "protocol.system_prompt" in config.prompts.given:
        return config.prompts.path.name
    return "config"


def check_same_run(run_dir: Path, record: RunRecord) -> None:
    """Refuse to continue a run of another configuration.

    Raises:
        RunMismatch: names each key that differs, with both values.
        JournalError: the folder holds trajectories but no config of ours.
    """
    if not (run_dir / CONFIG).exists():
        path = run_dir / TRAJECTORIES
        if path.exists() and path.stat().st_size:
            raise JournalError(f"{run_dir} holds {TRAJECTORIES} but no {CONFIG}; choose another --run-dir")
        return
    before = in_present_keys(read_config(run_dir).get("settings", {}), record.settings)
    missing = object()
    differing = [
        f"  {key}: {before.get(key, '(not set)')!r} there, {record.settings.get(key, '(not set)')!r} now"
        for key in sorted({*before, *record.settings})
        if before.get(key, missing) != record.settings.get(key, missing) and key not in record.unknown
    ]
    if differing:
        raise RunMismatch(
            f"{run_dir} holds a run of another configuration; continuing it would mix results. Differing:\n"
            + "\n".join(differing)
            + "\nChoose another --run-dir, or set these keys back."
        )


def in_present_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a run recorded, perhaps of an earlier version, as this version records them.

    Of keys that it did not know, it did what their defaults do now, or what `BEFORE` says.
    """
    settings = {RENAMED.get(key, key): value for key, value in before.items()}
    if "prompt.sha256" not in settings and "protocol.kind" in settings:
        settings |= _prompt_and_truncation(settings)
        settings["prompt.source"] = now.get("prompt.source")  # with equal digests it makes no difference
    defaults = hashable_settings(RunConfig()) | BEFORE
    return settings | {key: defaults[key] for key in now if key not in settings and key in defaults}


def _prompt_and_truncation(before: dict[str, Any]) -> dict[str, Any]:
    """Return what earlier versions recorded as the config has it, and later ones as it comes to."""
    kind, prompt = before["protocol.kind"], before.get("protocol.system_prompt")
    head, tail = (before.pop(f"protocol.truncation.{part}_chars", None) for part in ("head", "tail"))
    limits = before.get("protocol.truncation", [head, tail])
    return {
        "prompt.sha256": FIRST_PROMPTS.get(kind) if prompt is None else prompt_digest(prompt),
        "protocol.truncation": FIRST_LIMITS.get(kind) if limits == "default" else limits,
    }


def prompt_digest(system_prompt: str) -> str:
    """Return the SHA-256 of a system prompt."""
    return hashlib.sha256(system_prompt.encode("utf-8", "surrogatepass")).hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results may depend on."""
    versions = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Return the commit of the checkout that this code lies in, with `-dirty` if it was changed."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        describe = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return describe.stdout.strip() or None


def machine() -> dict[str, Any]:
    """Return what this machine is."""
    return {"platform": platform.platform(), "processor": platform.machine(), "python": sys.executable}
