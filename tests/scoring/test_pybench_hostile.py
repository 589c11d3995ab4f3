"""Hostile output files end as failed within the limits, and the scorer lives: PyBench, real sandboxes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import socket
import struct
import time
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scoring.__main__ import main
from scoring.pybench.tasks import load_checks
from scoring.pybench.upstream_checks import PickleLoads

for module in ("cv2", "mutagen"):
    pytest.importorskip(module, reason="what PyBench needs is not installed: make install-pybench")

GIGABYTE = 2**30
SERENITY = "data/Ghostrifter Official - Serenity"
INPUTS = {
    "80": "data/80.jpeg",
    "81": "data/81.jpeg",
    "92": "data/92.jpeg",
    "93": "data/93.jpeg",
    "95": "data/95.jpeg",
    "97": "data/97.jpeg",
    "146": f"{SERENITY}.wav",
    "150": f"{SERENITY}.mp3",
}
OTHERS = ["2", "3", "4", "5", "6", "8", "9", "10", "12", "13", "14", "15", "16", "31", "38", "40", "41", "47", "48",
          "49", "50", "78", "79", "84", "85", "100", "140", "141", "142", "143", "149", "151"]  # fmt: skip


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes, more: bytes = b"") -> bytes:
    """Return a PNG file with this header, whatever its compressed pixels (RGB) come to."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def black(width: int, height: int) -> bytes:
    """Return the compressed pixels of a black picture."""
    return zlib.compress(bytes(height * (1 + 3 * width)))


def inflating_to(n_bytes: int) -> bytes:
    """Return a zlib stream of very many zeros: one block of a megabyte, over and over."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\x9c" + block * (n_bytes // 2**20)


def gif(n_frames: int) -> bytes:
    """Return an animated GIF of black frames of one pixel."""
    frame = b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    return b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff" + frame * n_frames + b";"


def wav(amplitude: int, claimed_bytes: int | None = None) -> bytes:
    """Return a second of a square wave, with a false length in its header if asked."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(struct.pack("<hh", amplitude, -amplitude) * 4000)
    data = bytearray(stream.getvalue())
    if claimed_bytes is not None:
        data[4:8] = data[40:44] = struct.pack("<I", claimed_bytes)
    return bytes(data)


def mp3(n_frames: int) -> bytes:
    """Return silence in MPEG-1 layer III at 128 kbit/s."""
    return (b"\xff\xfb\x90\x00" + bytes(413)) * n_frames


def id3_bomb() -> bytes:
    """Return an MP3 file whose tag has a compressed frame of a gigabyte."""
    data = struct.pack(">I", 2**28 - 1) + inflating_to(GIGABYTE)
    frame = b"TXXX" + struct.pack(">I", len(data)) + b"\0\x80" + data
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frame + mp3(80)


def xlsx(rows: list[list[Any]]) -> bytes:
    """Return a workbook of these rows."""
    import openpyxl

    book, stream = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(stream)
    return stream.getvalue()


def with_part(book: bytes, name: str, content: bytes) -> bytes:
    """Return a workbook with one of its parts replaced or added."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if entry.filename != name:
                new.writestr(entry, old.read(entry))
        new.writestr(name, content)
    return stream.getvalue()


class Runs:
    """What a call would do when it is loaded: leave a file behind."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """An empty output folder beside a small checkout, whose inputs are generated."""
    rows = []
    for index in [*INPUTS, *OTHERS]:
        paths = [f"./{INPUTS[index]}"] if index in INPUTS else []
        rows.append({"index": index, "user": "?", "file_paths": paths, "category1": "x", "category2": "x"})
    (tmp_path / "root/data/meta").mkdir(parents=True)
    (tmp_path / "root/data/meta/task.json").write_text(json.dumps(rows))
    for name in INPUTS.values():
        path = tmp_path / "root" / name
        if name.endswith("jpeg"):
            Image.linear_gradient("L").convert("RGB").save(path, "JPEG")
        else:
            path.write_bytes(wav(20_000) if name.endswith("wav") else mp3(50))
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


@pytest.fixture
def score(outputs: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that scores the output folder by the command, and returns the JSON."""

    def run(*words: str) -> dict[str, Any]:
        lines = [
            {"index": index, "messages": [{"role": "assistant", "content": "Finished: done"}]}
            for index in [*INPUTS, *OTHERS]
        ]
        recorded, found = tmp_path / "trajectory.jsonl", tmp_path / "found.json"
        recorded.write_text("".join(json.dumps(line) + "\n" for line in lines))
        arguments = ["--trajectories", recorded, "--outputs", outputs, "--data", tmp_path / "root"]
        assert main(["pybench", *map(str, arguments), "--json", str(found), *words]) == 0
        content: dict[str, Any] = json.loads(found.read_bytes())
        return content

    return run


