"""The readers on real files, and on files made to harm them, in a process of their own."""

from __future__ import annotations

import datetime
import io
import os
import sqlite3
import struct
import time
import wave
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from PIL import Image

from bench_data.checks import Check, parse_check
from scoring.checks import judge
from scoring.inside.programs import read_runs

Extract = Callable[[Check], dict[str, dict[str, Any]]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder that the readers look into."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def reason_of(extract: Extract) -> Callable[[dict[str, Any]], str]:
    """Return a function that reads and judges, and returns the reason."""

    def reason(data: dict[str, Any]) -> str:
        check = parse_check(data)
        return judge(check, None, extract(check)).reason

    return reason


Reason = Callable[[dict[str, Any]], str]
OK = "as expected"


def test_csv(files: Path, reason_of: Reason) -> None:
    """Quotes, a byte order mark, blank lines and commas in cells are read as CSV has them."""
    (files / "x.csv").write_bytes('\ufeffname,n\r\n"a, ""b""",1.50\r\n\r\nc,\r\n'.encode())
    check = {
        "kind": "table_file",
        "path": "x.csv",
        "columns": ["name", "n"],
        "rows": [['a, "b"', 1.5], ["c", None]],
    }
    assert reason_of(check) == OK
    assert reason_of(check | {"rows": [["c", None], ['a, "b"', 1.5]], "ordered": False}) == OK
    assert reason_of(check | {"rows": [["c", None], ['a, "b"', 1.5]]}).startswith("x.csv: row 1, column name")


def test_xlsx(files: Path, reason_of: Reason) -> None:
    """Typed cells, dates and a named sheet are read; empty cells around the table do not count."""
    book = openpyxl.Workbook()
    book.active.append(["day", "n", "ok"])
    book.active.append([datetime.date(2024, 1, 5), 2, True])
    book.active.cell(9, 7).value = None
    book.create_sheet("second").append(["only"])
    book.save(files / "x.xlsx")
    check = {
        "kind": "table_file",
        "path": "x.xlsx",
        "columns": ["day", "n", "ok"],
        "rows": [["2024-01-05", 2, True]],
    }
    assert reason_of(check) == OK
    assert reason_of(check | {"sheet": "second", "columns": ["only"], "rows": []}) == OK
    assert "no sheet 'third'; it has Sheet, second" in reason_of(check | {"sheet": "third"})


def test_json_and_text(files: Path, reason_of: Reason) -> None:
    """Values and lines are compared; NaN is not JSON; the first byte that is not UTF-8 is named."""
    (files / "x.json").write_text('{"a": [1, 2.5, null]}')
    (files / "nan.json").write_text("[NaN]")
    (files / "broken.json").write_text("{'a': 1}")
    (files / "deep.json").write_text("[" * 200_000)
    (files / "latin.txt").write_bytes("Zürich".encode("latin-1"))
    (files / "x.txt").write_text("a\nb \n")
    value = {"kind": "json_file", "value": {"a": [1, 2.5, None]}}
    assert reason_of(value | {"path": "x.json"}) == OK
    assert reason_of(value | {"path": "nan.json"}) == "nan.json: not JSON: it holds NaN"
    assert reason_of(value | {"path": "broken.json"}).startswith(
        "broken.json: not JSON: Expecting property name"
    )
    assert reason_of(value | {"path": "deep.json"}).startswith("deep.json: RecursionError")
    assert reason_of({"kind": "text_file", "path": "x.txt", "lines": ["a", "b"]}) == OK
    text = {"kind": "text_file", "path": "latin.txt", "lines": ["Zürich"]}
    assert reason_of(text) == "latin.txt: not UTF-8: byte 1 is 0xfc"


def test_image(files: Path, reason_of: Reason) -> None:
    """Size, format, frames, colours and the mean colour of each grid field are read."""
    picture = Image.new("RGB", (5, 2), (255, 0, 0))
    picture.paste((0, 0, 255), (2, 0, 5, 2))
    picture.save(files / "x.png")
    picture.save(files / "x.gif", save_all=True, append_images=[Image.new("RGB", (5, 2)), picture])
    red, blue = [255, 0, 0, 255], [0, 0, 255, 255]
    check = {
        "kind": "image_file",
        "path": "x.png",
        "width": 5,
        "height": 2,
        "format": "PNG",
        "min_colours": 2,
    }
    grid = {"grid_columns": 2, "grid_rows": 1, "tol": 0, "grid_rgba": [red, blue]}
    assert reason_of(check | grid) == OK
    assert "field in column 1, row 1 of 2 x 1" in reason_of(check | grid | {"grid_rgba": [blue, red]})
    assert reason_of(check | {"min_colours": 3}) == "x.png: 2 distinct colours, expected at least 3"
    assert reason_of(check | {"path": "x.gif", "format": "GIF", "n_frames": 3}) == OK
    tall = {"grid_columns": 1, "grid_rows": 3, "grid_rgba": [red] * 3}
    assert reason_of(check | tall) == "x.png: too small for a grid of 1 x 3 fields"


def test_animation(files: Path, reason_of: Reason) -> None:
    """Each frame's colours and time are read, and how often the whole is repeated."""
    frames = [Image.new("RGB", (2, 2), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(files / "x.gif", save_all=True, append_images=frames[1:], duration=[100, 40], loop=0)
    frames[0].save(files / "once.gif", save_all=True, append_images=frames[1:], duration=100)
    check = {"kind": "image_file", "path": "x.gif", "n_frames": 2, "n_repeats": 0}
    red, blue = {"grid_rgba": [[255, 0, 0, 255]]}, {"grid_rgba": [[0, 0, 255, 255]]}
    assert reason_of(check | red | {"frame_ms": 100}) == OK
    assert reason_of(check | blue | {"frame": 1, "frame_ms": 40}) == OK
    assert "mean RGBA" in reason_of(check | red | {"frame": 1})
    assert reason_of(check | {"frame": 1, "frame_ms": 100}) == "x.gif: frame_ms 40, expected 100"
    assert reason_of(check | {"frame": 2}) == "x.gif: it has no frame 2, only 2"
    assert reason_of(check | {"path": "once.gif"}) == "once.gif: n_repeats None, expected 0"


def write_wav(path: Path, samples: np.ndarray, width_bytes: int, rate_hz: int = 8000) -> None:
    """Write samples from -1 to 1, shape (n, channels), as PCM."""
    if width_bytes == 1:
        data = (np.round(samples * 127) + 128).astype("u1").tobytes()
    else:
        scaled = np.round(samples * (2 ** (8 * width_bytes - 1) - 1)).astype("<i4")
        data = scaled.reshape(-1, 1).view("u1")[:, :width_bytes].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width_bytes)
        file.setframerate(rate_hz)
        file.writeframes(data)


@pytest.mark.parametrize("width_bytes", [1, 2, 3, 4])
def test_audio(files: Path, reason_of: Reason, width_bytes: int) -> None:
    """Format, duration, level and pitch are read at every sample width and on the right channel."""
    t = np.arange(8000) / 8000
    sound = np.stack([0.5 * np.sin(2 * np.pi * 440 * t), np.zeros(8000)], axis=1)
    write_wav(files / "x.wav", sound, width_bytes)
    level = -9.03  # 20 log10(0.5 / sqrt(2))
    segment = {"start_s": 0.1, "end_s": 0.6, "rms_dbfs": level, "dominant_hz": 440}
    check = {"kind": "audio_file", "path": "x.wav", "sample_rate_hz": 8000, "n_channels": 2, "duration_s": 1}
    check |= {"sample_width_bytes": width_bytes, "segments": [segment], "rms_tol_db": 0.1, "hz_tol": 0.5}
    assert reason_of(check) == OK
    assert "rms_dbfs" in reason_of(check | {"segments": [segment | {"channel": 1}]})
    assert "dominant_hz 440" in reason_of(check | {"segments": [segment | {"dominant_hz": 445}]})
    assert "the sound has 1.000 s" in reason_of(check | {"segments": [segment | {"end_s": 1.5}]})


def test_audio_in_the_extensible_form(files: Path, reason_of: Reason) -> None:
    """The form that other libraries write for 24 bits is PCM all the same; floating point is not."""
    guid = struct.pack("<H", 1) + b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 4) + guid
    body = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 1600) + bytes(1600)
    (files / "x.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    check = {"kind": "audio_file", "path": "x.wav", "n_channels": 1, "duration_s": 0.1}
    assert reason_of(check) == OK
    floating = body.replace(struct.pack("<H", 0xFFFE), struct.pack("<H", 3), 1)
    (files / "x.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + floating)
    assert "not PCM" in reason_of(check)


def test_sqlite(files: Path, reason_of: Reason) -> None:
    """A query's rows are read; one that fails or never ends says so."""
    with sqlite3.connect(files / "x.db") as connection:
        connection.execute("CREATE TABLE t (name TEXT, n REAL, data BLOB)")
        connection.execute("INSERT INTO t VALUES ('a', 1.5, x'00ff')")
    connection.close()
    check = {
        "kind": "sqlite_query",
        "path": "x.db",
        "query": "SELECT * FROM t",
        "rows": [["a", 1.5, "x'00ff'"]],
    }
    assert reason_of(check) == OK
    assert "the query failed: no such column: m" in reason_of(check | {"query": "SELECT m FROM t"})
    (files / "x.db").write_text("no database, but as long as the header of one would have to be ......" * 20)
    assert "DatabaseError: file is not a database" in reason_of(check)


def test_html(files: Path, reason_of: Reason) -> None:
    """Text includes that of children but no script; end tags may be missing; void elements are empty."""
    (files / "x.html").write_text(
        "<!doctype html><title>T &amp; U</title><ul id=l class='a b'><li>one<li><b>two</b>  three</ul>"
        "<script>var p = '<p>no</p>';</script><p>x<br>y</p><img src=a.png alt=A><div/>in div"
    )

    def has(**element: Any) -> bool:
        return reason_of({"kind": "html_file", "path": "x.html", "elements": [element]}) == OK

    assert has(tag="title", text="T & U")
    assert has(tag="li", count=2)
    assert has(tag="li", text="one")
    assert has(tag="li", text="two three")
    assert has(tag="ul", attributes={"class": "b", "id": "l"}, text="onetwo three")
    assert has(tag="p", count=1, text="xy")
    assert has(tag="img", attributes={"alt": "A"}, text="")
    assert has(tag="div", text="in div")
    assert not has(tag="img", attributes={"alt": "B"})
    assert has(tag="b", within="ul", count=1)
    assert not has(tag="p", within="ul")


MODULE = """
import json, math, helper
print("nonce 0 {\\"calls\\": [{\\"returns\\": 1}]}", flush=True)

def add(a, b=1): return a + b
def pair(): return (1, {3, 2})
def keys(): return {1: "a", None: 2.5}
def array():
    import numpy
    return numpy.arange(3) / 2
def fail(text): raise json.JSONDecodeError(text, "", 0)
def leave(): raise SystemExit(3)
def nan(): return math.nan
def loop(): x = []; x.append(x); return x
def thing(): return object()
def sibling(): return helper.VALUE
"""


def test_python_calls(files: Path, reason_of: Reason) -> None:
    """Functions get their arguments, their values come back as JSON, what they print means nothing."""
    (files / "output").mkdir()
    (files / "output" / "mod.py").write_text(MODULE)
    (files / "output" / "helper.py").write_text("VALUE = 'next to it'")

    def call(function: str, *args: Any, **wanted: Any) -> str:
        call = {"function": function, "args": list(args), **wanted}
        return reason_of({"kind": "python_calls", "path": "output/mod.py", "calls": [call]})

    many = [
        {"function": "add", "args": [1], "kwargs": {"b": 2}, "returns": 3},
        {"function": "pair", "returns": [1, [2, 3]]},
        {"function": "keys", "returns": {"1": "a", "null": 2.5}},
        {"function": "array", "returns": [0, 0.5, 1]},
        {"function": "fail", "args": ["x"], "raises": "ValueError"},
        {"function": "leave", "raises": "SystemExit"},
        {"function": "sibling", "returns": "next to it"},
    ]
    assert reason_of({"kind": "python_calls", "path": "output/mod.py", "calls": many}) == OK
    assert call("add", 1, returns=1) == "output/mod.py: add(1): the value: 2, expected 1"
    assert "returned {'float': 'nan'}" in call("nan", raises="ValueError")
    assert "no JSON value: ValueError: nested deeper" in call("loop")
    assert "no JSON value: ValueError: a object" in call("thing")
    assert "the module has no function 'gone'" in call("gone")
    assert "raised TypeError" in call("add", returns=1)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise KeyError('at import')", "importing it raised KeyError: 'at import'"),
        ("import sys; sys.exit(0)", "importing it raised SystemExit: 0"),
        ("def f(:", "importing it raised SyntaxError"),
        ("import os; os._exit(0)", "f(): the process ended with exit code 0, expected 1"),
        ("def f():\n import os; os._exit(7)", "f(): the process ended with exit code 7, expected 1"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "ended with exit code -9"),
        ("class E(Exception):\n def __str__(self): 1/0\ndef f(): raise E()", "f(): raised E, expected 1"),
        ("print('x' * 10**8)\ndef f(): return 2", "importing it raised OSError"),
        ("import os, sys\nos.write(int(sys.argv[2]), b'nonsense\\n')", "f(): the result is unreadable"),
        ("def f(): return '\\ud800'", "f(): the value: '\\ud800', expected 1"),
        ("def f(): return 10**5000", "f(): what it returned is no JSON value: ValueError"),
    ],
)
def test_hostile_modules(files: Path, reason_of: Reason, source: str, reason: str) -> None:
    """A module that raises, exits, prints or forges fails its own check and nothing else."""
    (files / "m.py").write_text(source)
    (files / "x.txt").write_text("a")
    calls = {"kind": "python_calls", "path": "m.py", "calls": [{"function": "f", "returns": 1}]}
    text = {"kind": "text_file", "path": "x.txt", "lines": ["a"]}
    assert reason in reason_of({"kind": "all_of", "checks": [calls, text]})
    assert "x.txt" not in reason_of({"kind": "all_of", "checks": [calls, text]})


