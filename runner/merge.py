"""Shards of one run, made on several machines or in several folders, become one run directory."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge as merge_sorted
from pathlib import Path
from typing import Any

import orjson

from runner.encoding import encode_line
from runner.errors import ConfigError, write_error
from runner.journal import (
    ARTIFACTS,
    CONFIG,
    EVENTS,
    FAILURES,
    INFLIGHT,
    TRAJECTORIES,
    read_config,
    read_events,
    read_failures,
    read_trajectories,
)
from runner.journal.lock import take_lock

CHOICE = ("samples", "limit", "shuffle", "epochs")
"""Settings that choose the attempts of a plan, and that shards of one run may differ in."""


@dataclass(slots=True)
class Merged:
    """What a merge found."""

    n_trajectories: int = 0
    n_duplicates: int = 0
    """Trajectories of an attempt that an earlier shard has too; the first one is kept."""

    n_failures: int = 0
    n_unfinished: int = 0
    done: set[str] = field(default_factory=set)
    seen: dict[Path, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The names of the attempts in each shard, finished or not."""


def merge(shards: Sequence[Path], destination: Path) -> Merged:
    """Write the shards as one run. A kill leaves only a folder whose name says that it is not whole. Blocks.

    Raises:
        ConfigError: the shards are not of one run, or the destination is in use.
        JournalError: a shard is in use, or cannot be read; the destination cannot be written.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ConfigError(f"merge -o {destination}: it exists and is not empty; choose a new folder")
    configs = [read_config(shard) for shard in shards]
    _check_same(shards, configs)
    locks = [take_lock(shard) for shard in shards]
    unfinished = destination.with_name(f"{destination.name}.merging-{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        merged = _write(shards, configs, unfinished)
        _sync(unfinished)
        if destination.exists():
            destination.rmdir()
        unfinished.rename(destination)
    except OSError as error:
        raise write_error(destination, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        for lock in locks:
            os.close(lock)
    return merged


def _check_same(shards: Sequence[Path], configs: Sequence[dict[str, Any]]) -> None:
    places = [shard.resolve() for shard in shards]
    for shard, place in zip(shards, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"merge: {shard} is named twice; name each run once")
    first = configs[0].get("settings", {})
    for shard, config in zip(shards[1:], configs[1:], strict=True):
        settings = config.get("settings", {})
        for key in sorted({*first, *settings}):
            if first.get(key) != settings.get(key):
                raise ConfigError(
                    f"{shard} is no shard of the run in {shards[0]}: {key} is {settings.get(key)!r} there "
                    f"and {first.get(key)!r} here; merge runs of one configuration"
                )


def _write(shards: Sequence[Path], configs: Sequence[dict[str, Any]], folder: Path) -> Merged:
    merged = Merged()
    _write_trajectories(shards, folder, merged)
    _write_failures(shards, folder, merged)
    _copy_inflight(shards, folder, merged)
    with (folder / EVENTS).open("wb") as file:
        for event in merge_sorted(*map(_events, shards), key=lambda event: event["at"]):
            file.write(encode_line(event))
    details = {
        "run_id": uuid.uuid4().hex,
        "created_at": time.time(),
        "merged_from": [str(shard) for shard in shards],
        "n_attempts": _n_attempts(configs, [merged.seen.get(shard, set()) for shard in shards]),
    }
    (folder / CONFIG).write_bytes(orjson.dumps(configs[0] | details, option=orjson.OPT_INDENT_2))
    return merged


def _n_attempts(configs: Sequence[Mapping[str, Any]], seen: Sequence[set[str]]) -> int:
    """Return how many attempts the shards' plans are made of together; `seen` are the names in each shard.

    Shards that chose the same samples have one plan. What plans have in common is known only as far as
    its attempts were begun in both; the others count twice.
    """
    sizes: dict[str, int] = {}
    names: dict[str, set[str]] = {}
    for config, found in zip(configs, seen, strict=True):
        settings = config.get("config", {})
        choice = repr([settings.get(key) for key in CHOICE])
        sizes[choice] = max(sizes.get(choice, 0), config.get("n_attempts") or 0)
        names[choice] = names.get(choice, set()) | found
    n_seen = len(set().union(*names.values()))
    n_in_common = sum(map(len, names.values())) - n_seen
    return max(sum(sizes.values()) - n_in_common, n_seen)


def _write_trajectories(shards: Sequence[Path], folder: Path, merged: Merged) -> None:
    with (folder / TRAJECTORIES).open("wb") as file:
        for shard in shards:
            for row in read_trajectories(shard):
                merged.seen[shard].add(row["attempt"])
                if row["attempt"] in merged.done:
                    merged.n_duplicates += 1
                    continue
                merged.done.add(row["attempt"])
                merged.n_trajectories += 1
                file.write(encode_line(row))
                _copy_artifacts(shard, folder, row)


def _copy_artifacts(shard: Path, folder: Path, row: dict[str, Any]) -> None:
    source = shard / ARTIFACTS / row["sample_id"] / str(row["epoch"])
    if not source.is_dir():
        return
    for artifact in row.get("artifacts") or ():
        path = shard / str(artifact.get("path"))
        if (
            artifact.get("problem")
            or not path.resolve().is_relative_to(source.resolve())
            or not path.is_file()
        ):
            continue
        target = folder / path.relative_to(shard)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:  # another file system
            shutil.copyfile(path, target)


def _write_failures(shards: Sequence[Path], folder: Path, merged: Merged) -> None:
    with (folder / FAILURES).open("wb") as file:
        for shard in shards:
            for row in read_failures(shard):
                merged.seen[shard].add(row["attempt"])
                if row["attempt"] not in merged.done:
                    merged.n_failures += 1
                    file.write(encode_line(row))


def _copy_inflight(shards: Sequence[Path], folder: Path, merged: Merged) -> None:
    (folder / INFLIGHT).mkdir()
    for shard in shards:
        for path in sorted((shard / INFLIGHT).glob("*.jsonl")):
            target = folder / INFLIGHT / path.name
            merged.seen[shard].add(path.name.removesuffix(".jsonl"))
            if path.name.removesuffix(".jsonl") in merged.done or target.exists():
                continue
            merged.n_unfinished += 1
            shutil.copyfile(path, target)
            sample, _, epoch = path.name.removesuffix(".jsonl").rpartition("@")
            pictures = Path(ARTIFACTS, sample, epoch)
            if (shard / pictures).is_dir():
                shutil.copytree(shard / pictures, folder / pictures, dirs_exist_ok=True, symlinks=True)


def _events(shard: Path) -> Iterator[dict[str, Any]]:
    for event in read_events(shard):
        yield {**event, "shard": shard.name}


def _sync(folder: Path) -> None:
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
