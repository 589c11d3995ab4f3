"""PyBench's tables, documents, sounds and models: what upstream passes by its name alone, `strict` reads."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scoring.checks import Verdict, judge
from scoring.facts import INSIDE
from scoring.pybench.strict_judges import STRICT_FILE_JUDGES
from scoring.pybench.tasks import Profile, load_checks
from scoring.requests import facts_key, file_checks, kind_of, request_of

WHY = "what PyBench needs is not installed: make install-pybench"
cv2 = pytest.importorskip("cv2", reason=WHY)
soundfile = pytest.importorskip("soundfile", reason=WHY)

Judged = Callable[..., Verdict]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Judged]:
    """Return a function that judges a task on `tmp_path`; the readers run in this process."""
    monkeypatch.syspath_prepend(INSIDE)
    before = set(sys.modules)
    facts_json = importlib.import_module("extract").facts_json
    for name in ("data", "output"):
        (tmp_path / name).mkdir()

    def run(task: str, profile: Profile = "strict", answer: str | None = "") -> Verdict:
        check = load_checks()[task].check(profile)
        assert check is not None
        files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        facts = {
            facts_key(part): json.loads(facts_json(request_of(part), tmp_path))
            if part.is_read
            else {"files": files}
            for part in file_checks(check)
        }
        return judge(check, answer, facts)

    yield run
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(INSIDE)):
            del sys.modules[name]


CLINICS = pd.DataFrame({"year": range(12), "births": range(100, 112), "clinic": ["a", "b"] * 6})
CLINICS = pd.concat([CLINICS, CLINICS[:4]], ignore_index=True)
TREES = pd.DataFrame({
    "index": range(14), "Year": [*range(2010, 2017)] * 2, "Type of tree": ["Real"] * 7 + ["Fake"] * 7,
    "Sales": [*range(900, 1600, 50)],
})  # fmt: skip
TREES = pd.concat([TREES, TREES[:5]], ignore_index=True)
SKEWED = TREES.assign(Sales=[9000, *TREES["Sales"][1:]])
PRODUCTS = pd.DataFrame({
    "web-scraper-order": [f"o-{n}" for n in range(10)], "link": [None] * 10, "price": [None, *range(9)],
})  # fmt: skip
OZONE = pd.DataFrame({
    "index": range(41), "Year": [*range(1979, 2018), None, None], "Ozone Hole Area (Million Square Km)": 1.5,
    "Minimum Ozone (Dobson Units)": 100.0,
})  # fmt: skip
ACTIVITY = pd.DataFrame({"Id": range(600), "TotalSteps": [*range(5000, 5599), 90_000]})
NUMBERS = ("total_us_viewers", "rating_household", "share_household", "rating_18_49", "share_18_49")
TV = pd.DataFrame({
    "super_bowl": range(1, 54), "network": ["ABC", "CBS", "Fox", "NBC"] * 13 + ["NBC"],
    "avg_us_viewers": [7, 5, 5] * 17 + [1, 1], "ad_cost": [3, 2, 1] * 17 + [4, 5], **dict.fromkeys(NUMBERS, 2.5),
})  # fmt: skip
INNINGS = pd.DataFrame({"Runs": range(3), "Start Date": ["18-Aug-08", "20-Aug-08", "2-Jan-10"]})
TWEETS = pd.DataFrame({
    "Username": [f"u{n}" for n in range(1001)], "Like Count": 1, "Retweet Count": range(1001), "Place": None,
})  # fmt: skip
MATCHES = pd.DataFrame({"tourney_id": ["a"] * 394, "match_num": range(394), "surface": "Hard"})
FILMS = pd.DataFrame({"id": [f"t{n}" for n in range(210)], "name": ["x"] * 204 + [None] * 6})
CERTIFIED = pd.DataFrame({"certificate": [f"c{n % 30}" for n in range(90)], "votes": 1})

WEEK_40 = "Week 40 - US Christmas Tree Sales - 2010 to 2016.csv"
OZONE_HOLE = "ThrowbackDataThursday - 202001 - Ozone Hole.csv"
ordered = TV.sort_values(["avg_us_viewers", "ad_cost"], ascending=[False, True])

# task: (input, a wrong output that upstream passes, a right one)
TABLES: dict[str, tuple[str, pd.DataFrame, pd.DataFrame]] = {
    "2": ("yearly_deaths_by_clinic.csv", CLINICS[:0], CLINICS.drop_duplicates()),
    "3": (WEEK_40, TREES[:3], TREES.drop_duplicates().rename_axis("Unnamed: 0").reset_index()),
    "4": ("accessories_organizer.csv", PRODUCTS[:0], PRODUCTS.astype(object).fillna("none")),
    "5": (OZONE_HOLE, OZONE[:0], OZONE.dropna()),
    "6": ("activity_clean.csv", ACTIVITY[:0], ACTIVITY[:-1]),
    "8": (
        WEEK_40,
        SKEWED.drop_duplicates(),
        SKEWED.assign(Sales=SKEWED["Sales"].clip(upper=1500)).drop_duplicates(),
    ),
    "12": (
        "tv.csv",
        TV[:4][["super_bowl", "ad_cost"]],
        TV.groupby("network").mean(numeric_only=True).reset_index(),
    ),
    "13": ("action.csv", CERTIFIED[:30][["votes"]], CERTIFIED.groupby("certificate").sum().reset_index()),
    "14": ("tv.csv", TV[:0], pd.concat([ordered, ordered[:0]])),
    "15": ("tv.csv", ordered[:9], ordered),
    "38": ("movies.csv", FILMS[:0], FILMS.dropna()),
}


@pytest.mark.parametrize("task", TABLES)
def test_tables(task: str, tmp_path: Path, judged: Judged) -> None:
    """A table without rows, or with too few or other ones, fails; the one that was asked for passes."""
    name, wrong, right = TABLES[task]
    inputs = {WEEK_40: SKEWED if task == "8" else TREES, OZONE_HOLE: OZONE, "tv.csv": TV, "movies.csv": FILMS}
    inputs |= {"yearly_deaths_by_clinic.csv": CLINICS, "accessories_organizer.csv": PRODUCTS}
    inputs |= {"activity_clean.csv": ACTIVITY, "action.csv": CERTIFIED}
    inputs[name].to_csv(tmp_path / "data" / name, index=False)
    output = tmp_path / "output" / f"{task}.csv"
    wrong.to_csv(output, index=False)
    assert judged(task, "upstream").passed
    verdict = judged(task)
    assert not verdict.passed
    assert "malformed" not in verdict.reason
    right.to_csv(output, index=False)
    assert judged(task).reason == "as expected"
    if task != "15":
        inputs[name].to_csv(output, index=False)
        assert not judged(task).passed, "a copy of the input"


def test_order_with_ties(tmp_path: Path, judged: Judged) -> None:
    """Rows that tie may come in any order; no other may."""
    TV.to_csv(tmp_path / "data" / "tv.csv", index=False)
    order = TV.sort_values(["avg_us_viewers", "super_bowl"], ascending=[False, False])
    order.to_csv(tmp_path / "output" / "14.csv", index=False)
    order.to_csv(tmp_path / "output" / "15.csv", index=False)
    assert judged("14").passed
    assert judged("15").reason == "output/15.csv: not in order of avg_us_viewers, ad_cost"


def test_tables_of_9(tmp_path: Path, judged: Judged) -> None:
    """Numbers as text fail, and so do empty tables."""
    TV.to_csv(tmp_path / "data" / "tv.csv", index=False)
    TV.to_excel(tmp_path / "data" / "tv.xlsx", index=False)
    for table, passes in ((TV[:0], False), (TV.assign(ad_cost="$5,000"), False), (TV, True)):
        table.to_csv(tmp_path / "output" / "9_2.csv", index=False)
        table.to_excel(tmp_path / "output" / "9_1.xlsx", index=False)
        assert judged("9").passed is passes
    TV[["network"]][:1].to_csv(tmp_path / "output" / "9_2.csv", index=False)
    assert judged("9", "upstream").passed
    assert not judged("9").passed


@pytest.mark.filterwarnings("ignore:Could not infer format")
def test_dates(tmp_path: Path, judged: Judged) -> None:
    """Each cell is YYYY-MM-DD, and the right date."""
    INNINGS.to_csv(tmp_path / "data" / "Virat_Kohli_ODI.csv", index=False)
    for days, passes in (
        (INNINGS["Start Date"], False),
        (["2008/08/18", "2008/08/20", "2010/01/02"], False),
        (["2008-08-18", "2008-08-20", "2010-02-01"], False),
        (["2010-01-02", "2008-08-18", "2008-08-20"], True),
    ):
        INNINGS.assign(**{"Start Date": days}).to_csv(tmp_path / "output" / "10.csv", index=False)
        assert judged("10", "upstream").passed
        assert judged("10").passed is passes


def test_tables_that_upstream_cannot_pass(tmp_path: Path, judged: Judged) -> None:
    """Where its tests raise, or look for a picture, the table that was asked for passes."""
    TWEETS.to_csv(tmp_path / "data" / "Turkey_Syria_Earthquake.csv", index=False)
    TWEETS.to_excel(tmp_path / "output" / "11.xlsx", index=False)
    MATCHES.to_csv(tmp_path / "data" / "wta_matches_qual_itf_1975.csv", index=False)
    (tmp_path / "output" / "74.png").touch()
    MATCHES[:9].to_excel(tmp_path / "output" / "74.xlsx", index=False)
    assert not judged("11", "upstream").passed
    assert judged("11").reason == "as expected"
    assert judged("74", "upstream").passed
    assert judged("74").reason == "output/74.xlsx: 9 rows, expected 394 or 788"
    pd.concat([MATCHES, MATCHES]).to_excel(tmp_path / "output" / "74.xlsx", index=False)
    assert judged("74").passed


def test_lines_of_json(tmp_path: Path, judged: Judged) -> None:
    """Each line is an object with a known role."""
    output = tmp_path / "output" / "129.csv"
    line = json.dumps({"role": "user", "content": "x"})
    for text, passes in (("", False), ("a,b\n1,2", False), (f"{line}\n{line}\n", True)):
        output.write_text(text)
        assert judged("129", "upstream").passed
        assert judged("129").passed is passes
    output.write_text(f"{line}\n{line.replace('user', 'robot')}")
    assert "role is one of" in judged("129").reason


def test_documents(tmp_path: Path, judged: Judged) -> None:
    """A DOCX file has the paper's text, a PDF file shows the picture, an XLSX file names the company."""
    docx = pytest.importorskip("docx", reason=WHY)
    for name in ("75.docx", "112.pdf", "128.xlsx"):
        (tmp_path / "output" / name).touch()
        task = name.split(".")[0]
        assert judged(task, "upstream").passed, name
    paper = docx.Document()
    paper.add_paragraph(
        "Anton Lozhkov and others: StarCoder2 and The Stack v2, by BigCode. " + "word " * 1000
    )
    picture = Image.effect_mandelbrot((320, 200), (-2, -1, 1, 1), 50).convert("RGB")
    picture.save(tmp_path / "data" / "112.jpeg")
    assert not any(judged(task).passed for task in ("75", "112", "128"))
    shutil.copy(tmp_path / "data" / "112.jpeg", tmp_path / "output" / "112.pdf")
    assert judged("112").reason == "output/112.pdf: not a PDF file"
    Image.new("RGB", (320, 200), "white").save(tmp_path / "output" / "112.pdf")
    assert "does not show data/112.jpeg" in judged("112").reason
    paper.save(tmp_path / "output" / "75.docx")
    picture.save(tmp_path / "output" / "112.pdf")
    table = pd.DataFrame(
        {"Field": ["name", "place", "founded"], "Value": ["ModelBest Intelligence", "Beijing", "2022"]}
    )
    table.to_excel(tmp_path / "output" / "128.xlsx", index=False)
    assert [judged(task).reason for task in ("75", "112", "128")] == ["as expected"] * 3