def hostile_tables(folder: Path) -> dict[str, str]:
    """Write tables that are none; return what is to be said about each."""
    with (folder / "2.csv").open("wb") as sparse:
        sparse.truncate(2 * GIGABYTE)
    (folder / "4.csv").write_text(",".join(map(str, range(10**6))) + "\n")
    (folder / "5.csv").write_bytes(random.Random(5).randbytes(2**20))
    (folder / "6.csv").mkdir()
    (folder / "6.csv/inner.csv").write_text("a\n1\n")
    (folder / "8.csv").symlink_to("/etc/passwd")
    (folder / "10.csv").symlink_to("10.csv")
    os.mkfifo(folder / "12.csv")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server, contextlib.chdir(folder):
        server.bind("13.csv")
    (folder / "14.csv").symlink_to("/dev/zero")
    (folder / "15.csv").write_bytes(b'avg_us_viewers,ad_cost\n"' + b"\n" * 2**25)
    (folder / "38.csv").symlink_to("3.csv")
    return {
        "2": "2,147,483,648 bytes, more than the scorer reads",
        "4": "commas is wider than the scorer reads",
        "5": "UnicodeDecodeError",
        "6": "no such file",
        "8": "not collected: a symbolic link",
        "10": "not collected: a symbolic link",
        "12": "not collected: no regular file",
        "13": "not collected: no regular file",
        "14": "not collected: a symbolic link",
        "15": "ParserError",
        "38": "not collected: a symbolic link",
    }


def hostile_media(folder: Path) -> dict[str, str]:
    """Write pictures and sounds that are none, or more than they seem; return what is to be said."""
    bomb = png(30_000, 30_000, zlib.compress(b""))
    text = chunk(b"zTXt", b"Comment\0\0" + inflating_to(GIGABYTE))
    for name, data in {
        "78.png": bomb,
        "79.png": png(999, 500, inflating_to(4 * GIGABYTE)),
        "80.png": png(40, 30, black(40, 30), more=text),
        "81.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "84.png": png(40, 30, b"")[:40],
        "92.png": bomb,
        "93.png": png(64, 64, inflating_to(4 * GIGABYTE)),
        "95.png": gif(100_000),
        "97.png": b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff/\xff\xff\xff\xff",
        "100.png": gif(100_000),
        "146.wav": wav(100, claimed_bytes=2**32 - 1),
        "149.mp3": random.Random(149).randbytes(2**22),
        "150.mp3": id3_bomb(),
    }.items():
        (folder / name).write_bytes(data)
    return {
        "78": "more pixels than the scorer decodes",
        "79": "size (999, 500)",
        "80": "",
        "81": "not a picture in one of the formats",
        "84": "",
        "92": "more pixels than the scorer decodes",
        "93": "OpenCV cannot read it",
        "95": "gray_std is 0, expected more than the input's",
        "97": "",
        "100": "expected L",
        "146": "dBFS, the input has",
        "149": "",
        "150": "2.1 s long, the input has 1.3 s",
    }


def hostile_pickles(folder: Path) -> dict[str, str]:
    """Write pickles that nobody should load; return what is to be said about each."""
    for name, data in {
        "40.pkl": pickle.dumps(Runs("true")),
        "41.pkl": b"\x80\x04" + b"]\x94" * 10**6 + b"a" * 10**6,
        "47.pkl": b"L" + b"9" * 2**22 + b"L\n.",
        "48.pkl": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
        "49.pkl": b"\x80\x02\x8b" + struct.pack("<i", -1) + b".",
        "50.pkl": b"\x80\x04j" + b"\xff" * 4 + b"\x93.",
    }.items():
        (folder / name).write_bytes(data)
    return {
        "40": "loading it would need ['posix.system']",
        "41": "",
        "47": "",
        "48": "",
        "49": "",
        "50": "a name that only running it would tell",
    }


