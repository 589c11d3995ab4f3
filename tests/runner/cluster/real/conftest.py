"""A cluster for all tests of this folder that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runner.cluster.real.clusters import Place, cluster, copy_of_ours, environment


@pytest.fixture(name="place", scope="package")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A head and two nodes for sandboxes."""
    folder = tmp_path_factory.mktemp("place")
    code, env = copy_of_ours(folder / "code"), environment(KERNELFLEET_MARK=str(folder))
    with cluster(folder, env | {"PYTHONPATH": str(code)}, n_nodes=2) as nodes:
        yield Place(folder, code, env, nodes)
