"""Which samples and attempts a run is made of."""

from __future__ import annotations

from typing import Any

import pytest

from bench_data import Samples, SkippedSample
from runner.config import RunConfig
from runner.errors import ConfigError
from runner.plan import attempts, select_samples
from tests.runner.factories import sample

SAMPLES = Samples.of([sample(name) for name in ("a1", "a2", "b1", "b2", "b3")])


def ids(**settings: Any) -> list[str]:
    return [s.id for s in select_samples(SAMPLES, RunConfig.model_validate(settings))]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["a1", "a2", "b1", "b2", "b3"]),
        ({"samples": "b*"}, ["b1", "b2", "b3"]),
        ({"samples": "[ab]1"}, ["a1", "b1"]),
        ({"limit": 2}, ["a1", "a2"]),
        ({"samples": "b*", "limit": 2}, ["b1", "b2"]),
        ({"limit": 99}, ["a1", "a2", "b1", "b2", "b3"]),
    ],
)
def test_selection(settings: dict[str, Any], expected: list[str]) -> None:
    """The glob chooses, then the limit cuts, in the benchmark's order."""
    assert ids(**settings) == expected


def test_shuffle_is_an_order_of_the_same_samples() -> None:
    """A seed gives one order, another seed another, and nothing is lost; the limit cuts after it."""
    assert ids(shuffle=1) == ids(shuffle=1)
    assert len({tuple(ids(shuffle=seed)) for seed in range(5)}) > 1
    assert sorted(ids(shuffle=1)) == ids()
    assert ids(shuffle=1, limit=2) == ids(shuffle=1)[:2]


def test_nothing_selected() -> None:
    """A glob that matches nothing names some of the samples that there are."""
    with pytest.raises(ConfigError, match=r"'z\*' matches none of the 5 samples.*a1, a2"):
        ids(samples="z*")


def test_only_skipped_ones_are_selected() -> None:
    """Why a sample cannot be run is what its user needs, not that it is not among the others."""
    skipped = [SkippedSample("z1", "z.csv is missing"), SkippedSample("y", "")]
    config = RunConfig.model_validate({"samples": "z*"})
    with pytest.raises(
        ConfigError, match=r"none of the 5 samples.*; skipped: 1, z1 for one: z\.csv is missing"
    ):
        select_samples(SAMPLES, config, skipped)


def test_done_attempts_are_left_out() -> None:
    """What has a line is not planned again."""
    names = [attempt.name for attempt in attempts(SAMPLES[:2], 2, {"a1@1", "a2@2"})]
    assert names == ["a2@1", "a1@2"]