def hostile_folders(folder: Path) -> dict[str, str]:
    """Write names that exist in the wrong way; return what is to be said about each."""
    (folder / "16.png").symlink_to("gone.png")
    (folder / "31.png").symlink_to("3.csv")
    (folder / "140").symlink_to("/etc")
    (folder / "142").mkdir()
    for number in range(100_000):
        os.mknod(folder / f"142/{number}")
    (folder / "143").mkdir()
    (folder / "143/game.html").symlink_to("/etc/passwd")
    (Path(os.fsdecode(bytes(folder) + b"/143/\xff\xfe.png"))).touch()
    with contextlib.suppress(PermissionError):
        os.mknod(folder / "zero", 0o20666, os.makedev(1, 5))
    return {
        "16": "no such file or folder: output/16.png",
        "31": "no such file or folder: output/31.png",
        "140": "no such file or folder: output/140",
        "142": "no .html file in it",
        "143": "no .html file in it",
    }


def sound_ones(folder: Path) -> set[str]:
    """Write what passes by the letter of upstream's tests; return whose tasks those are."""
    (folder / "3.csv").write_text("a\n1\n2\n")
    (folder / "85.png").write_bytes(png(300, 300, black(300, 300)))
    (folder / "141").mkdir()
    with (folder / "141/game.html").open("wb") as page:
        page.truncate(100 * 2**20)  # only its name is looked at
    return {"3", "85", "141", "151"}


@contextlib.contextmanager
def deep_folder(folder: Path) -> Iterator[None]:
    """Make a path longer than the system takes, and remove it after: pytest cannot."""
    name, n_folders = Path("d" * 50), 200
    folder.mkdir()
    with contextlib.chdir(folder):
        for _ in range(n_folders):
            name.mkdir()
            os.chdir(name)
        Path("leaf.txt").touch()
    yield
    with contextlib.chdir(folder):
        for _ in range(n_folders):
            os.chdir(name)
        Path("leaf.txt").unlink()
        for _ in range(n_folders):
            os.chdir("..")
            name.rmdir()


@pytest.mark.kernel
@pytest.mark.timeout(300)
def test_hostile_files_fail_and_all_others_are_scored(
    outputs: Path, score: Callable[..., dict[str, Any]]
) -> None:
    """Nothing that an output file is or holds makes it pass, costs other tasks, or is our failure."""
    said = hostile_tables(outputs) | hostile_media(outputs) | hostile_pickles(outputs)
    said |= hostile_folders(outputs)
    sound = sound_ones(outputs)
    started_at = time.monotonic()
    with deep_folder(outputs / "151"):
        found = score()
    assert time.monotonic() - started_at < 240  # a quiet machine needs a tenth

    assert {index for index, result in found["results"].items() if result == "Pass"} == sound
    wrong = {
        index: found["reasons"][index] for index, text in said.items() if text not in found["reasons"][index]
    }
    assert wrong == {}
    assert found["apart"]["not the model's to lose"] == {}
    assert found["total"] == len(load_checks())


@pytest.mark.kernel
@pytest.mark.timeout(120)
def test_folders_that_are_read_whole_are_bounded(outputs: Path, score: Callable[..., dict[str, Any]]) -> None:
    """Strictly each page of a folder is read: not more of them than fit, whatever they are called."""
    for index, n_files, n_bytes in (("141", 300, 60 * 2**20), ("142", 2_000, 1), ("143", 1, 1)):
        (outputs / index).mkdir()
        for number in range(n_files):
            with (outputs / index / f"{number}.html").open("wb") as page:
                page.truncate(n_bytes)
    found = score("--profile", "strict")
    assert [found["results"][index] for index in ("141", "142", "143")] == ["Failed"] * 3
    assert "18,874,368,000 bytes in 300 files" in found["reasons"]["141"]
    assert "2,000 files, more than the scorer reads" in found["reasons"]["142"]
    assert found["apart"]["not the model's to lose"] == {}


@pytest.mark.kernel
@pytest.mark.timeout(120)
def test_names_in_a_folder_are_no_failure_of_ours(
    outputs: Path, score: Callable[..., dict[str, Any]]
) -> None:
    """What no sandbox takes as a name fails the task of the folder that it is in."""
    names = {"141": b"\xff.html", "142": b"a\n.html", "143": b"d" * 250 + b"/" + b"/".join([b"e" * 250] * 8)}
    for index, name in names.items():
        path = Path(os.fsdecode(bytes(outputs / index) + b"/" + name))
        path.parent.mkdir(parents=True)
        (path.with_name("x.html") if index == "143" else path).touch()
    found = score("--profile", "strict")
    assert [found["results"][index] for index in names] == ["Failed"] * 3
    assert all("the scorer reads no name like" in found["reasons"][index] for index in ("141", "143"))
    assert found["apart"]["not the model's to lose"] == {}


