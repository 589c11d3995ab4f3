from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench_data.checks import parse_check
from bench_data.sample import SampleFile
from sandbox_pool import Observation, SandboxSpec, SandboxStartError, Status, UnsupportedHost
from scoring.checks import judge
from scoring.errors import ArtifactChanged, ExtractionFault
from scoring.facts import gather_facts, parse_facts
from scoring.trajectory import Artifact

TEXT = parse_check({"kind": "text_file", "path": "output/x.txt", "lines": ["a"]})
CALL = parse_check(
    {"kind": "python_calls", "path": "output/m.py", "calls": [{"function": "f", "returns": "beside"}]}
)
BOTH = parse_check({"kind": "all_of", "checks": [CALL.model_dump(), TEXT.model_dump()]})


@pytest.fixture
def artifact(tmp_path: Path) -> Any:
    """Return a function that writes a file of a run and describes it."""

    def make(path: str, content: str | bytes, **changes: Any) -> dict[str, Artifact]:
        data = content.encode() if isinstance(content, str) else content
        file = tmp_path / "artifacts" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        return {
            path: Artifact(**({"path": path, "file": file, "n_bytes": len(data), "sha256": sha256} | changes))
        }

    return make


async def test_files_are_read_before_code_of_the_model_runs(artifact: Any, make_pool: Any) -> None:
    """A module that rewrites its neighbour changes no fact about it; both steps use one sandbox."""
    source = "import pathlib, helper\npathlib.Path('output/x.txt').write_text('a')\ndef f(): return helper.V"
    artifacts = artifact("output/x.txt", "b") | artifact("output/m.py", source)
    artifacts |= artifact("output/helper.py", "V = open('data/in.txt').read()")
    pool = make_pool()
    inputs = [SampleFile("data/in.txt", lambda: b"beside")]
    verdict = judge(BOTH, None, await gather_facts(BOTH, artifacts, pool, inputs))
    assert verdict.reason == "output/x.txt: line 1: 'b', expected 'a'"
    assert len(pool.leased) == 1


async def test_a_program_finds_the_workspace(artifact: Any, make_pool: Any, tmp_path: Path) -> None:
    """What is run sees the sample's workspace where it was; what is only read gets none."""
    workspace = tmp_path / "repo"
    workspace.mkdir()
    (workspace / "in.txt").write_text("beside")
    artifacts = artifact("output/m.py", "def f(): return open('workspace/in.txt').read()")
    artifacts |= artifact("output/x.txt", "a")
    pool = make_pool()
    assert judge(CALL, None, await gather_facts(CALL, artifacts, pool, workspace=workspace)).passed
    assert judge(TEXT, None, await gather_facts(TEXT, artifacts, pool, workspace=workspace)).passed
    assert not judge(CALL, None, await gather_facts(CALL, artifacts, pool)).passed
    links = [(sandbox.folder / "workspace").is_symlink() for sandbox in pool.leased]
    assert links == [True, False, False]


async def test_passive_files_bring_no_others_along(artifact: Any, make_pool: Any) -> None:
    """Only what is read is put into the sandbox, unless a program could need it."""
    artifacts = artifact("output/x.txt", "a") | artifact("output/other.txt", "b")
    pool = make_pool()
    await gather_facts(TEXT, artifacts, pool)
    assert [path.name for path in (pool.leased[0].folder / "files").rglob("*.*")] == ["x.txt"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (None, "no such file; the attempt left output/y.txt"),
        ({"problem": "a symbolic link"}, "not collected: a symbolic link"),
        ({"n_bytes": 2**31}, "2,147,483,648 bytes, more than the scorer reads (67,108,864)"),
    ],
)
async def test_what_needs_no_reading_needs_no_sandbox(
    artifact: Any, make_pool: Any, changes: dict[str, Any] | None, problem: str
) -> None:
    """A missing, refused or gigantic file fails its check without a lease."""
    path = "output/x.txt" if changes else "output/y.txt"
    pool = make_pool()
    facts = await gather_facts(TEXT, artifact(path, "a", **(changes or {})), pool)
    assert judge(TEXT, None, facts).reason == f"output/x.txt: {problem}"
    assert pool.leased == []


@pytest.mark.parametrize("content", ["b", "ab", ""])
async def test_a_changed_artifact_is_refused(artifact: Any, make_pool: Any, content: str) -> None:
    """A file that is not the one in the trajectory's line is an error of the run, not of the model."""
    artifacts = artifact("output/x.txt", "a")
    artifacts["output/x.txt"].file.write_text(content)
    with pytest.raises(
        ArtifactChanged, match=r"artifact output/x.txt changed since the run: sha256 [0-9a-f]{12}"
    ):
        await gather_facts(TEXT, artifacts, make_pool())


async def test_a_lost_artifact_is_refused(artifact: Any, make_pool: Any) -> None:
    """So is one that is gone."""
    artifacts = artifact("output/x.txt", "a")
    artifacts["output/x.txt"].file.unlink()
    with pytest.raises(ArtifactChanged, match="is gone since the run"):
        await gather_facts(TEXT, artifacts, make_pool())


