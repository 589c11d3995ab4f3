"""Documents, films, sounds and models, as facts. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

import importlib
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import likeness  # type: ignore[import-not-found] # our neighbours, in the sandbox
import pickles  # type: ignore[import-not-found]
import pictures  # type: ignore[import-not-found]
import placing  # type: ignore[import-not-found]
import tables  # type: ignore[import-not-found]

MAX_PAGES = 60
MAX_TEXT_CHARS = 500_000
MAX_FILM_FRAMES = 5_000
N_FIRST = 5
MP4_SIGN = b"ftyp"
"""After the length of the first box."""

MAX_FILM_PIXELS = 3_000_000_000
MAX_SOUND_S = 1_800
ENVELOPE_S = 0.25
MIN_LEVEL_DBFS = -120.0

_SHORT_TEXT = re.compile(rb"(?s:\x8c(.))([A-Za-z_][A-Za-z0-9_.]{2,80})(?=[^A-Za-z0-9_.])")
_GLOBAL = re.compile(rb"c([a-z_][A-Za-z0-9_.]{2,80})\n([A-Za-z_][A-Za-z0-9_]*)\n")
_FITTED = re.compile(r"[a-z][A-Za-z0-9_]*[A-Za-z0-9]_")


def read_document(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return pages, text and, where a picture is asked for, how well one of the first pages shows it."""
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        return _pdf(path, root / request["ref"] if request["ref"] else None)
    text = _docx_text(path) if suffix == ".docx" else _xlsx_text(path)
    return {"n_pages": 1, "text": text[:MAX_TEXT_CHARS], "score": 0.0}


def _pdf(path: Path, ref: Path | None) -> dict[str, Any]:
    from PIL import Image

    pymupdf = importlib.import_module("pymupdf")
    with pymupdf.open(path, filetype="pdf") as document:
        if not document.is_pdf:  # it goes by the content, whatever it is told
            raise ValueError("not a PDF file")
        pages = [document[index] for index in range(min(document.page_count, MAX_PAGES))]
        score = 0.0
        for page in pages[:3] if ref is not None else ():
            scale = min(1.0, 600 / max(page.rect.width, page.rect.height, 1.0))
            drawn = page.get_pixmap(matrix=pymupdf.Matrix(scale, scale), alpha=False)
            picture = Image.frombytes("RGB", (drawn.width, drawn.height), drawn.samples)
            score = max(score, placing.find(picture, likeness.colour(ref))["score"])
        text = "".join(page.get_text() for page in pages)
        return {"n_pages": document.page_count, "text": text[:MAX_TEXT_CHARS], "score": score}


def _docx_text(path: Path) -> str:
    tables.refuse_zip_bomb(path)
    try:
        with zipfile.ZipFile(path) as archive:
            body = archive.read("word/document.xml").decode("utf-8", "replace")
    except KeyError:
        raise ValueError("not a DOCX file: it has no word/document.xml") from None
    # Taken by pattern: an XML parser would also follow what a file makes it follow.
    texts = re.findall(r"<w:t(?: [^>]*)?>([^<]*)</w:t>|(</w:p>)", body)
    return "".join(text or ("\n" if end else "") for text, end in texts)


def _xlsx_text(path: Path) -> str:
    table = tables.read_table(path, {"sheet": None}, path.parent)
    rows = [table["columns"], *table["rows"]]
    return "\n".join(" ".join(str(cell) for cell in row if cell is not None) for row in rows)