def test_command_runs(files: Path, reason_of: Reason) -> None:
    """A program gets arguments and input in its own process; output, exit code and last words count."""
    (files / "p.py").write_text(
        "import sys, pathlib\n"
        "if sys.argv[1:] == ['fail']: sys.exit('no such mode')\n"
        "print(*sys.argv[1:], sys.stdin.read(), pathlib.Path('p.py').exists(), 'é')"
    )
    run = {"argv": ["a"], "stdin": "in", "stdout_lines": ["a in True é"]}
    check = {"kind": "command_runs", "path": "p.py", "runs": [run]}
    assert reason_of(check) == OK
    assert reason_of(check | {"runs": [run, run | {"stdin": ""}]}).startswith(
        "p.py: run with arguments ['a']: output line 1: 'a  True é'"
    )
    failing = {"argv": ["fail"], "stdout_lines": []}
    assert "exit code 1 (no such mode), expected 0" in reason_of(check | {"runs": [failing]})
    assert reason_of(check | {"runs": [failing | {"exit_code": 1}]}) == OK


def test_a_program_that_never_ends_is_ended(files: Path) -> None:
    """A deadline ends the program and the processes that it has started."""
    (files / "p.py").write_text("import subprocess\nsubprocess.run(['sleep', '100'])")
    started_at = time.monotonic()
    request = {"runs": [{"argv": [], "stdin": ""}], "timeout_s": 0.5}
    facts = read_runs(files / "p.py", request, files)
    assert facts["runs"][0]["problem"] == "it ran for more than 0.5 s"
    assert time.monotonic() - started_at < 50  # it would sleep for twice as long


