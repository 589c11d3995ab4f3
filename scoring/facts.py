"""Gathers facts about an attempt's output files: a fresh sandbox reads them, nothing here opens one.

The sandbox holds `scorer/` (our readers), `files/` (the output files) and what the two exchange. Files
are read before any code of the model's runs, and those facts are fetched before it starts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_data.checks import CheckModel, FileCheckModel
from bench_data.sample import SampleFile
from sandbox_pool.errors import SandboxError, UnsupportedHost
from sandbox_pool.interface import Pool, Sandbox, SandboxSpec
from sandbox_pool.observation import Observation, Status
from scoring.errors import ArtifactChanged, ExtractionFault
from scoring.file_checks import Facts
from scoring.requests import facts_key, file_checks, request_of, runs_code, timeout_s
from scoring.trajectory import Artifact

logger = logging.getLogger(__name__)

INSIDE = Path(__file__).with_name("inside")
SCRIPTS = sorted(path.name for path in INSIDE.glob("*.py") if path.name != "__init__.py")

MAX_PUT_BYTES = 64 * 2**20
"""Largest artifact that is read; larger ones fail their check without a sandbox."""

LINK_WORKSPACE = (
    "import os; os.path.lexists('files/workspace') or "
    "os.symlink(os.path.realpath('workspace'), 'files/workspace'); "
)
"""A program of the model's is run in `files/` and finds the workspace there, as it did in its own sandbox."""

MAX_TOGETHER = 1_000
MAX_TOGETHER_BYTES = 4 * MAX_PUT_BYTES
"""How many files are read for one check, and how large they may be together: they are held in memory."""

MAX_PATH_BYTES = 1_024
MAX_LISTED = 5
N_TRIES = 2


async def gather_facts(
    check: CheckModel,
    artifacts: Mapping[str, Artifact],
    pool: Pool,
    inputs: Sequence[SampleFile] = (),
    workspace: Path | None = None,
) -> dict[str, Facts]:
    """Return the facts that `judge` needs for a check, by `facts_key`. Safe to cancel.

    No sandbox is leased when none of the files is there to be read.

    Args:
        check: what will be judged; only its requests enter the sandbox.
        artifacts: the attempt's output files, by path in the sandbox.
        pool: where the sandbox comes from.
        inputs: the sample's input files, for programs that are run on them.
        workspace: the sample's, for the same programs.

    Raises:
        ArtifactChanged: a file that is needed is not the one that the run wrote.
        ExtractionFault: a sandbox failed by our fault, and so did the one that tried again.
        UnsupportedHost: this machine cannot run any.
    """
    parts = {facts_key(part): part for part in file_checks(check)}
    unreadable = {key: _without_reading(part, artifacts, inputs) for key, part in parts.items()}
    facts: dict[str, Facts] = {key: problem for key, problem in unreadable.items() if problem is not None}
    parts = {key: part for key, part in parts.items() if key not in facts}
    if not parts:
        return facts
    files = await asyncio.to_thread(_files_for, list(parts.values()), artifacts, inputs)
    spec = SandboxSpec(workspace=workspace if any(map(runs_code, parts.values())) else None)
    for n_try in range(1, N_TRIES + 1):
        try:
            async with pool.acquire(spec) as sandbox:
                return facts | await _read_in(sandbox, parts, files, spec)
        except UnsupportedHost:
            raise  # no other attempt can do better
        except (SandboxError, ExtractionFault) as error:
            if n_try == N_TRIES:
                raise ExtractionFault(f"{type(error).__name__}: {error} ({N_TRIES} tries)") from error
            logger.warning("reading output files failed, trying again: error=%s", error)
    raise AssertionError("unreachable: the last try returns or raises")


def _without_reading(
    check: FileCheckModel, artifacts: Mapping[str, Artifact], inputs: Sequence[SampleFile]
) -> Facts | None:
    """Return the facts about a file that needs no reading; None when it has to be read."""
    if not check.is_read:
        return {"files": sorted(name for name, artifact in artifacts.items() if artifact.problem is None)}
    paths = _paths_of(check, artifacts)
    if check.folder_suffixes and not paths:
        return {"problem": f"no file in it that ends in {' or '.join(check.folder_suffixes)}"}
    if len(paths) > MAX_TOGETHER:
        return {"problem": f"{len(paths):,} files, more than the scorer reads for a check ({MAX_TOGETHER:,})"}
    problems = filter(None, (*(_unreadable(path, artifacts) for path in paths), _too_large(paths, artifacts)))
    missing = sorted(set(check.inputs) - {file.path for file in inputs})
    if missing:
        return {"problem": f"what it is compared with is not there: {', '.join(missing)}"}
    return next(problems, None)


def _paths_of(check: FileCheckModel, artifacts: Mapping[str, Artifact]) -> Sequence[str]:
    """Return the output files that a check reads: those that it names, or those in its folder."""
    if not check.folder_suffixes:
        return check.paths
    inside = [name for name in artifacts if name.startswith(f"{check.path}/")]
    return sorted(name for name in inside if name.lower().endswith(check.folder_suffixes))


def _unreadable(path: str, artifacts: Mapping[str, Artifact]) -> Facts | None:
    artifact = artifacts.get(path)
    if artifact is None:
        names = sorted(name for name in artifacts if not name.startswith("displayed/"))
        more = ", ..." if len(names) > MAX_LISTED else ""
        return {"problem": f"no such file; the attempt left {', '.join(names[:MAX_LISTED]) or 'none'}{more}"}
    if artifact.problem is not None:
        return {"problem": f"not collected: {artifact.problem}"}
    # Names of files in a folder are the model's choice: what no sandbox takes is no fault of ours.
    name = os.fsencode(path)
    if len(name) > MAX_PATH_BYTES or name.decode(errors="ignore") != path:
        return {"problem": f"the scorer reads no name like {path[:100]!r}"}
    if artifact.n_bytes > MAX_PUT_BYTES:
        return {"problem": f"{artifact.n_bytes:,} bytes, more than the scorer reads ({MAX_PUT_BYTES:,})"}
    return None