def read_film(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return frames and size of a film and of an animation, and how their first frames differ (median)."""
    import numpy as np

    n_frames, firsts = _film(path)
    differences = []
    with pictures.open_picture(root / request["ref"]) as ref:
        n_reference = getattr(ref, "n_frames", 1)
        for index, picture in enumerate(firsts):
            ref.seek(min(index, n_reference - 1))
            differences.append(_frame_difference(ref, picture))
    return {
        "n_frames": n_frames,
        "size": list(firsts[0].size),
        "reference_frames": n_reference,
        "reference_size": list(ref.size),
        "difference": float(np.median(differences)),
    }


def _film(path: Path) -> tuple[int, list[Any]]:
    """Return the number of frames and the first of them. Raises ValueError for none, or too many."""
    import cv2
    from PIL import Image

    with path.open("rb") as file:
        if path.suffix.lower() == ".mp4" and file.read(8)[4:] != MP4_SIGN:
            raise ValueError("not an MP4 file")
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    n_frames, firsts = 0, []
    try:
        while n_frames < MAX_FILM_FRAMES:
            is_read, frame = film.read()
            if not is_read:
                break
            n_frames += 1
            if n_frames <= N_FIRST:
                firsts.append(Image.fromarray(frame[:, :, ::-1].copy()))
            if n_frames * frame.shape[0] * frame.shape[1] > MAX_FILM_PIXELS:
                raise ValueError(f"more pixels in its frames than the scorer decodes ({MAX_FILM_PIXELS:,})")
    finally:
        film.release()
    if not firsts:
        raise ValueError("not a film: it has no frame that can be decoded")
    return n_frames, firsts


def _frame_difference(ref: Any, picture: Any) -> float:
    # What is transparent in a GIF is white for some converters, black for others.
    return min(float(likeness.difference(e, picture)) for e in (likeness.on_white(ref), ref.convert("RGB")))


def read_sound(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return format, length and level of a sound, lengths and levels of inputs, and how alike they are."""
    found = _sound(path)
    refs = [_sound(root / name) for name in request["refs"]]
    return {
        "format": found["format"],
        "duration_s": found["duration_s"],
        "level_dbfs": found["level_dbfs"],
        "references": [{key: ref[key] for key in ("duration_s", "level_dbfs")} for ref in refs],
        "correlation": _alike(found["envelope"], refs[0]["envelope"]),
    }


def _sound(path: Path) -> dict[str, Any]:
    """Return what is told of a sound, and its loudness over time. Decodes block by block."""
    import numpy as np

    soundfile = importlib.import_module("soundfile")
    powers = []
    with soundfile.SoundFile(path) as sound:
        if sound.samplerate < 1 or sound.frames > MAX_SOUND_S * sound.samplerate or sound.channels > 8:
            raise ValueError(f"longer than the scorer decodes ({MAX_SOUND_S} s)")
        block = max(1, round(ENVELOPE_S * sound.samplerate))
        n_frames = 0
        for samples in sound.blocks(blocksize=block, dtype="float32"):
            n_frames += len(samples)
            powers.append(float((samples.astype(float) ** 2).mean()) if len(samples) else 0.0)
            if n_frames > MAX_SOUND_S * sound.samplerate:
                raise ValueError(f"longer than the scorer decodes ({MAX_SOUND_S} s)")
        facts = {"format": sound.format, "duration_s": n_frames / sound.samplerate}
    power = float(np.mean(powers)) if powers else 0.0
    level = 10 * math.log10(power) if power > 0 else MIN_LEVEL_DBFS
    return facts | {"level_dbfs": max(level, MIN_LEVEL_DBFS), "envelope": np.sqrt(np.array(powers))}


def _alike(first: Any, second: Any) -> float:
    import numpy as np

    length = min(len(first), len(second))
    if length < 4 or min(first[:length].std(), second[:length].std()) < 1e-9:
        return 0.0
    return float(np.corrcoef(first[:length], second[:length])[0, 1])


def _texts(data: bytes) -> set[str]:
    """Return what looks like the names that pickles push as short texts, or import by GLOBAL."""
    found = {text for size, text in _SHORT_TEXT.findall(data) if size[0] == len(text)}
    found |= {module for module, _ in _GLOBAL.findall(data)}
    return {text.decode("ascii") for text in sorted(found)[: pickles.MAX_NAMES]}


def read_model(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the names that a pickle imports and the attributes that fitting sets; it is not loaded.

    joblib writes arrays between the opcodes, where a walk ends: what follows is searched for texts.
    """
    names, texts, problem = pickles.walk(path)
    if any(name.startswith("joblib.") for name in names):
        data = path.read_bytes()
        problem = None if data.endswith(b".") else "it is cut off"
        more = sorted(_texts(data))
        texts += more
        names += [text for text in more if "." in text]
    if problem is not None:
        raise ValueError(f"not a whole pickle: {problem}")
    fitted = sorted({text for text in texts if _FITTED.fullmatch(text)})
    return {"names": names, "fitted": fitted[:50]}