def linked(folder: Path) -> bytes:
    """Return a workbook that refers to another one: a pipe, at which whoever opens it would wait."""
    os.mkfifo(folder / "other.xlsx")
    book = xlsx([["n"], ["1,000"], ["='[1]Sheet'!A1"]])
    return with_part(
        book,
        "xl/externalLinks/_rels/externalLink1.xml.rels",
        b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
        b'Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/externalLinkPath" '
        b'Target="file://%s/other.xlsx" TargetMode="External"/></Relationships>' % bytes(folder),
    )


def laughing(folder: Path) -> bytes:
    """Return a workbook whose sheet is a billion laughs."""
    entities = b"".join(
        b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) if n else b'<!ENTITY l0 "ha">' for n in range(10)
    )
    sheet = (
        b'<?xml version="1.0"?><!DOCTYPE x [' + entities + b"]>"
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
        b'<row r="1"><c r="A1" t="inlineStr"><is><t>&l9;</t></is></c></row></sheetData></worksheet>'
    )
    return with_part(xlsx([["n"]]), "xl/worksheets/sheet1.xml", sheet)


def understated(folder: Path) -> bytes:
    """Return a workbook whose sheet unpacks to more than the archive says."""
    book = with_part(xlsx([["n"]]), "xl/worksheets/sheet1.xml", bytes(256 * 2**20))
    return book.replace(struct.pack("<I", 256 * 2**20), struct.pack("<I", 1000))


@pytest.mark.kernel
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: with_part(xlsx([["n"]]), "xl/media/x", bytes(80 * 2**20)), "it unpacks to 83,"),
        (understated, ""),
        (linked, "numbers as text in ['output/9_1.xlsx: n']"),
        (laughing, ""),
        (lambda folder: with_part(xlsx([["n"]]), "content.xml", b"<ods/>").replace(b"xl/workbook.xml", b"xl/workbook.x_l"), ""),
        (lambda folder: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4096), "not an XLSX file"),
    ],
    ids=["zip bomb", "lying zip bomb", "external link", "billion laughs", "ods in disguise", "old xls"],
)  # fmt: skip
def test_hostile_workbooks_fail(
    outputs: Path, score: Callable[..., dict[str, Any]], make: Callable[[Path], bytes], said: str
) -> None:
    """A workbook is judged by its own cells or refused; nothing it refers to is opened."""
    (outputs / "9_1.xlsx").write_bytes(make(outputs))
    (outputs / "9_2.csv").write_text("a\nx\n")
    (outputs / "3.csv").write_text("a\n1\n2\n")
    found = score()
    assert (found["results"]["9"], found["results"]["3"]) == ("Failed", "Pass")
    assert said in found["reasons"]["9"]
    assert found["apart"]["not the model's to lose"] == {}


@pytest.mark.kernel
@pytest.mark.timeout(120)
def test_a_file_that_takes_for_ever_fails_at_the_time_limit(
    outputs: Path, score: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader is stopped; that is no failure of ours, and the sandbox after it works."""
    monkeypatch.setattr("scoring.requests.READ_TIMEOUT_S", 3.0)
    (outputs / "40.pkl").write_bytes(b"\x80\x04" + b"N0" * 2**24 + b"N.")
    (outputs / "41.pkl").write_bytes(pickle.dumps([1]))
    found = score()
    assert found["reasons"]["40"] == "output/40.pkl: reading it ended with status timeout"
    assert found["results"]["41"] == "Pass"
    assert found["apart"]["not the model's to lose"] == {}


def test_reading_a_pickle_runs_nothing_that_it_names(
    extract: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    """Without any sandbox around the reader no code of the pickle runs; loading it would have run it."""
    marker = tmp_path / "ran"
    (tmp_path / "files").mkdir()
    path = tmp_path / "files/x.pkl"
    path.write_bytes(pickle.dumps(Runs(f"touch {marker}")))
    (facts,) = extract(PickleLoads(path="x.pkl")).values()
    assert facts["unknown"] == ["posix.system"]
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()


def test_no_number_of_names_hides_one(
    extract: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    """What upstream could not import is reported however many names come before it."""
    (tmp_path / "files").mkdir()
    names = b"".join(b"cbuiltins\nname%d\n0" % number for number in range(5_000))
    (tmp_path / "files/x.pkl").write_bytes(names + b"czebra\nname\n.")
    (facts,) = extract(PickleLoads(path="x.pkl")).values()
    assert facts["unknown"] == ["zebra.name"]