def frames(n: int, shift: int = 0) -> list[Image.Image]:
    """Return pictures of a square that moves."""
    made = []
    for index in range(n):
        picture = Image.new("RGB", (96, 64), (200, 220, 240))
        picture.paste((200, 30, 30), (2 * index + shift, 10, 2 * index + shift + 40, 50))
        made.append(picture)
    return made


def write_film(path: Path, pictures: list[Image.Image]) -> None:
    """Write an MP4 file."""
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, pictures[0].size)
    for picture in pictures:
        film.write(np.asarray(picture)[:, :, ::-1].copy())
    film.release()


@pytest.mark.parametrize("task", ["113", "114"])
def test_films(tmp_path: Path, judged: Judged, task: str) -> None:
    """The animation itself, a film of one picture, of another size or of another scene fails."""
    animation = frames(12)
    animation[0].save(
        tmp_path / "data" / f"{task}.gif", save_all=True, append_images=animation[1:], duration=100
    )
    output = tmp_path / "output" / f"{task}.mp4"
    shutil.copy(tmp_path / "data" / f"{task}.gif", output)
    assert judged(task, "upstream").passed
    assert judged(task).reason == f"output/{task}.mp4: not an MP4 file"
    output.write_bytes(b"\0\0\0\x1cftypisom")
    assert "not a film" in judged(task).reason
    write_film(output, animation[:1])
    assert judged(task).reason == f"output/{task}.mp4: 1 frames, the input has 12"
    write_film(output, [picture.resize((48, 32)) for picture in animation])
    assert "size" in judged(task).reason
    write_film(output, [Image.new("RGB", (96, 64))] * 12)
    assert "first frame differs" in judged(task).reason
    write_film(output, animation)
    assert judged(task).reason == "as expected"


