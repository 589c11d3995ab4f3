"""Pictures and sounds, as facts. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

import math
import struct
import warnings
from pathlib import Path
from typing import Any

MAX_PIXELS = 40_000_000
MAX_COLOURS = 65_536
FORMATS = ("BMP", "GIF", "ICO", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # none that starts a program
SILENCE_DBFS = -200.0


def read_image(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return size, format, frames, and of one frame time, colours and the mean RGBA of each field of a grid.

    Column i of n spans the pixels from i * width // n up to (i + 1) * width // n; rows likewise.
    Means are of plain channel values, whatever their alpha.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(path, formats=FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"not a picture in one of the formats {', '.join(FORMATS)}") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(f"more pixels than the scorer decodes ({MAX_PIXELS:,})") from None
        with picture:
            facts: dict[str, Any] = {
                "width": picture.width,
                "height": picture.height,
                "format": picture.format,
            }
            facts["n_frames"] = getattr(picture, "n_frames", 1)
            facts["n_repeats"] = picture.info.get("loop")
            if request["frame"] >= facts["n_frames"]:
                raise ValueError(f"it has no frame {request['frame']}, only {facts['n_frames']}")
            picture.seek(request["frame"])
            facts["frame_ms"] = picture.info.get("duration")
            rgba = picture.convert("RGBA")
    colours = rgba.getcolors(MAX_COLOURS)
    facts["n_colours"] = MAX_COLOURS + 1 if colours is None else len(colours)
    facts["grid_rgba"] = _grid_means(rgba, request["grid_columns"], request["grid_rows"])
    return facts


def _grid_means(rgba: Any, n_columns: int, n_rows: int) -> list[list[float]] | None:
    import numpy as np

    width, height = rgba.size
    if n_columns > width or n_rows > height:
        return None
    pixels = np.asarray(rgba)
    means = []
    for row in range(n_rows):
        band = pixels[row * height // n_rows : (row + 1) * height // n_rows]
        for column in range(n_columns):
            field = band[:, column * width // n_columns : (column + 1) * width // n_columns]
            means.append([round(float(mean), 3) for mean in field.reshape(-1, 4).mean(axis=0, dtype=float)])
    return means


def read_audio(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the format and duration of a PCM WAV file, and level and pitch of the requested segments."""
    import numpy as np

    n_channels, rate_hz, width_bytes, data = _parse_wav(path.read_bytes())
    frames = _to_float(np, data, width_bytes).reshape(-1, n_channels)
    return {
        "sample_rate_hz": rate_hz,
        "n_channels": n_channels,
        "sample_width_bytes": width_bytes,
        "duration_s": len(frames) / rate_hz,
        "segments": [_segment(np, frames, rate_hz, segment) for segment in request["segments"]],
    }


def _parse_wav(content: bytes) -> tuple[int, int, int, bytes]:
    """Return channels, rate, bytes per sample and the whole frames. The wave module of 3.11 knows less."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError("not a WAV file")
    chunks: dict[bytes, bytes] = {}
    position = 12
    while position + 8 <= len(content):
        name, n_bytes = struct.unpack_from("<4sI", content, position)
        chunks.setdefault(name, content[position + 8 : position + 8 + n_bytes])
        position += 8 + n_bytes + n_bytes % 2
    form = chunks.get(b"fmt ", b"")
    if len(form) < 16 or b"data" not in chunks:
        raise ValueError("a WAV file without a format or without data")
    tag, n_channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if tag == 0xFFFE and len(form) >= 26:
        (tag,) = struct.unpack_from("<H", form, 24)
    if tag != 1 or bits not in (8, 16, 24, 32) or not n_channels or not rate_hz:
        raise ValueError(f"not PCM of 8, 16, 24 or 32 bits: format {tag}, {bits} bits, {n_channels} channels")
    whole = len(chunks[b"data"]) // (n_channels * bits // 8) * (n_channels * bits // 8)
    return n_channels, rate_hz, bits // 8, chunks[b"data"][:whole]


def _to_float(np: Any, data: bytes, width_bytes: int) -> Any:
    """Return samples from -1 to 1."""
    if width_bytes == 1:
        return (np.frombuffer(data, "u1").astype(float) - 128) / 128
    if width_bytes == 3:
        padded = np.zeros((len(data) // 3, 4), "u1")
        padded[:, 1:] = np.frombuffer(data, "u1").reshape(-1, 3)
        return padded.reshape(-1).view("<i4").astype(float) / 2**31
    return np.frombuffer(data, f"<i{width_bytes}").astype(float) / 2 ** (8 * width_bytes - 1)


def _segment(np: Any, frames: Any, rate_hz: int, segment: dict[str, Any]) -> dict[str, Any]:
    start, end = round(segment["start_s"] * rate_hz), round(segment["end_s"] * rate_hz)
    channel = segment["channel"]
    if not (0 <= start < end <= len(frames) and 0 <= channel < frames.shape[1]):
        return {"problem": f"the sound has {len(frames) / rate_hz:.3f} s and {frames.shape[1]} channels"}
    wave = frames[start:end, channel]
    rms = math.sqrt(float((wave**2).mean()))
    return {
        "rms_dbfs": round(20 * math.log10(rms), 4) if rms > 0 else SILENCE_DBFS,
        "dominant_hz": _dominant_hz(np, wave, rate_hz),
    }


def _dominant_hz(np: Any, wave: Any, rate_hz: int) -> float:
    """Return the frequency of the strongest partial; a parabola through the peak refines it."""
    windowed = (wave - wave.mean()) * np.hanning(len(wave))
    n_points = max(8192, 4 * len(wave))
    level = np.log(np.abs(np.fft.rfft(windowed, n_points)) + 1e-12)
    peak = int(level.argmax())
    offset = 0.0
    if 0 < peak < len(level) - 1:
        left, middle, right = level[peak - 1 : peak + 2]
        curve = left - 2 * middle + right
        offset = 0.5 * float((left - right) / curve) if curve else 0.0
    return round((peak + offset) * rate_hz / n_points, 3)
