from __future__ import annotations

from pathlib import Path

import pytest

from bench_data import Sample, SampleError


@pytest.mark.parametrize("sample_id", ["a", "0", "a.b_c-D", "a" * 128])
def test_an_id_is_a_folder_name(sample_id: str) -> None:
    """What every file system takes is an id."""
    assert Sample(sample_id, ()).id == sample_id


@pytest.mark.parametrize("sample_id", ["", ".", "..", ".a", "a.", "a/b", "-a", "ä", "a b", "a" * 129, "a\n"])
def test_other_ids_are_refused(sample_id: str) -> None:
    """What could be read as another folder, or as none, is not."""
    with pytest.raises(SampleError, match="cannot be a folder name"):
        Sample(sample_id, ())


def test_a_workspace_is_absolute() -> None:
    """A plug-in's sample means the same folder wherever the run is started or resumed."""
    assert Sample("a", (), workspace=Path("/data/repo")).workspace == Path("/data/repo")
    with pytest.raises(SampleError, match="workspace 'repo' of sample a must be absolute"):
        Sample("a", (), workspace=Path("repo"))