RATE = 8_000
SERENITY, HAZE = "Ghostrifter Official - Serenity.mp3", "Ghostrifter Official - Haze.wav"


def music(duration_s: float, level: float = 0.3, seed: int = 0) -> Any:
    """Return samples whose loudness changes over time, shape (n,)."""
    t = np.arange(int(duration_s * RATE)) / RATE
    loudness = np.interp(t, np.arange(61), np.random.default_rng(seed).uniform(0.2, 1, 61))
    return level * loudness * np.sin(2 * np.pi * 440 * t)


SOUNDS: dict[str, tuple[str, list[Any], Any]] = {
    "144": ("wav", [music(5), np.zeros(40 * RATE)], music(40)),
    "146": ("mp3", [music(40), music(40, 0.1)], music(40, 0.33)),
    "147": ("mp3", [music(40)], np.concatenate([music(40), music(17, seed=1)])),
    "149": ("mp3", [music(40)], np.zeros(40 * RATE)),
    "150": ("mp3", [music(20), np.zeros(30 * RATE)], music(30)),
    "152": ("mp3", [music(9)], music(40, 0.2) + np.pad(music(20, 0.1, 1), (0, 20 * RATE))),
}


@pytest.mark.parametrize("task", SOUNDS)
def test_sounds(tmp_path: Path, judged: Judged, task: str) -> None:
    """Length, level and course of a sound follow from the inputs."""
    form, wrongs, right = SOUNDS[task]
    soundfile.write(tmp_path / "data" / SERENITY, music(40), RATE, format="MP3")
    soundfile.write(tmp_path / "data" / HAZE, music(20, seed=1), RATE)
    output = tmp_path / "output" / f"{task}.{form}"
    for wrong in wrongs:
        soundfile.write(output, wrong, RATE, format=form.upper())
        if task not in ("146", "149"):  # which no output passes
            assert judged(task, "upstream").passed
        verdict = judged(task)
        assert not verdict.passed
        assert "malformed" not in verdict.reason
    output.write_bytes(b"ID3")
    assert not judged(task).passed
    soundfile.write(output, right, RATE, format=form.upper())
    assert judged(task).reason == "as expected"


