"""Files out of a dead sandbox's working directory: those that match, within limits, none of them trusted.

Blocks; call it in a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from sandbox_pool.beneath import sync_all
from sandbox_pool.errors import SandboxPathError
from sandbox_pool.files import BLOCK_BYTES, folder_beneath, open_regular, split_path, write_all

_MAX_ENTRIES = 200_000
_MAX_PROBLEMS = 100
_MAX_SINGLE_SYNCS = 16
"""From how many files on it is faster to sync the whole file system: 10 ms, beside 2 to 8 for each file."""

_NAME_ERRORS = {errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EILSEQ}
"""What a name that the sandbox chose can make of a copy, on a disk that is sound."""


@dataclass(frozen=True, slots=True)
class CollectedFile:
    """A file that collect() took, or why it did not."""

    path: str
    """Relative to the working directory, with `/` between folders; escapes stand for undecodable bytes."""

    n_bytes: int = 0
    sha256: str = ""
    data: bytes | None = field(default=None, repr=False)
    """The content; None when it was copied below `into`, or not taken."""

    problem: str | None = None
    """Why it was not taken."""


@dataclass(frozen=True, slots=True)
class CollectLimits:
    """How much collect() takes; see PoolConfig."""

    max_files: int = 1000
    max_bytes: int = 256 * 1024 * 1024
    max_depth: int = 16
    max_s: float = 30.0


def compile_globs(globs: Sequence[str]) -> re.Pattern[str]:
    """Return what matches the paths that any of the globs does.

    `*` and `?` stay within a component, `**` spans any number of them; a leading `./` is ignored.

    Raises:
        SandboxPathError: a glob is empty, absolute or holds `..`.
    """
    return re.compile("|".join(f"(?:{_translate(split_path(glob))})" for glob in globs) or r"(?!)", re.DOTALL)


def _translate(parts: tuple[str, ...]) -> str:
    pattern = ""
    for n, part in enumerate(parts):
        is_last = n == len(parts) - 1
        if part == "**":
            pattern += ".*" if is_last else "(?:[^/]+/)*"
        else:
            pattern += "".join({"*": "[^/]*", "?": "[^/]"}.get(c, re.escape(c)) for c in part)
            pattern += "" if is_last else "/"
    return pattern + r"\Z"


class _OutOfTimeError(Exception):
    """The time is up; the argument is the path that was next."""


@dataclass(slots=True)
class _Collector:
    """One walk over a dead sandbox's working directory."""

    root: int
    pattern: re.Pattern[str]
    limits: CollectLimits
    into: Path | None
    files: list[CollectedFile] = field(default_factory=list)
    n_taken: int = 0
    n_bytes: int = 0
    n_problems: int = 0
    n_entries: int = 0

    def walk(self) -> None:
        """Go through all folders, in an order that depends on nothing but their names."""
        deadline = time.monotonic() + self.limits.max_s
        waiting: list[tuple[str, ...]] = [()]
        try:
            while waiting:
                parts = waiting.pop()
                waiting += reversed(self._visit(parts, deadline))
                if self.n_entries > _MAX_ENTRIES:
                    path = "/".join(parts)
                    self._refuse(path, f"more than {_MAX_ENTRIES} entries: the rest was not looked at")
                    return
        except _OutOfTimeError as error:
            limit = f"{self.limits.max_s:g} s (max_collect_s)"
            self._refuse(str(error), f"not done after {limit}: this and what follows was not taken")

    def _visit(self, parts: tuple[str, ...], deadline: float) -> list[tuple[str, ...]]:
        """Take what matches in a folder, and return the folders in it."""
        inner = []
        try:
            with folder_beneath(self.root, parts) as folder:
                names = _names(folder)
                self.n_entries += len(names)
                for name, is_folder in names:
                    path = "/".join((*parts, name))
                    if time.monotonic() > deadline:
                        raise _OutOfTimeError(path)
                    if is_folder and len(parts) >= self.limits.max_depth:
                        depth = f"{self.limits.max_depth} folders (max_collect_depth)"
                        self._refuse(path, f"deeper than {depth}")
                    elif is_folder:
                        inner.append((*parts, name))
                    elif self.pattern.match(path):
                        self._take(folder, name, path, deadline)
        except SandboxPathError as error:
            self._refuse("/".join(parts), f"folder cannot be read: {error}")
        return inner

    def _take(self, folder: int, name: str, path: str, deadline: float) -> None:
        try:
            path.encode()
        except UnicodeEncodeError:
            return self._refuse(path, "name is not UTF-8")
        if self.n_taken >= self.limits.max_files:
            return self._refuse(path, f"more than {self.limits.max_files} files (max_collect_files)")
        descriptor, problem = open_regular(folder, name)
        if descriptor is None:
            return self._refuse(path, problem)
        try:
            size = os.fstat(descriptor).st_size
            room = self.limits.max_bytes - self.n_bytes
            if size > room:
                reason = f"{size} bytes are more than the {room} left of max_collect_bytes"
                return self._refuse(path, f"too large: {reason}")
            self.files.append(self._copy(descriptor, path, room, deadline))
        except OSError as error:
            if error.errno not in _NAME_ERRORS:
                raise
            return self._refuse(path, f"cannot be copied: {error.strerror}")
        finally:
            os.close(descriptor)
        self.n_taken += 1
        return None

    def _copy(self, file: int, path: str, room: int, deadline: float) -> CollectedFile:
        digest = hashlib.sha256()
        blocks: list[bytes] = []
        n_bytes = 0
        with _target(self.into, path) as target:
            while n_bytes < room and (block := os.read(file, min(BLOCK_BYTES, room - n_bytes))):
                if time.monotonic() > deadline:
                    raise _OutOfTimeError(path)
                digest.update(block)
                n_bytes += len(block)
                if target is None:
                    blocks.append(block)
                else:
                    write_all(target, block)
        self.n_bytes += n_bytes
        data = b"".join(blocks) if self.into is None else None
        return CollectedFile(path, n_bytes, digest.hexdigest(), data)

    def _refuse(self, path: str, problem: str) -> None:
        self.n_problems += 1
        shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if self.n_problems < _MAX_PROBLEMS:
            self.files.append(CollectedFile(shown, problem=problem))
        elif self.n_problems == _MAX_PROBLEMS:
            self.files.append(CollectedFile(shown, problem="and more that were not taken"))


