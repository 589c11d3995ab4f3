"""How decoys are written: as the reference solution with one plausible mistake."""

from __future__ import annotations

from bench_data.sample import Solution


def with_mistake(reference: Solution, right: str, wrong: str) -> Solution:
    """Return the reference with `right`, which its cells hold exactly once, replaced by `wrong`."""
    n_places = sum(cell.count(right) for cell in reference.cells)
    assert n_places == 1, f"{right!r} is in the reference {n_places} times, expected once"
    return Solution(tuple(cell.replace(right, wrong) for cell in reference.cells), reference.answer)