def zip_bomb() -> bytes:
    """An XLSX whose sheet unpacks to 200 MB."""
    book = io.BytesIO()
    openpyxl.Workbook().save(book)
    with zipfile.ZipFile(book, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet9.xml", bytes(200 * 2**20))
    return book.getvalue()


def huge_png() -> bytes:
    """A PNG of a few bytes that says it has 30,000 x 30,000 pixels."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0), b"IDAT": b"", b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


def test_hostile_files(files: Path, extract: Extract) -> None:
    """Bombs, giants, special files and garbage give a problem, in bounded time and memory."""
    (files / "huge.png").write_bytes(huge_png())
    (files / "bomb.xlsx").write_bytes(zip_bomb())
    with (files / "sparse.csv").open("wb") as sparse:
        sparse.truncate(2 * 2**30)
    (files / "wide.csv").write_text("," * 300_000)
    (files / "field.csv").write_text('"' + "x" * 200_000)
    (files / "big.txt").write_text("x" * 2_000_000)
    os.mkfifo(files / "fifo.csv")
    (files / "link.csv").symlink_to("/etc/hostname")
    (files / "folder.csv").mkdir()
    (files / "empty.csv").write_text("")
    (files / "short.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt \xff\xff\xff\xff")
    (files / "div.html").write_text("<div>" * 100_000)
    (files / "script.eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (files / "no.xlsx").write_text("a,b")
    expected = {
        "huge.png": ("image_file", "more pixels than the scorer decodes (40,000,000)"),
        "bomb.xlsx": ("table_file", "it unpacks to 209,7"),
        "sparse.csv": ("table_file", "2,147,483,648 bytes, more than the scorer reads (8,388,608)"),
        "wide.csv": ("table_file", "more than 100,000 rows or 200,000 cells"),
        "field.csv": ("table_file", "Error: field larger than field limit"),
        "big.txt": ("text_file", "it holds more than the scorer compares"),
        "fifo.csv": ("table_file", "not a regular file"),
        "link.csv": ("table_file", "not a regular file"),
        "folder.csv": ("table_file", "not a regular file"),
        "empty.csv": ("table_file", "it is empty"),
        "gone.csv": ("table_file", "no such file"),
        "short.wav": ("audio_file", "a WAV file without a format or without data"),
        "div.html": ("html_file", "nested deeper than"),
        "script.eps.png": ("image_file", "not a picture in one of the formats"),
        "no.xlsx": ("table_file", "not an XLSX file: it is no zip archive"),
    }
    needs = {
        "table_file": {"columns": ["a"], "rows": []},
        "text_file": {"lines": []},
        "html_file": {"elements": [{"tag": "p"}]},
    }
    parts = [{"kind": kind, "path": path, **needs.get(kind, {})} for path, (kind, _) in expected.items()]
    facts = extract(parse_check({"kind": "all_of", "checks": parts}))
    found = dict(zip(expected, (each.get("problem", each) for each in facts.values()), strict=True))
    assert {path: text for path, text in found.items() if expected[path][1] not in text} == {}