def test_folders(tmp_path: Path, judged: Judged) -> None:
    """A file by the folder's name, or an empty one, is no program and no set of sounds."""
    for task, names in (("151", ["1.wav", "2.wav"]),):
        folder = tmp_path / "output" / task
        folder.mkdir()
        (folder / "notes.txt").touch()
        assert judged(task, "upstream").passed
        assert not judged(task).passed
        for name in names:
            (folder / name).touch()
        assert judged(task).passed


SNAKE = "import pygame\n" + "".join(f"def f{n}(x):\n    return [x + {n}, x * {n}]\n" for n in range(30))
GAME = f"<title>Game</title><canvas></canvas><script>{'draw(bird);' * 60}</script>"
HINTON = f"<h1>Geoffrey Hinton</h1><p>{'He works on neural networks. ' * 12}</p>"
COMPANY = f"<h1>面壁智能 ModelBest</h1><p>{'CPM 大模型企业版 ' * 30}</p>"


@pytest.mark.parametrize(
    ("task", "name", "wrong", "right"),
    [
        ("140", "snake.py", "import pygame", SNAKE),
        ("140", "snake.py", "def f(:", SNAKE),
        ("141", "index.html", "<canvas></canvas><script src=gone.js></script>", GAME),
        ("142", "index.html", "", HINTON),
        ("143", "index.html", "<h1>Homepage</h1>", COMPANY),
    ],
)
def test_programs_and_pages(
    tmp_path: Path, judged: Judged, task: str, name: str, wrong: str, right: str
) -> None:
    """A stub, a page without a script or without a word on its subject fails."""
    folder = tmp_path / "output" / task
    folder.mkdir()
    (folder / name).write_text(wrong)
    assert judged(task, "upstream").passed
    assert not judged(task).passed
    (folder / name).write_text(right)
    assert judged(task).reason == "as expected"
    (folder / "link.html").symlink_to("/etc/hostname")
    assert "not a regular file" in judged(task).reason


