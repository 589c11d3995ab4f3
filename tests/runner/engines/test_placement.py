"""How many engines, and which GPUs each has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.config import EnginesConfig
from runner.engines.placement import Placement, place, share_gpus
from runner.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "n_gpus", "expected"),
    [
        ({}, 8, Placement(8, 1)),
        ({"tensor_parallel": 2}, 8, Placement(4, 2)),
        ({"tensor_parallel": 3}, 8, Placement(2, 3)),
        ({"tensor_parallel": 2, "pipeline_parallel": 2, "replicas": 1}, 8, Placement(1, 4)),
        ({"gpus_per_replica": 4}, 8, Placement(2, 4)),
        ({"args": {"data-parallel-size": 4}, "tensor_parallel": 2}, 16, Placement(2, 8)),
        ({"args": ("--data-parallel-size=2", "--x")}, 7, Placement(3, 2)),
        ({"args": ("-dp", "2")}, 7, Placement(3, 2)),
        ({"args": ("--x", "-dp=4"), "tensor_parallel": 2}, 16, Placement(2, 8)),
        ({"gpus_per_replica": 0, "replicas": 3}, 0, Placement(3, 0)),
        ({"gpus_per_replica": 0}, 8, Placement(1, 0)),
    ],
)
def test_replicas_fill_the_gpus(settings: dict[str, Any], n_gpus: int, expected: Placement) -> None:
    """`auto` is GPUs divided by GPUs per replica."""
    assert place(EnginesConfig(**settings), n_gpus, is_cpu_build=False) == expected


def test_a_cpu_build_needs_no_gpu() -> None:
    """Nor does it take one that is there."""
    assert place(EnginesConfig(), 8, is_cpu_build=True) == Placement(1, 0)


@pytest.mark.parametrize(
    ("settings", "n_gpus", "message"),
    [
        ({}, 0, "no GPU"),
        ({"tensor_parallel": 4}, 2, "need 1 x 4 GPUs .* there are 2"),
        ({"replicas": 3}, 2, "need 3 x 1 GPUs"),
        ({"args": {"data_parallel_size": 2}, "gpus_per_replica": 1}, 8, "times data_parallel_size 2 needs 2"),
        ({"tensor_parallel": 4, "gpus_per_replica": 2}, 8, "tensor_parallel 4 .* needs 4"),
    ],
)
def test_too_few_gpus_are_said_with_the_remedy(settings: dict[str, Any], n_gpus: int, message: str) -> None:
    """What is needed, what there is, what to lower."""
    with pytest.raises(ConfigError, match=message):
        place(EnginesConfig(**settings), n_gpus, is_cpu_build=False)


@given(n_replicas=st.integers(1, 8), size=st.integers(0, 4))
def test_no_gpu_has_two_replicas(n_replicas: int, size: int) -> None:
    """Each replica has as many as it needs, and its own."""
    shares = share_gpus(Placement(n_replicas, size), [str(index) for index in range(n_replicas * size)])
    assert [len(share) for share in shares] == [size] * n_replicas
    every = [gpu for share in shares for gpu in share]
    assert len(set(every)) == len(every)