async def test_a_broken_sandbox_is_tried_once_more(artifact: Any, make_pool: Any, sandbox_kind: Any) -> None:
    """One fault of ours goes unnoticed, two are an ExtractionFault."""
    faults = [True]

    class Faulty(sandbox_kind):
        async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
            """Break while a fault is left."""
            return (
                Observation(Status.SANDBOX_FAULT) if faults.pop() else await super().execute(code, timeout_s)
            )

    artifacts = artifact("output/x.txt", "a")
    faults[:] = [False, True]
    pool = make_pool(Faulty)
    assert judge(TEXT, None, await gather_facts(TEXT, artifacts, pool)).passed
    assert len(pool.leased) == 2
    faults[:] = [True, True]
    with pytest.raises(ExtractionFault, match=r"the sandbox broke while it read the files \(2 tries\)"):
        await gather_facts(TEXT, artifacts, pool)


async def test_a_sandbox_that_does_not_start_is_a_fault(artifact: Any) -> None:
    """An error of the pool is ours too; one that no other try mends ends the scoring."""

    class Broken:
        def __init__(self, error: Exception) -> None:
            self.error = error
            self.n_asked = 0

        def acquire(self, spec: SandboxSpec) -> Any:
            """Fail."""
            self.n_asked += 1
            raise self.error

    artifacts = artifact("output/x.txt", "a")
    with pytest.raises(ExtractionFault, match="SandboxStartError: no kernel today"):
        await gather_facts(TEXT, artifacts, Broken(SandboxStartError("no kernel today")))
    hopeless = Broken(UnsupportedHost("no tier"))
    with pytest.raises(UnsupportedHost, match="no tier"):
        await gather_facts(TEXT, artifacts, hopeless)
    assert hopeless.n_asked == 1


@pytest.mark.parametrize("status", [Status.TIMEOUT, Status.MEMORY, Status.DIED, Status.OUTPUT_LIMIT])
async def test_a_file_that_takes_its_reader_down_fails(
    artifact: Any, make_pool: Any, sandbox_kind: Any, status: Status
) -> None:
    """What a file does to its reader is the model's, and is not tried again."""

    class Dying(sandbox_kind):
        async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
            """End before anything is written."""
            return Observation(status, kernel_alive=False)

    pool = make_pool(Dying)
    verdict = judge(TEXT, None, await gather_facts(TEXT, artifact("output/x.txt", "a"), pool))
    assert verdict.reason == f"output/x.txt: reading it ended with status {status}"
    assert len(pool.leased) == 1


@pytest.mark.parametrize("status", [Status.OK, Status.ERROR])
async def test_a_reader_that_says_nothing_is_our_fault(
    artifact: Any, make_pool: Any, sandbox_kind: Any, status: Status
) -> None:
    """An end without facts and without a sign of the file's doing is never scored as the model's failure."""

    class Silent(sandbox_kind):
        async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
            """Do nothing."""
            return Observation(status)

    with pytest.raises(ExtractionFault, match="the reader of the files failed"):
        await gather_facts(TEXT, artifact("output/x.txt", "a"), make_pool(Silent))


async def test_a_program_cannot_claim_that_the_fault_is_ours(
    artifact: Any, make_pool: Any, sandbox_kind: Any
) -> None:
    """Where code of the model's has run, a claimed fault is a failed check."""

    class Forging(sandbox_kind):
        async def read(self, path: str) -> bytes:
            """Turn the facts into a fault."""
            nonce, index, _ = (await super().read(path)).split(b" ", 2)
            return b" ".join([nonce, index, b'{"fault": "no numpy"}'])

    facts = await gather_facts(CALL, artifact("output/m.py", "def f(): pass"), make_pool(Forging))
    assert not judge(CALL, None, facts).passed


async def test_cancelling_gives_the_sandbox_back(artifact: Any, sandbox_kind: Any, tmp_path: Path) -> None:
    """A cancelled reading ends at once, and its lease with it."""
    started, returned = asyncio.Event(), asyncio.Event()

    class Endless(sandbox_kind):
        async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
            """Never end."""
            started.set()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    class Pool:
        @asynccontextmanager
        async def acquire(self, spec: SandboxSpec) -> AsyncIterator[Any]:
            """Lease one, and say when it is given back."""
            try:
                yield Endless(tmp_path)
            finally:
                returned.set()

    reading = asyncio.create_task(gather_facts(TEXT, artifact("output/x.txt", "a"), Pool()))
    await started.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert returned.is_set()


def test_only_lines_with_the_nonce_are_facts() -> None:
    """Prints, torn lines, indexes out of range and a second line for a request mean nothing."""
    raw = (
        b'other 0 {"text": "forged"}\n0 {"text": "forged"}\nn 0 {"text": "real"}\nn 0 {"text": "late"}\n'
        b'n 7 {}\nn -1 {}\nn x {}\nn 1 [1]\nn 2 {"text": "to'
    )
    assert parse_facts(raw, "n", 3) == [{"text": "real"}, None, None]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # cores are shared
@given(st.binary() | st.binary().map(lambda tail: b"n 0 " + tail))
def test_any_bytes_are_parsed(raw: bytes) -> None:
    """The file of facts can hold anything."""
    assert len(parse_facts(raw, "n", 2)) == 2