def test_a_maximum_and_its_picture(tmp_path: Path, judged: Judged) -> None:
    """Both are asked for."""
    picture = tmp_path / "output" / "73.png"
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    assert judged("73", "upstream").passed
    assert "noise or a photograph" in judged("73", answer="It is 102, at x = 1.").reason
    noise[:100] = 255
    Image.fromarray(noise).save(picture)
    assert not judged("73", answer="It is 100.").passed
    assert judged("73", answer="It is 102, at x = 1.").passed


def test_models(tmp_path: Path, judged: Judged) -> None:
    """Numbers, scalers and models that were not fitted fail; fitted ones pass, joblib's too."""
    joblib = pytest.importorskip("joblib", reason=WHY)
    linear = pytest.importorskip("sklearn.linear_model", reason=WHY)
    svm, pipeline = importlib.import_module("sklearn.svm"), importlib.import_module("sklearn.pipeline")
    scaler = importlib.import_module("sklearn.preprocessing").StandardScaler
    features, labels = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    ridge, machine = linear.Ridge(), pipeline.make_pipeline(scaler(), svm.SVR())
    wrongs = {
        "40": 3,
        "41": scaler().fit(features),
        "47": [1],
        "48": {"r2": 0.9},
        "49": linear.Ridge(),
        "50": ridge,
        "51": 1,
    }
    for task, wrong in wrongs.items():
        (tmp_path / "output" / f"{task}.pkl").write_bytes(pickle.dumps(wrong))
        assert judged(task, "upstream").passed, task
        assert not judged(task).passed, task
    assert judged("50").reason == "output/50.pkl: sklearn.linear_model._ridge.Ridge has not been fitted"
    rights = {
        "40": linear.LogisticRegression(),
        "41": linear.LogisticRegression(),
        "50": ridge,
        "51": machine,
    }
    for task, model in rights.items():
        model.fit(features, labels)
        (tmp_path / "output" / f"{task}.pkl").write_bytes(pickle.dumps(model))
        assert judged(task).reason == "as expected"
        joblib.dump(model, tmp_path / "output" / f"{task}.pkl")
        assert judged(task).reason == "as expected"
    (tmp_path / "output" / "40.pkl").write_bytes(pickle.dumps(rights["40"])[:-9])
    assert "not a whole pickle" in judged("40").reason
    (tmp_path / "output" / "49.pkl").write_bytes(b"\x80\x04\x8c\x0ckeras.models\x8c\nSequential\x93.")
    assert judged("49").reason == "as expected"


def test_hostile_files(tmp_path: Path, judged: Judged) -> None:
    """Bombs and garbage are refused, and nothing is loaded."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(200 * 2**20))
    (tmp_path / "output" / "75.docx").write_bytes(stream.getvalue())
    assert "it unpacks to 209,7" in judged("75").reason
    (tmp_path / "output" / "40.pkl").write_bytes(b"\x80\x04" + b"(" * 10**6)
    assert "not a whole pickle" in judged("40").reason
    (tmp_path / "output" / "129.csv").write_text("[" * 10**6)
    assert not judged("129").passed
    with (tmp_path / "output" / "2.csv").open("wb") as sparse:
        sparse.truncate(2 * 2**30)
    assert "2,147,483,648 bytes" in judged("2").reason
    music(1).tofile(tmp_path / "output" / "144.wav")
    assert not judged("144").passed


@pytest.mark.parametrize(
    "facts", [{}, {"columns": "x"}, {"n_rows": None}, {"names": 1}, {"values": [], "n_lines": 1}]
)
def test_malformed_facts(facts: dict[str, Any]) -> None:
    """Facts that no reader of ours has written fail, and raise nothing."""
    kinds = set()
    for checks in load_checks().values():
        for part in file_checks(checks.strict) if checks.strict else ():
            kinds.add(kind_of(part))
            if kind_of(part) in STRICT_FILE_JUDGES:
                assert not judge(part, None, {facts_key(part): facts}).passed
    assert kinds >= set(STRICT_FILE_JUDGES)


def test_the_profiles() -> None:
    """Nearly all tasks differ, each with a reason; few are left out, each by name."""
    tasks = load_checks()
    assert sorted(task for task, checks in tasks.items() if checks.excluded) == ["132", "55"]
    assert sorted(task for task, checks in tasks.items() if not checks.differs) == ["34"]
    solved = {"2", "3", "4", "8", "10", "79"}
    assert {task for task, checks in tasks.items() if checks.is_solved_at_head} == solved