def _too_large(paths: Sequence[str], artifacts: Mapping[str, Artifact]) -> Facts | None:
    n_bytes = sum(artifacts[path].n_bytes for path in paths if path in artifacts)
    if n_bytes <= MAX_TOGETHER_BYTES:
        return None
    limit = f"more than the scorer reads for a check ({MAX_TOGETHER_BYTES:,})"
    return {"problem": f"{n_bytes:,} bytes in {len(paths):,} files, {limit}"}


def _files_for(
    parts: Sequence[FileCheckModel], artifacts: Mapping[str, Artifact], inputs: Sequence[SampleFile]
) -> dict[str, bytes]:
    """Return what to put into the sandbox. A program gets all it could have beside it. Blocks."""
    needed = {path: artifacts[path] for part in parts for path in _paths_of(part, artifacts)}
    compared = {path for part in parts for path in part.inputs}
    files = {file.path: _read_input(file) for file in inputs if file.path in compared}
    if any(runs_code(part) for part in parts):
        files = {file.path: _read_input(file) for file in inputs}
        needed |= {
            name: artifact
            for name, artifact in artifacts.items()
            if artifact.problem is None and artifact.n_bytes <= MAX_PUT_BYTES
        }
    return files | {name: read_unchanged(artifact) for name, artifact in needed.items()}


def _read_input(file: SampleFile) -> bytes:
    try:
        return file.read()
    except OSError as error:
        raise ArtifactChanged(
            f"input {file.path} is gone since the run ({error.strerror}); restore {error.filename}"
        ) from error


def read_unchanged(artifact: Artifact) -> bytes:
    """Return an artifact's content. Blocks. Raises ArtifactChanged when it is not what the run wrote.

    Without a digest, as files are that another program has left, its size is all that is compared.
    """
    try:
        with artifact.file.open("rb") as file:
            data = file.read(artifact.n_bytes + 1)
    except OSError as error:
        raise ArtifactChanged(
            f"artifact {artifact.file.name} is gone since the run ({error.strerror}); restore {artifact.path}"
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    if len(data) != artifact.n_bytes or artifact.sha256 not in (None, sha256):
        raise ArtifactChanged(
            f"artifact {artifact.path} changed since the run: sha256 {sha256[:12]}..., "
            f"the trajectory says {str(artifact.sha256)[:12]}...; restore it, or run the attempt again"
        )
    return data


async def _read_in(
    sandbox: Sandbox, parts: Mapping[str, FileCheckModel], files: Mapping[str, bytes], spec: SandboxSpec
) -> dict[str, Facts]:
    for name in SCRIPTS:
        await sandbox.put(f"scorer/{name}", INSIDE / name)
    for path, data in files.items():
        await sandbox.put(f"files/{path}", data)
    passive = {key: part for key, part in parts.items() if not runs_code(part)}
    active = {key: part for key, part in parts.items() if runs_code(part)}
    first = LINK_WORKSPACE if spec.workspace is not None else ""
    return await _extract(sandbox, passive, "passive") | await _extract(sandbox, active, "active", first)


async def _extract(
    sandbox: Sandbox, parts: Mapping[str, FileCheckModel], name: str, first: str = ""
) -> dict[str, Facts]:
    """Return the facts about `parts`; raises ExtractionFault or SandboxError when a failure is ours."""
    if not parts:
        return {}
    nonce = secrets.token_hex(16)
    requests = json.dumps([request_of(part) for part in parts.values()])
    await sandbox.put(f"{name}.json", requests.encode())
    code = (
        f"{first}import sys; sys.path.insert(0, 'scorer'); import extract; "
        f"extract.main('{name}.json', '{name}.facts', '{nonce}', 'files')"
    )
    observation = await sandbox.execute(code, timeout_s=sum(map(timeout_s, parts.values())))
    if observation.status is Status.SANDBOX_FAULT:
        raise ExtractionFault("the sandbox broke while it read the files")
    try:
        raw = await sandbox.read(f"{name}.facts")
    except (OSError, SandboxError):
        raw = b""  # what follows says so for each file
    found = parse_facts(raw, nonce, len(parts))
    if name == "passive":  # where code of the model's has run, nothing is evidence against ourselves
        _raise_if_ours(observation, found)
    unread = {"problem": f"reading it ended with status {observation.status}"}
    return dict(zip(parts, (facts if facts is not None else unread for facts in found), strict=True))


def _raise_if_ours(observation: Observation, found: Sequence[Facts | None]) -> None:
    """Raise ExtractionFault when our readers are the reason why facts are missing."""
    for facts in found:
        if facts is not None and "fault" in facts:
            raise ExtractionFault(str(facts["fault"]))
        if facts is None and observation.status in (Status.OK, Status.ERROR):
            error = observation.error
            says = f"{error.ename}: {error.evalue}" if error else "it wrote no facts"
            raise ExtractionFault(f"the reader of the files failed: {says}")


def parse_facts(raw: bytes, nonce: str, n_requests: int) -> list[dict[str, Any] | None]:
    """Return the facts in the lines that carry the nonce, None for each request without any. Pure."""
    found: list[dict[str, Any] | None] = [None] * n_requests
    for line in raw.split(b"\n"):
        mark, _, rest = line.partition(b" ")
        index, _, text = rest.partition(b" ")
        if mark != nonce.encode() or not index.isdigit() or len(index) > 6 or int(index) >= n_requests:
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and found[int(index)] is None:
            found[int(index)] = value
    return found
