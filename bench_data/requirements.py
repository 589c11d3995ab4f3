"""What PyBench's tasks need of the place where their code runs, and what of it is not there.

Which task needs which package was read off three runs that upstream's authors recorded: what the code of a
task imports, in any of them. Other ways to solve a task may need less.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_data.errors import BenchDataError

LOOK_S = 30.0
"""How long the interpreter, and fontconfig, may take to answer."""


@dataclass(frozen=True, slots=True)
class Package:
    """A module that tasks import."""

    distribution: str
    tasks: frozenset[str]
    in_extra: bool = True
    """Whether `make install-pybench` brings it."""


def _tasks(ids: str) -> frozenset[str]:
    return frozenset(ids.split())


def _package(distribution: str, tasks: str, *, in_extra: bool = True) -> Package:
    return Package(distribution, _tasks(tasks), in_extra)


PYBENCH = {
    "pandas": _package(
        "pandas",
        "2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 25 27 28 29 30 31 32 33 34 35 36 37 "
        "38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 54 56 57 58 60 61 62 63 64 65 66 67 68 69 70 71 74 122 "
        "128 129",
    ),
    "numpy": _package(
        "numpy",
        "5 7 8 12 19 20 37 45 46 48 49 54 58 69 72 73 78 83 88 89 90 91 92 93 94 96 97 99 100 103 105 107 "
        "109 110 111 113 114 115 116 119 124 126 137 145 146 147",
    ),
    "matplotlib": _package(
        "matplotlib",
        "7 8 16 20 22 31 36 38 42 43 44 45 46 52 54 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 84 89 "
        "90 91 93 94 95 96 97 98 99 101 102 105 109 110 112 115 116 120 121 122 123 124 126 145",
    ),
    "scipy": _package("scipy", "5 7 137"),
    "sklearn": _package("scikit-learn", "40 41 42 43 47 48 49 50 51 53 54 55 58 90 123"),
    "sympy": _package("sympy", "73 136 137 138 139"),
    "openpyxl": _package("openpyxl", "7 9 11 12 14 15 16 23 25 27 32 39 45 46 50 74 128"),
    "PIL": _package("pillow", "78 85 88 89 92 95 105 112 114 119 120 124"),
    "cv2": _package(
        "opencv-python-headless",
        "78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 105 107 109 110 "
        "111 113 114 116 119 124 126",
    ),
    "imageio": _package("imageio", "113 114"),
    "seaborn": _package("seaborn", "7 31 54"),
    "statsmodels": _package("statsmodels", "46"),
    "jieba": _package("jieba", "53 55 59 122"),
    "nltk": _package("nltk", "36 54 59 130"),
    "textblob": _package("textblob", "56"),
    "wordcloud": _package("wordcloud", "52 57 58 59 121 122 123 124 126"),
    "qrcode": _package("qrcode", "117 118 119 120"),
    "PyPDF2": _package("pypdf2", "53 76 123 126 130 131 132 133 142"),
    "fitz": _package("pymupdf", "75 126 130 143"),
    "pdf2docx": _package("pdf2docx", "75"),
    "docx": _package("python-docx", "75"),
    "requests": _package("requests", "28 88 128"),
    "bs4": _package("beautifulsoup4", "128"),
    "pygame": _package("pygame", "140"),
    "librosa": _package("librosa", "145 146 147 149"),
    "soundfile": _package("soundfile", "146 147 149 150 151 152"),
    "pydub": _package("pydub", "144 146 147 149 150"),
    "moviepy": _package("moviepy", "146 149 150"),
    "keras": _package("keras", "49", in_extra=False),  # it asks for an LSTM; several GB
}

CJK_TASKS = _tasks("59 109 121 122 123 124")
"""Tasks that draw Chinese text: word clouds, and a caption."""

FFMPEG_TASKS = _tasks("144 146 147 149 150 151 152")
"""Tasks that convert or cut MP3 files: pydub starts the program from PATH."""

VIDEO_TASKS = _tasks("113 114")
"""Tasks that write MP4 files: imageio starts the program that imageio-ffmpeg brings, too."""

CJK_FILES = ("NotoSansCJK*", "NotoSerifCJK*", "wqy-*", "SourceHan*", "simhei*", "simsun*", "msyh*", "uming*")
FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the code of a run is executed."""

    python: Path
    extra_paths: tuple[Path, ...] = ()
    """Folders that end its sys.path."""

    environment: Mapping[str, str] | None = None
    """All variables that the code sees; None: those of this process."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a place has of what is looked for."""

    modules: frozenset[str]
    has_cjk_font: bool
    has_ffmpeg: bool
    """On PATH."""

    has_bundled_ffmpeg: bool
    """The one that imageio-ffmpeg brings."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """What is not there, each with the tasks that need it, in order. False when nothing is lacking."""

    python: str
    modules: Mapping[str, tuple[str, ...]]
    cjk_font: tuple[str, ...]
    ffmpeg: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.modules or self.cjk_font or self.ffmpeg)

    def lines(self) -> list[str]:
        """Return what to tell the user: what is lacking, for which tasks, and what brings it."""
        lines = []
        installable = {name: tasks for name, tasks in self.modules.items() if PYBENCH[name].in_extra}
        if installable:
            lines.append(
                f"warning: {self.python} lacks packages that tasks need; make install-pybench brings them:"
            )
            lines += [_module_line(name, tasks) for name, tasks in installable.items()]
        for name in self.modules.keys() - installable.keys():
            lines.append(
                f"warning: {self.python} lacks what some tasks ask for, and what no extra of ours holds: "
                f"{_module_line(name, self.modules[name]).strip()}"
            )
        if self.cjk_font:
            lines.append(
                f"warning: no font has Chinese characters{_for(self.cjk_font)}: apt install fonts-noto-cjk"
            )
        if self.ffmpeg:
            lines.append(f"warning: there is no ffmpeg{_for(self.ffmpeg)}: apt install ffmpeg")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return it for events.log."""
        return asdict(self)


