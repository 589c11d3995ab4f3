"""PyBench's pictures: a black one, a copy or another one fails `strict`, what was asked for passes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from scoring.checks import Verdict, judge
from scoring.facts import INSIDE
from scoring.pybench.picture_judges import PICTURE_JUDGES
from scoring.pybench.tasks import Profile, load_checks
from scoring.requests import facts_key, file_checks, kind_of, request_of

cv2 = pytest.importorskip("cv2", reason="what PyBench needs is not installed: make install-pybench")
qrcode = pytest.importorskip("qrcode", reason="what PyBench needs is not installed: make install-pybench")

Picture = Image.Image
Judged = Callable[[str, Profile], Verdict]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Judged]:
    """Return a function that judges a task on `tmp_path`; the readers run in this process."""
    monkeypatch.syspath_prepend(INSIDE)
    before = set(sys.modules)
    facts_json = importlib.import_module("extract").facts_json

    def run(task: str, profile: Profile) -> Verdict:
        check = load_checks()[task].check(profile)
        assert check is not None
        files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        facts = {
            facts_key(part): json.loads(facts_json(request_of(part), tmp_path))
            if part.is_read
            else {"files": files}
            for part in file_checks(check)
        }
        return judge(check, "", facts)

    yield run
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(INSIDE)):
            del sys.modules[name]


def scene(seed: int = 0, size: tuple[int, int] = (320, 240)) -> Picture:
    """Return a picture like a photograph: smooth colours, shapes, nothing symmetrical."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(picture)
    width, height = size
    for _ in range(9):
        x, y = rng.integers(0, width), rng.integers(0, height)
        box = (x, y, x + rng.integers(20, width // 3), y + rng.integers(20, height // 3))
        draw.ellipse([int(side) for side in box], fill=tuple(int(c) for c in rng.integers(40, 230, 3)))
    return picture


def noisy(picture: Picture) -> Picture:
    """Return a picture with Poisson noise."""
    pixels = np.asarray(picture, dtype=float)
    return Image.fromarray(np.clip(np.random.default_rng(1).poisson(pixels / 4) * 4, 0, 255).astype(np.uint8))


def black(size: tuple[int, int] = (320, 240)) -> Picture:
    """Return a black picture."""
    return Image.new("RGB", size)


def edges(picture: Picture) -> Picture:
    """Return white lines on black."""
    return Image.fromarray(cv2.Canny(np.asarray(picture.convert("L")), 30, 80))


def palette(picture: Picture) -> Picture:
    """Return the five main colours of a picture, side by side."""
    colours = picture.quantize(5).convert("RGB").getcolors()
    strip = Image.new("RGB", (500, 60))
    for index, (_, rgb) in enumerate(colours or []):
        strip.paste(rgb, (100 * index, 0, 100 * index + 100, 60))
    return strip


def joined(first: Picture, second: Picture, *, is_vertical: bool) -> Picture:
    """Return two pictures beside or below each other."""
    width, height = first.size
    size = (width, height + second.height) if is_vertical else (width + second.width, height)
    both = Image.new("RGB", size)
    both.paste(first)
    both.paste(second, (0, height) if is_vertical else (width, 0))
    return both


def titled(picture: Picture, fill: str) -> Picture:
    """Return a picture with a title on it."""
    copy = picture.copy()
    ImageDraw.Draw(copy).text((20, 10), "Map of the Middle East", fill=fill, font_size=24)
    return copy


def cut_out(picture: Picture) -> Picture:
    """Return a picture whose left and right are transparent."""
    rgba = picture.convert("RGBA")
    width, height = picture.size
    mask = Image.new("L", picture.size)
    mask.paste(255, (width // 3, 0, 2 * width // 3, height))
    rgba.putalpha(mask)
    return rgba


def code(text: str) -> Picture:
    """Return a QR code."""
    return qrcode.make(text).convert("RGB")  # type: ignore[no-any-return]


def graph() -> Picture:
    """Return lines on white, smoothed as plots are."""
    picture = Image.new("RGB", (640, 480), "white")
    draw = ImageDraw.Draw(picture)
    for index in range(40):
        draw.line((10 * index, 470, 600, 10 * index), fill=(index * 6, 40, 255 - index * 6), width=3)
    return picture.filter(ImageFilter.SMOOTH)


S, T = scene(0), scene(1)
DARK = ImageEnhance.Brightness(T).enhance(0.3)
LIGHT = Image.new("RGB", (240, 320), (200, 200, 200))
EMPTY = Image.new("RGB", (640, 480), "white")

# task: (inputs, a wrong output that upstream passes, a right one)
CASES: dict[str, tuple[dict[str, Picture], Picture, Picture]] = {
    "78": ({"78.jpeg": S}, black((224, 224)), S.resize((224, 224))),
    "79": ({"79.jpeg": S}, black((1000, 500)), S.resize((1000, 500))),
    "80": ({"80.jpeg": S}, LIGHT, S.rotate(90, expand=True)),
    "81": ({"81.jpeg": S}, S.rotate(180), ImageOps.flip(S)),
    "84": ({"84.jpeg": S}, black((120, 120)), S.crop((60, 0, 180, 120))),
    "85": ({"85.jpeg": scene(0, (512, 414))}, black((300, 300)), scene(0, (512, 414)).crop((106, 57, 406, 357))),
    "86": ({"86.jpeg": S}, LIGHT, ImageOps.mirror(S)),
    "87": ({"87.jpeg": S}, LIGHT, ImageOps.mirror(S)),
    "89": ({"89.jpeg": S}, black(), cut_out(S)),
    "90": ({"90.jpeg": S}, S, palette(S)),
    "91": ({"91.jpeg": S}, scene(2), S.quantize(6).convert("RGB")),
    "92": ({"92.jpeg": S}, black(), ImageEnhance.Brightness(S).enhance(0.6)),
    "93": ({"93.jpeg": S}, Image.new("RGB", (320, 240), "white"), ImageEnhance.Brightness(S).enhance(1.3)),
    "94": ({"94.jpeg": S}, black(), ImageEnhance.Contrast(S).enhance(0.6)),
    "95": ({"95.jpeg": S}, ImageEnhance.Contrast(T).enhance(3), ImageEnhance.Contrast(S).enhance(1.5)),
    "96": ({"96.jpeg": S}, black(), ImageEnhance.Color(S).enhance(0.5)),
    "97": ({"97.jpeg": S}, Image.new("RGB", (320, 240), "red"), ImageEnhance.Color(S).enhance(1.5)),
    "98": ({"98.jpeg": S}, black(), S.filter(ImageFilter.GaussianBlur(4))),
    "99": ({"99.jpeg": S}, S.filter(ImageFilter.GaussianBlur(4)), noisy(S)),
    "100": ({"100.jpeg": S}, black().convert("L"), S.convert("L")),
    "101": ({"101.jpeg": S}, black(), edges(S)),
    "102": ({"102.jpeg": S}, edges(T), edges(S)),
    "103": ({"103.jpeg": S, "104.jpeg": T}, S, joined(S, T, is_vertical=False)),
    "105": ({"105.jpeg": S, "106.jpeg": T}, joined(T, S, is_vertical=True), joined(S, T, is_vertical=True)),
    "107": ({"107.jpeg": S, "108.jpeg": T}, T, Image.blend(S, T, 0.5)),
    "109": ({"109.jpeg": S}, S, titled(S, "black")),
    "110": ({"110.jpeg": S}, titled(S, "blue"), titled(S, "red")),
    "117": ({}, code("www.example.org"), code("https://www.modelbest.cn")),
    "118": ({}, code("the text of the preface"), code("豫章故郡，洪都新府。落霞与孤鹜齐飞，秋水共长天一色。")),
    "119": ({}, black(), code("https://x.com")),
    "124": ({"124.jpeg": scene(3)}, scene(3), graph()),
}  # fmt: skip
PLOTS = [
    "16",
    "31",
    "43",
    "44",
    "45",
    "46",
    "57",
    "58",
    "59",
    "60",
    "61",
    "62",
    "64",
    "65",
    "66",
    "67",
    "69",
    "70",
    "71",
    "72",
    "115",
    "116",
    "121",
    "122",
    "123",
    "126",
]
CASES |= {task: ({"126.jpeg": S} if task == "126" else {}, EMPTY, graph()) for task in PLOTS}


def prepare(folder: Path, task: str, inputs: dict[str, Picture], output: Picture) -> None:
    """Write the inputs of a task and its output."""
    for name in ("data", "output"):
        (folder / name).mkdir(exist_ok=True)
    for name, picture in inputs.items():
        picture.save(folder / "data" / name, "PNG")
    output.save(folder / "output" / f"{task}.png")


@pytest.mark.parametrize("task", CASES)
def test_a_wrong_picture_passes_upstream_alone(task: str, tmp_path: Path, judged: Judged) -> None:
    """Black pictures, copies, other pictures and empty ones."""
    inputs, wrong, _ = CASES[task]
    prepare(tmp_path, task, inputs, wrong)
    assert judged(task, "upstream").passed
    verdict = judged(task, "strict")
    assert not verdict.passed
    assert "malformed" not in verdict.reason


@pytest.mark.parametrize("task", CASES)
def test_a_right_picture_passes(task: str, tmp_path: Path, judged: Judged) -> None:
    """What was asked for, made in the plainest way."""
    inputs, _, right = CASES[task]
    prepare(tmp_path, task, inputs, right)
    assert judged(task, "strict").reason == "as expected"


@pytest.mark.parametrize("task", [task for task, (inputs, _, _) in CASES.items() if len(inputs) == 1])
def test_a_copy_of_the_input_fails(task: str, tmp_path: Path, judged: Judged) -> None:
    """Whatever the task asks for, it is not done already."""
    inputs = CASES[task][0]
    prepare(tmp_path, task, inputs, next(iter(inputs.values())))
    assert not judged(task, "strict").passed


@pytest.mark.parametrize("is_rows", [True, False])
def test_parts(tmp_path: Path, judged: Judged, is_rows: bool) -> None:
    """Four rows and four columns pass; four black pictures and parts in the wrong order do not."""
    step = (240 if is_rows else 320) // 4
    boxes = [
        (0, step * n, 320, step * n + step) if is_rows else (step * n, 0, step * n + step, 240)
        for n in range(4)
    ]
    prepare(tmp_path, "83", {"83.jpeg": S}, S)
    for n, box in enumerate(boxes, start=1):
        S.crop(box).save(tmp_path / "output" / f"83_{n}.png")
    assert judged("83", "strict").reason == "as expected"
    S.crop(boxes[0]).save(tmp_path / "output" / "83_4.png")
    assert not judged("83", "strict").passed
    for n in range(1, 5):
        black((80, 240)).save(tmp_path / "output" / f"83_{n}.png")
    assert judged("83", "upstream").passed
    assert not judged("83", "strict").passed


def test_background_of_88(tmp_path: Path, judged: Judged) -> None:
    """White behind the thing passes, a dark picture does not."""
    white = Image.new("RGB", (320, 240), "white")
    white.paste(S.crop((60, 70, 210, 170)), (60, 70))
    prepare(tmp_path, "88", {"88.jpeg": S}, white)
    assert judged("88", "strict").reason == "as expected"
    DARK.point(lambda v: v // 3).save(tmp_path / "output" / "88.png")
    assert judged("88", "upstream").passed
    assert "of the foreground is kept" in judged("88", "strict").reason


def test_tasks_whose_file_upstream_mistakes(tmp_path: Path, judged: Judged) -> None:
    """Another task's picture does not count."""
    prepare(tmp_path, "81", {"82.jpeg": S, "81.jpeg": S}, S.rotate(180))
    prepare(tmp_path, "67", {}, graph())
    assert judged("82", "upstream").passed
    assert judged("68", "upstream").passed
    ImageOps.mirror(S).save(tmp_path / "output" / "82.png")
    EMPTY.save(tmp_path / "output" / "68.png")
    assert not judged("82", "strict").passed
    assert not judged("68", "strict").passed
    S.rotate(180).save(tmp_path / "output" / "82.png")
    graph().save(tmp_path / "output" / "68.png")
    assert judged("82", "strict").passed
    assert judged("68", "strict").passed


def test_format_of_111(tmp_path: Path, judged: Judged) -> None:
    """A PNG file by the name of a JPEG one is none."""
    prepare(tmp_path, "111", {"111.jpeg": S}, S)
    S.save(tmp_path / "output" / "111.jpeg", "PNG")
    assert judged("111", "upstream").passed
    assert "format 'PNG'" in judged("111", "strict").reason
    S.save(tmp_path / "output" / "111.jpeg", "JPEG")
    assert judged("111", "strict").passed


def test_a_logo_in_a_code(tmp_path: Path, judged: Judged) -> None:
    """A code with a picture in its middle is read, one without is not what was asked for."""
    coder = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_H)
    coder.add_data("https://modelbest.cn")
    plain = coder.make_image().convert("RGB")
    prepare(tmp_path, "120", {}, plain)
    assert judged("120", "upstream").passed
    assert not judged("120", "strict").passed
    side = plain.width // 5
    plain.paste(S.resize((side, side)), (2 * side, 2 * side))
    plain.save(tmp_path / "output" / "120.png")
    assert judged("120", "strict").reason == "as expected"


@pytest.mark.parametrize(
    "facts", [{}, {"width": "x"}, {"places": 1}, {"transforms": {"same": 3}}, {"texts": [1]}]
)
def test_malformed_facts(facts: dict[str, Any]) -> None:
    """Facts that no reader of ours has written fail, and raise nothing."""
    kinds = set()
    for checks in load_checks().values():
        for part in file_checks(checks.strict) if checks.strict else ():
            if kind_of(part) in PICTURE_JUDGES:
                kinds.add(kind_of(part))
                assert not judge(part, None, {facts_key(part): facts}).passed
    assert kinds == set(PICTURE_JUDGES)
