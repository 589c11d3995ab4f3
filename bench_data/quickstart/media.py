"""Pictures and sounds made from numbers: the same bytes at every call, on every machine.

Tasks use these to make their inputs, and their checks use them to work out what a right output looks
like, so nothing here needs Pillow or numpy: what the model's libraries do is compared with plain
arithmetic. Files are written uncompressed, because the output of a compressor differs between versions
of zlib.

PNG: https://www.w3.org/TR/png-3/   zlib: RFC 1950, stored blocks: RFC 1951 section 3.2.4
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence

from bench_data.checks import AudioFile, AudioSegment, ImageFile
from bench_data.quickstart.inputs import Draw

Colour = tuple[int, int, int, int]
"""Red, green, blue, alpha: 0 to 255 each."""

Picture = list[list[Colour]]
"""Rows from top to bottom, each from left to right."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside, as in Pillow."""

Sound = list[int]
"""One channel, as signed 16-bit numbers."""

Stretch = tuple[float, float, float]
"""From, to (seconds), and the frequency of the tone there in Hz, 0 for silence."""

WHITE: Colour = (255, 255, 255, 255)
BLACK: Colour = (0, 0, 0, 255)
CLEAR: Colour = (0, 0, 0, 0)

SILENCE_DBFS = -200.0
"""The level of nothing but zeros, in checks."""

_FULL_SCALE = 32768
_MAX_STORED_BYTES = 65535


def blank(width: int, height: int, colour: Colour = WHITE) -> Picture:
    """Return a picture of one colour."""
    return [[colour] * width for _ in range(height)]


def fill(picture: Picture, box: Box, colour: Colour) -> None:
    """Paint a rectangle, in place."""
    left, top, right, bottom = box
    for row in picture[top:bottom]:
        row[left:right] = [colour] * (right - left)


def paste(picture: Picture, other: Picture, left: int, top: int) -> None:
    """Copy another picture onto this one, in place, alpha included."""
    for row, source in zip(picture[top:], other, strict=False):
        row[left : left + len(source)] = source


def crop(picture: Picture, box: Box) -> Picture:
    """Return a rectangle of a picture as a new one."""
    left, top, right, bottom = box
    return [row[left:right] for row in picture[top:bottom]]


def mosaic(name: str, *, columns: int, rows: int, field: int) -> Picture:
    """Return a picture of square fields, `field` pixels wide, whose opaque colours follow from the name."""
    draw = Draw(name)
    picture = blank(columns * field, rows * field)
    for y in range(0, rows * field, field):
        for x in range(0, columns * field, field):
            red, green, blue = (draw.integer(0, 255) for _ in range(3))
            fill(picture, (x, y, x + field, y + field), (red, green, blue, 255))
    return picture


def grid_means(picture: Picture, columns: int, rows: int) -> list[tuple[float, float, float, float]]:
    """Return the mean colour of each field of a grid, row by row, as `ImageFile.grid_rgba` holds them.

    The grid must divide the picture evenly, so that no reader of the check can round it differently.
    """
    height, width = len(picture), len(picture[0])
    if width % columns or height % rows:
        raise ValueError(f"a grid of {columns}x{rows} does not divide a picture of {width}x{height}")
    w, h = width // columns, height // rows
    boxes = [(x * w, y * h, x * w + w, y * h + h) for y in range(rows) for x in range(columns)]
    return [_mean(crop(picture, box)) for box in boxes]


def _mean(picture: Picture) -> tuple[float, float, float, float]:
    colours = [colour for row in picture for colour in row]
    red, green, blue, alpha = (sum(channel) / len(colours) for channel in zip(*colours, strict=True))
    return red, green, blue, alpha


def png(picture: Picture) -> bytes:
    """Return a PNG file: RGB where the whole picture is opaque, else RGBA."""
    height, width = len(picture), len(picture[0])
    n_channels = 3 if all(colour[3] == 255 for row in picture for colour in row) else 4
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if n_channels == 3 else 6, 0, 0, 0)
    lines = b"".join(
        b"\0" + bytes(value for colour in row for value in colour[:n_channels]) for row in picture
    )
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(lines)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """Return a zlib stream that holds the data as it is."""
    blocks = [data[i : i + _MAX_STORED_BYTES] for i in range(0, len(data), _MAX_STORED_BYTES)] or [b""]
    stream = b"\x78\x01"
    for i, block in enumerate(blocks):
        is_last = i == len(blocks) - 1
        stream += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    return stream + struct.pack(">I", zlib.adler32(data))


def tone(hz: float, duration_s: float, *, sample_rate_hz: int, amplitude: int) -> Sound:
    """Return a sine that starts at phase zero.

    The amplitude must be even: then the rational values of a sine (0, a half, one) never fall between
    two integers, where the last bit of a machine's `sin` would decide the rounding.
    """
    if amplitude % 2:
        raise ValueError(f"amplitude {amplitude} is odd: use an even number")
    step = 2 * math.pi * hz / sample_rate_hz
    return [round(amplitude * math.sin(step * i)) for i in range(round(duration_s * sample_rate_hz))]


def silence(duration_s: float, *, sample_rate_hz: int) -> Sound:
    """Return zeros."""
    return [0] * round(duration_s * sample_rate_hz)


def rms_dbfs(sound: Sequence[float]) -> float:
    """Return the root mean square relative to 32768, in dB; `SILENCE_DBFS` where all is zero."""
    rms = math.sqrt(sum(value * value for value in sound) / len(sound)) / _FULL_SCALE
    return 20 * math.log10(rms) if rms > 0 else SILENCE_DBFS


def wav(*channels: Sound, sample_rate_hz: int, sample_width_bytes: int = 2) -> bytes:
    """Return a PCM WAV file of 8 bits (unsigned, the upper byte of each number) or 16 (signed)."""
    values = [value for frame in zip(*channels, strict=True) for value in frame]
    if sample_width_bytes == 1:
        data = bytes((value >> 8) + 128 for value in values)
    else:
        data = struct.pack(f"<{len(values)}h", *values)
    block_bytes = len(channels) * sample_width_bytes
    rate_bytes = sample_rate_hz * block_bytes
    layout = struct.pack(
        "<IHHIIHH", 16, 1, len(channels), sample_rate_hz, rate_bytes, block_bytes, 8 * sample_width_bytes
    )
    body = b"WAVEfmt " + layout + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_check(path: str, expected: Picture, *, columns: int, rows: int) -> ImageFile:
    """Return the check for a PNG file that looks like this, compared in a grid of mean colours."""
    return ImageFile(
        path=path,
        width=len(expected[0]),
        height=len(expected),
        format="PNG",
        grid_columns=columns,
        grid_rows=rows,
        grid_rgba=grid_means(expected, columns, rows),
    )


def wav_check(path: str, sound: Sequence[float], *, rate: int, stretches: Sequence[Stretch]) -> AudioFile:
    """Return the check for a WAV file of one channel and 16 bits that sounds like this in each stretch."""
    return AudioFile(
        path=path,
        sample_rate_hz=rate,
        n_channels=1,
        sample_width_bytes=2,
        duration_s=len(sound) / rate,
        segments=[
            AudioSegment(
                start_s=start_s,
                end_s=end_s,
                rms_dbfs=rms_dbfs(sound[round(start_s * rate) : round(end_s * rate)]),
                dominant_hz=hz or None,
            )
            for start_s, end_s, hz in stretches
        ],
    )
