"""Which nodes get a worker, and what those leave for engines."""

from __future__ import annotations

import pytest

from runner.config import ClusterConfig, EnginesConfig
from runner.engines.node_placement import Room
from runner.engines.ray_connection import RayNode, nodes_for_workers
from runner.engines.ray_plan import over_nodes, refuse_far_workers, refuse_own_gpus, rooms
from runner.errors import ConfigError


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{"CPU": 4}, {"CPU": 8, "GPU": 1}], ["0", "1"]),
        ([{"CPU": 4}, {"CPU": 8, "sandbox": 1}], ["1"]),
        ([{"CPU": 0}, {"GPU": 1}], []),
        ([{"CPU": 1}, {"CPU": 2}], ["1"]),
    ],
)
def test_nodes_for_workers(resources: list[dict[str, float]], expected: list[str]) -> None:
    nodes = [RayNode(str(number), "127.0.0.1", has) for number, has in enumerate(resources)]

    assert [node.node_id for node in nodes_for_workers(nodes, cpus_per_worker=2)] == expected


NODES = [
    RayNode("0", "192.0.2.1", {"CPU": 4.0}),
    RayNode("1", "192.0.2.2", {"CPU": 8.0, "GPU": 2.0}),
    RayNode("2", "192.0.2.3", {"GPU": 1.0}),
]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "none"}, [Room(0, 4), Room(2, 8), Room(1, 0)]),
        ({"kind": "ray"}, [Room(0, 3), Room(2, 7), Room(1, 0)]),
        ({"kind": "ray", "cpus_per_worker": 5}, [Room(0, 4), Room(2, 3), Room(1, 0)]),
        ({"kind": "ray", "cpus_per_worker": 0.5, "workers": 1}, [Room(0, 3.5), Room(2, 8), Room(1, 0)]),
    ],
)
def test_engines_have_what_workers_leave(settings: dict[str, object], expected: list[Room]) -> None:
    """An engine without room on any node would wait for ever."""
    assert rooms(NODES, ClusterConfig.model_validate(settings)) == expected


def test_on_nodes_for_workers_alone_engines_lose_nothing_elsewhere() -> None:
    labelled = [*NODES, RayNode("3", "192.0.2.4", {"CPU": 2.0, "sandbox": 1.0})]

    assert rooms(labelled, ClusterConfig(kind="ray")) == [Room(0, 4), Room(2, 8), Room(1, 0), Room(0, 1)]


def test_engines_of_this_machine_are_for_workers_of_this_machine() -> None:
    """They listen on its loopback address; nodes that get no worker are of no importance."""
    cluster = ClusterConfig(kind="ray")
    refuse_far_workers(NODES[:1], cluster, here="192.0.2.1")
    refuse_far_workers([NODES[0], NODES[2]], cluster, here="192.0.2.1")
    with pytest.raises(ConfigError, match=r"elsewhere as well \(192.0.2.2\); leave engines.kind out"):
        refuse_far_workers(NODES, cluster, here="192.0.2.1")


def test_gpus_that_the_config_names_are_refused() -> None:
    """Ray's choice would be overlaid: two engines of a node would have the same."""
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES is '0,1': .*leave it out, .* ray start"):
        refuse_own_gpus(EnginesConfig(env={"CUDA_VISIBLE_DEVICES": "0,1"}))
    refuse_own_gpus(EnginesConfig(env={"VLLM_API_KEY": "k"}))


def test_vllm_spreads_an_engine_by_ray_unless_told_otherwise() -> None:
    """However the option is written."""
    assert over_nodes(("python", "--model", "m"))[-2:] == ("--distributed-executor-backend", "ray")
    for said in (["--distributed-executor-backend", "mp"], ["--distributed_executor_backend=mp"]):
        assert over_nodes(("python", *said)) == ("python", *said)
