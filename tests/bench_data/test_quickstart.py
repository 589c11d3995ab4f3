from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from bench_data import Sample, load
from bench_data.checks import AllOf, Check, FileCheckModel, output_paths, parse_check
from bench_data.quickstart import chart, mathematics, text
from bench_data.quickstart.solutions import with_mistake

SAMPLES = {sample.id: sample for sample in load("quickstart").samples}
CATEGORIES = {
    "chart data analysis",
    "text analysis",
    "image editing",
    "audio editing",
    "complex mathematics",
    "software or website development",
}
SHA256 = {
    "data/orders.csv": "d123d0a652f1e86d19ecf0f7e82656075e8443748e980fa4558e6ab6d6be075e",
    "data/stations.xlsx": "039feabdcefc276adf693d13c6328bef9887493f7db21d90fda372297d1a3ba9",
    "data/energy.json": "f6e1a71832262b4be43dd1881b6adba4aad3187e8dcf8d5a009f49a3093b22ec",
    "data/library.sqlite": "e7b4298ca0a187582e5a2977d6f09567646607a87ad530761323bf225e68b76f",
    "data/commute.csv": "063889fb994cd133bfedb4e4f6a608ea326fb06c840c79846d28fd7dbcca01a3",
    "data/pressure.csv": "3057f8e4f8882c1568a00b67d9325317d960dd1458a526470cb98a7478358d72",
    "data/growth.csv": "36cc09c130fca86598a726f897ceb3b9bf6816595e5dd55959240fd143b91f8a",
    "data/known_beans.csv": "cb31d383af9568b8d4e392fe6fc84ee9991bea073a2615721f2cd0ccb26c466c",
    "data/new_beans.csv": "43b10e3bded0e7724ba2dcf729c30e27a15a48690418b464575bf39ff85ccaeb",
    "data/story.txt": "3683f5cae59bb1022d6358019e8eeab2c96cab59add4f71c899480df4e4f5921",
    "data/stop_words.txt": "a13e28496260ee3ae0f378a73532c40684bb3f7578dbafd28cce9ad2323666b4",
    "data/namen.txt": "36effef92af0a611476a6b4daa1acbfa6d87fdc1d3abfaa09cd2f349df8e1717",
    "data/text_zh.txt": "65f575809bb1ef98083fe3918da0d82267f9415c3b2ee4e5465c198d59311af7",
    "data/parallel.tsv": "99f638c9b064170013fc069b6db29a4f0b5184d32470881ca2a8b6eaca13c874",
    "data/server.log": "ff2046c76992f1dbce8dc31226ca02c12569cace7b299e39b98ae2d94259b0ee",
    "data/rechnungen.txt": "ec3f527e4afc2f6be02007b19d54c650f2161abf683a6443656de71a6a6391ec",
    "data/reviews.json": "d5d143a6b0368d70788d10415e06566b958cdd344a02969d4c588879035d74fc",
    "data/grid.txt": "798dc1efb688a4aad154ee69746448a13764875883390baa28456a210e78c553",
    "data/weather.csv": "8bed644a5cc582d75606383b64989d47c38f3de0c2f971e6421020f780a68ae1",
    "data/loan.json": "0cb890ba68d8637f27033cd348aa30aabeda5c7b8495988d5acbcc8f5b2eb8d8",
    "data/products.csv": "ddf9641cfb76977d81b04009dcbbe20b1c213bf66655895099090d7b0fa07d2d",
    "data/capacity.csv": "daa8c34e2901a5604bce75de6fbb9fc01de73f9bffc045b126f3cf5e8dee29b3",
}
"""Of the files of the chart, text and mathematics samples; the others have a test of their own."""

each_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


def test_six_categories_and_over_thirty_samples() -> None:
    """Each of the six kinds has at least five samples, and ids are unique."""
    counts = Counter(sample.category for sample in load("quickstart").samples)
    assert set(counts) == CATEGORIES
    assert min(counts.values()) >= 5
    assert len(SAMPLES) == counts.total() >= 30


def test_references_have_one_to_four_cells_and_all_lengths_occur() -> None:
    """Some samples take one turn, some several: state has to carry over."""
    lengths = Counter(len(sample.reference.cells) for sample in SAMPLES.values() if sample.reference)
    assert set(lengths) == {1, 2, 3, 4}


@each_sample
def test_a_sample_is_complete(sample: Sample) -> None:
    """One user message, a check that survives JSON, a reference and a decoy that differs from it."""
    (message,) = sample.messages
    assert message["role"] == "user"
    assert sample.check is not None
    assert parse_check(sample.check.model_dump(mode="json")) == sample.check
    assert sample.reference is not None
    assert sample.decoy is not None
    assert sample.decoy.cells != sample.reference.cells or sample.decoy.answer != sample.reference.answer
    assert 1 <= len(sample.decoy.cells) <= 4


@each_sample
def test_solutions_can_be_written_as_fenced_replies(sample: Sample) -> None:
    """No cell holds a fence, every cell is valid Python, and the final reply has no code in it."""
    for solution in (sample.reference, sample.decoy):
        assert solution is not None
        for cell in solution.cells:
            assert "```" not in cell
            compile(cell, sample.id, "exec")
        assert "```" not in solution.answer


@each_sample
def test_files_and_outputs_have_their_folders(sample: Sample) -> None:
    """Inputs lie under data/, outputs under output/, and the task names each output."""
    assert all(file.path.startswith("data/") for file in sample.files)
    assert len({file.path for file in sample.files}) == len(sample.files)
    assert sample.check is not None
    for path in output_paths(sample.check):
        assert path.startswith("output/")
        assert path in str(sample.messages[0]["content"])


@each_sample
def test_a_checked_answer_is_asked_for(sample: Sample) -> None:
    """Where the final reply is checked, the task says how to end it, and the reference does so."""
    assert sample.check is not None
    if all(isinstance(part, FileCheckModel) for part in parts(sample.check)):
        return
    assert "End your final reply with a line `Answer: <" in str(sample.messages[0]["content"])
    assert sample.reference is not None
    assert "\nAnswer: {last_line}" in "\n" + sample.reference.answer


def parts(check: Check) -> list[Check]:
    return [leaf for part in check.checks for leaf in parts(part)] if isinstance(check, AllOf) else [check]


@pytest.mark.parametrize(
    "sample", [s for m in (chart, text, mathematics) for s in m.samples()], ids=lambda s: s.id
)
def test_files_are_the_same_everywhere(sample: Sample) -> None:
    """Every call on every machine makes the bytes that were recorded here."""
    for file in sample.files:
        content = file.read()
        assert file.read() == content
        assert hashlib.sha256(content).hexdigest() == SHA256[file.path], file.path


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_another_process_says_the_same(hash_seed: str) -> None:
    """Ids, texts, files and checks do not depend on the order of sets and dicts in a process."""
    code = "import bench_data; print(bench_data.load('quickstart').digest)"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == load("quickstart").digest


def test_loading_needs_none_of_the_scientific_stack() -> None:
    """The runner's process stays small: inputs and results are worked out in plain Python."""
    code = (
        "import sys, bench_data; bench_data.load('quickstart');"
        "print(sorted({'numpy', 'pandas', 'PIL', 'openpyxl', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_mistake_must_find_its_place_once() -> None:
    """A decoy that would equal the reference, or change two places, is refused when it is made."""
    reference = SAMPLES["chart-monthly-revenue"].reference
    assert reference is not None
    for right in ("not there", "orders"):
        with pytest.raises(AssertionError, match="expected once"):
            with_mistake(reference, right, "wrong")