def _names(folder: int) -> list[tuple[str, bool]]:
    """Return the names in a folder, sorted, and whether each is a folder; only so many of them."""
    with os.scandir(folder) as entries:
        first = islice(entries, _MAX_ENTRIES + 1)
        return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in first)


@contextmanager
def _target(into: Path | None, path: str) -> Iterator[int | None]:
    """Open the copy of a file for writing; it is removed when the block ends in an error."""
    if into is None:
        yield None
        return
    target = into / PurePosixPath(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(target, flags, 0o644)
    try:
        yield descriptor
    except BaseException:
        with suppress(OSError):  # half a file is none
            target.unlink()
        raise
    finally:
        os.close(descriptor)


def collect(
    root: int, globs: Sequence[str], *, limits: CollectLimits, into: Path | None = None
) -> list[CollectedFile]:
    """Take the files beneath `root` whose path matches a glob, in order of their paths.

    Nothing may write beneath `root` any more. With `into`, files are copied below that folder and
    synced, with their folders, and none replaces one that is there; otherwise their content is returned.

    Args:
        root: descriptor of the working directory; stays the caller's.
        globs: see compile_globs.
        limits: what is over them is reported as not taken.
        into: folder of ours.

    Raises:
        SandboxPathError: a glob is no relative path.
        OSError: `into` cannot be written.
    """
    collector = _Collector(root, compile_globs(globs), limits, into)
    collector.walk()
    if into is not None:
        _sync(into, [file.path for file in collector.files if file.problem is None])
    return sorted(collector.files, key=lambda file: file.path)


def _sync(into: Path, paths: Sequence[str]) -> None:
    """Bring files and their folders to disk."""
    folders = {into / parent for path in paths for parent in PurePosixPath(path).parents}
    if len(paths) > _MAX_SINGLE_SYNCS and sync_all(into):
        return
    for path in (*(into / path for path in paths), *sorted(folders)):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