def look_for(benchmark: str, sample_ids: Iterable[str], place: Place) -> Lacking | None:
    """Return what a place lacks for these samples, or None for a benchmark of which nothing is known. Blocks.

    Raises:
        BenchDataError: the interpreter cannot be asked.
    """
    return lacking(sample_ids, place.python, look(place)) if benchmark == "pybench" else None


def lacking(sample_ids: Iterable[str], python: Path, found: Found) -> Lacking:
    """Return what these samples need and a place has not."""
    ids = frozenset(sample_ids)
    modules = {
        name: in_order(package.tasks & ids)
        for name, package in PYBENCH.items()
        if name not in found.modules and package.tasks & ids
    }
    needing_ffmpeg: frozenset[str] = frozenset()
    if not found.has_ffmpeg:
        needing_ffmpeg = FFMPEG_TASKS if found.has_bundled_ffmpeg else FFMPEG_TASKS | VIDEO_TASKS
    return Lacking(
        str(python),
        modules,
        cjk_font=() if found.has_cjk_font else in_order(CJK_TASKS & ids),
        ffmpeg=in_order(needing_ffmpeg & ids),
    )


def in_order(tasks: Iterable[str]) -> tuple[str, ...]:
    """Return PyBench's ids in the order of their numbers."""
    return tuple(sorted(tasks, key=int))


def look(place: Place) -> Found:
    """Ask an interpreter what it can import, and this machine for fonts and ffmpeg. Blocks, below a second.

    Raises:
        BenchDataError: the interpreter cannot be asked.
    """
    modules, has_bundled_ffmpeg = _ask(place)
    environment = place.environment
    has_ffmpeg = shutil.which("ffmpeg", path=environment.get("PATH") if environment else None) is not None
    return Found(modules, has_cjk_font(), has_ffmpeg, has_bundled_ffmpeg)


_LOOK = """
import glob, importlib.util, json, os, sys
names, paths = json.loads(sys.argv[1])
sys.path[:] = [path for path in sys.path if path] + paths
specs = {name: importlib.util.find_spec(name) for name in names}
folders = getattr(specs["imageio_ffmpeg"], "submodule_search_locations", None) or []
binaries = [path for folder in folders for path in glob.glob(os.path.join(folder, "binaries", "ffmpeg*"))]
print(json.dumps([[name for name in names if specs[name]], bool(binaries)]))
"""
"""Runs in any Python 3; imports none of what it looks for."""


def _ask(place: Place) -> tuple[frozenset[str], bool]:
    asked = json.dumps([[*PYBENCH, "imageio_ffmpeg"], [str(path) for path in place.extra_paths]])
    try:
        answer = subprocess.run(
            [place.python, "-c", _LOOK, asked],
            env=place.environment, cwd="/", capture_output=True, timeout=LOOK_S, check=True,
        )  # fmt: skip
        modules, has_bundled_ffmpeg = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise BenchDataError(
            f"{place.python} (sandbox.python) cannot be asked which packages it has: {_reason(error)}"
        ) from error
    return frozenset(modules), bool(has_bundled_ffmpeg)


def _reason(error: Exception) -> str:
    written = getattr(error, "stderr", None) or b""
    return written.decode(errors="replace").strip().rpartition("\n")[2] or str(error)


def has_cjk_font(folders: Sequence[str] = FONT_FOLDERS) -> bool:
    """Return whether this machine has a font with Chinese characters: as fontconfig says, or a known file."""
    try:
        listed = subprocess.run(
            ["fc-list", ":lang=zh", "family"], capture_output=True, timeout=LOOK_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return any(True for folder in folders for glob in CJK_FILES for _ in Path(folder).rglob(glob))
    return bool(listed.stdout.strip())


def _module_line(name: str, tasks: Sequence[str]) -> str:
    distribution = PYBENCH[name].distribution
    shown = name if name == distribution else f"{name} ({distribution})"
    return f"  {shown}{_for(tasks)}"


def _for(tasks: Sequence[str]) -> str:
    return f", for {'task' if len(tasks) == 1 else 'tasks'} {' '.join(tasks)}"
