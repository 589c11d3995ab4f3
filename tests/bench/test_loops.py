"""The loops that are compared do the same work: as many requests, as many lines, as many bytes."""

from __future__ import annotations

from pathlib import Path

from tests.bench.long_conversation import encode_us, whole_ms
from tests.bench.loop_cost import N_TURNS, bare, markdown, ours
from tests.stub_server import StubServer


async def test_ours_and_the_bare_loop_write_the_same(tmp_path: Path) -> None:
    """The comparison would be worth nothing otherwise."""
    n_requests, n_bytes = [], []
    for name, loop in (("ours", ours), ("bare", bare)):
        folder = tmp_path / name
        folder.mkdir()
        async with StubServer() as server:
            await loop(server.url, 8, 40, folder)
            n_requests.append(len(server.requests))
        lines = (folder / "trajectories.jsonl").read_bytes().splitlines()
        assert len(lines) == 40
        n_bytes.append(sum(map(len, lines)) / 40)
    assert n_requests == [40 * N_TURNS] * 2
    assert abs(n_bytes[0] / n_bytes[1] - 1) < 0.1


async def test_long_conversation_is_long(tmp_path: Path) -> None:
    """Sixty turns take place, and both ways of encoding are measured."""
    async with StubServer() as server:
        whole = await whole_ms(server.url, 60, 200_000, tmp_path)
        longest = max(len(str(body["messages"])) for body in server.requests)
    assert len(whole) == 59
    assert longest > 180_000
    assert {kind: len(values) for kind, values in encode_us(60, 200_000).items()} == {"ours": 60, "naive": 60}


def test_table() -> None:
    """A row per concurrency, a column per loop that was measured."""
    row = {"concurrency": 16, "ratio to bare": 2.5}
    for kind in ("ours", "bare"):
        row |= {f"{kind} cpu_ms_per_turn": 0.25, f"{kind} turns_per_s": 100.0}
    assert markdown([row]).splitlines()[-1] == "| 16 | 0.25 (100) | 0.25 (100) | 2.50 |"
