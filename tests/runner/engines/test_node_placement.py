"""How many engines the nodes of a cluster have room for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.config import EnginesConfig
from runner.engines.node_placement import NodePlacement, Room, place_on_nodes
from runner.errors import ConfigError

EIGHT = Room(n_gpus=8, n_cpus=64)
THREE = Room(n_gpus=3, n_cpus=16)
NO_GPU = Room(n_gpus=0, n_cpus=32)


@pytest.mark.parametrize(
    ("settings", "nodes", "expected"),
    [
        ({}, [EIGHT, EIGHT, NO_GPU], NodePlacement(16, 1, spans_nodes=False)),
        ({"tensor_parallel": 4}, [EIGHT, EIGHT], NodePlacement(4, 4, spans_nodes=False)),
        ({"tensor_parallel": 2}, [THREE, THREE], NodePlacement(2, 2, spans_nodes=False)),
        ({"tensor_parallel": 8, "pipeline_parallel": 2}, [EIGHT, EIGHT], NodePlacement(1, 16, spans_nodes=True)),
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, [EIGHT], NodePlacement(2, 4, spans_nodes=False)),
        ({"cpus_per_replica": 8}, [Room(8, 16)], NodePlacement(2, 1, spans_nodes=False)),
        ({"gpus_per_replica": 0}, [NO_GPU, EIGHT], NodePlacement(1, 0, spans_nodes=False)),
        ({"gpus_per_replica": 0, "replicas": 3}, [NO_GPU], NodePlacement(3, 0, spans_nodes=False)),
        ({"gpus_per_replica": 0, "cpus_per_replica": 0, "replicas": 3}, [Room(0, 1)], NodePlacement(3, 0, spans_nodes=False)),
    ],
)  # fmt: skip
def test_replicas_fill_the_nodes(
    settings: dict[str, Any], nodes: list[Room], expected: NodePlacement
) -> None:
    """`auto` counts node by node: two GPUs on different nodes are no pair, unless no node has enough."""
    assert place_on_nodes(EnginesConfig(**settings), nodes, is_cpu_build=False) == expected


def test_a_cpu_build_needs_no_gpu() -> None:
    """Nor does it take one that is there."""
    assert place_on_nodes(EnginesConfig(), [EIGHT], is_cpu_build=True) == NodePlacement(
        1, 0, spans_nodes=False
    )


@pytest.mark.parametrize(
    ("settings", "nodes", "message"),
    [
        ({}, [NO_GPU], "no node of the Ray cluster has a GPU"),
        ({"tensor_parallel": 16}, [EIGHT], "need 1 x 16 GPUs .* there are 8"),
        ({"tensor_parallel": 2, "replicas": 3}, [THREE, THREE], r"3 engines of 2 GPUs .* 3 \+ 16, 3 \+ 16; .* room for 2"),
        ({"cpus_per_replica": 100}, [EIGHT], "1 engines of 1 GPUs and 100 CPUs each do not fit"),
        ({"gpus_per_replica": 0, "replicas": 3}, [Room(0, 2)], "room for 2. Lower engines.replicas"),
        ({"gpus_per_replica": 0, "cpus_per_replica": 0}, [Room(0, 0)], "room for 0. Lower .*cpus_per_worker"),
    ],
)  # fmt: skip
def test_too_little_is_said_with_the_remedy(
    settings: dict[str, Any], nodes: list[Room], message: str
) -> None:
    """What is needed, what there is, what to lower."""
    with pytest.raises(ConfigError, match=message):
        place_on_nodes(EnginesConfig(**settings), nodes, is_cpu_build=False)


@given(
    nodes=st.lists(st.builds(Room, st.integers(0, 8), st.integers(1, 64)), min_size=1, max_size=6),
    tensor_parallel=st.integers(1, 8),
    n_cpus=st.integers(0, 8),
)
def test_auto_is_as_much_as_fits(nodes: list[Room], tensor_parallel: int, n_cpus: int) -> None:
    """What is placed has room on the nodes, and one more has not."""
    config = EnginesConfig(tensor_parallel=tensor_parallel, cpus_per_replica=n_cpus)
    try:
        placement = place_on_nodes(config, nodes, is_cpu_build=False)
    except ConfigError:
        assert sum(node.n_gpus // tensor_parallel for node in nodes if node.n_cpus >= n_cpus) == 0
        return
    if placement.spans_nodes:
        assert max(node.n_gpus for node in nodes) < tensor_parallel
        return
    n_room = 0
    for node in nodes:
        gpus, cpus = node.n_gpus, node.n_cpus
        while gpus >= tensor_parallel and cpus >= n_cpus:
            gpus, cpus, n_room = gpus - tensor_parallel, cpus - n_cpus, n_room + 1
    assert placement.n_replicas == n_room
