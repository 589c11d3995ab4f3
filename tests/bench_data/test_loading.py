from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bench_data import BenchDataError, DataOptions, UnknownBenchmark, load
from bench_data.loading import known_names

PLUG_IN = """
from bench_data import Benchmark, Sample

def load(options):
    sample = Sample("one", ({"role": "user", "content": str(options.root)},))
    return Benchmark("ours", (sample,), "fenced", "0")

def load_nonsense(options):
    return 42
"""


@pytest.fixture(name="_plug_ins")
def _install_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings a good benchmark, two broken ones and one under a built-in name."""
    info = tmp_path / "my_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tasks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[kernelfleet.benchmarks]\nours = my_tasks:load\nabsent = my_tasks:gone\n"
        "nonsense = my_tasks:load_nonsense\nquickstart = my_tasks:load\n"
    )
    (tmp_path / "my_tasks.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", ["quikstart", "", "jsonl", "jsonl:", "quickstart:x", "os"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    """Whatever is no benchmark's name raises UnknownBenchmark with the names that there are."""
    with pytest.raises(UnknownBenchmark) as caught:
        load(name)
    assert str(caught.value) == f"no benchmark is called {name!r}; known are {', '.join(known_names())}"
    assert {"quickstart", "pybench", "jsonl:FILE"} <= set(known_names())


@pytest.mark.usefixtures("_plug_ins")
def test_a_plug_in_is_loaded_with_the_options() -> None:
    """An entry point's callable gets the options, and its benchmark is listed among the known."""
    benchmark = load("ours", DataOptions(root=Path("somewhere")))
    assert benchmark.samples[0].messages[0]["content"] == "somewhere"
    assert "ours" in known_names()


@pytest.mark.usefixtures("_plug_ins")
def test_a_plug_in_cannot_replace_a_built_in() -> None:
    """The name quickstart stays ours."""
    assert load("quickstart").name == "quickstart"
    assert known_names().count("quickstart") == 1


@pytest.mark.usefixtures("_plug_ins")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", r"'absent' \(entry point my_tasks:gone\) cannot be imported"),
        ("nonsense", r"'nonsense' \(entry point my_tasks:load_nonsense\) returned int, expected"),
    ],
)
def test_a_broken_plug_in_is_named(name: str, words: str) -> None:
    """An entry point that fails, or returns something else, is named with its origin."""
    with pytest.raises(BenchDataError, match=words):
        load(name)


def test_options_are_strict_and_frozen() -> None:
    """An unknown option is an error that names it, and options do not change."""
    with pytest.raises(ValidationError, match="rot"):
        DataOptions.model_validate({"rot": "x"})
    with pytest.raises(ValidationError, match="version"):
        DataOptions.model_validate({"version": "latest"})
    with pytest.raises(ValidationError, match="frozen"):
        DataOptions().strict = True  # type: ignore[misc]
