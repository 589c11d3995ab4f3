"""Image editing: arrange pictures on a sheet, animate a strip, find the largest stain."""

from __future__ import annotations

from functools import partial

from bench_data.checks import AllOf, ImageFile, JsonFile
from bench_data.quickstart.media import (
    Box,
    Colour,
    blank,
    crop,
    fill,
    grid_means,
    mosaic,
    paste,
    png,
    png_check,
)
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = "image editing"


def samples() -> list[Sample]:
    """Return these samples."""
    return [
        _contact_sheet(),
        _reverse_animation(),
        _largest_stain(),
    ]


CONTACT_SHEET = """\
Make a contact sheet of the twelve pictures data/tiles/tile-1.png to data/tiles/tile-12.png (24 x 16 pixels
each), in the order of their numbers: four in a row, from left to right, three rows from top to bottom.
There is a white margin of 4 pixels around the whole and a white gap of 4 pixels between neighbours, so the
sheet is 116 x 64 pixels. The pictures themselves are not changed. Save it as output/sheet.png (PNG)."""

_CONTACT_SHEET_REFERENCE = Solution(
    cells=(
        """\
from pathlib import Path

paths = sorted(Path("data/tiles").glob("tile-*.png"), key=lambda path: int(path.stem.split("-")[1]))
print([path.name for path in paths])
""",
        """\
from PIL import Image

tiles = [Image.open(path).convert("RGB") for path in paths]
print({tile.size for tile in tiles})
""",
        """\
sheet = Image.new("RGB", (116, 64), "white")
for i, tile in enumerate(tiles):
    row, column = divmod(i, 4)
    sheet.paste(tile, (4 + column * 28, 4 + row * 20))
sheet.save("output/sheet.png")
""",
    ),
    answer="The contact sheet is in output/sheet.png.",
)


def _contact_sheet() -> Sample:
    tiles = {n: mosaic(f"tile-{n}", columns=6, rows=4, field=4) for n in range(1, 13)}
    sheet = blank(116, 64)
    for n, tile in tiles.items():
        row, column = divmod(n - 1, 4)
        paste(sheet, tile, 4 + column * 28, 4 + row * 20)
    return Sample(
        id="image-contact-sheet",
        category=CATEGORY,
        messages=({"role": "user", "content": CONTACT_SHEET},),
        files=tuple(SampleFile(f"data/tiles/tile-{n}.png", partial(png, tile)) for n, tile in tiles.items()),
        check=png_check("output/sheet.png", sheet, columns=29, rows=16),
        reference=_CONTACT_SHEET_REFERENCE,
        # Sorted by name, tile-10 comes before tile-2.
        decoy=with_mistake(_CONTACT_SHEET_REFERENCE, ', key=lambda path: int(path.stem.split("-")[1])', ""),
    )


REVERSE_ANIMATION = """\
data/strip.png holds the six frames of an animation side by side, 32 x 32 pixels each, the first one on the
left. Make an animated GIF that plays it backwards: it begins with the frame on the right of the strip and
ends with the one on the left. It has exactly six frames of 32 x 32 pixels, shows each for 100 ms and
repeats for ever. Save it as output/backwards.gif."""

_REVERSE_ANIMATION_REFERENCE = Solution(
    cells=(
        """\
from PIL import Image

strip = Image.open("data/strip.png").convert("RGB")
frames = [strip.crop((left, 0, left + 32, 32)) for left in range(0, strip.width, 32)]
print(len(frames))
""",
        """\
first, *others = frames[::-1]
first.save("output/backwards.gif", save_all=True, append_images=others, duration=100, loop=0)
print(Image.open("output/backwards.gif").n_frames)
""",
    ),
    answer="The animation is in output/backwards.gif.",
)


def _reverse_animation() -> Sample:
    strip = blank(6 * 32, 32, (40, 60, 90, 255))
    for n in range(6):
        fill(strip, (32 * n + 4 * n, 8, 32 * n + 4 * n + 8, 24), (240, 200 - 30 * n, 40, 255))
    frames = [crop(strip, (left, 0, left + 32, 32)) for left in range(160, -1, -32)]
    return Sample(
        id="image-reverse-animation",
        category=CATEGORY,
        messages=({"role": "user", "content": REVERSE_ANIMATION},),
        files=(SampleFile("data/strip.png", partial(png, strip)),),
        check=AllOf(
            checks=[
                ImageFile(
                    path="output/backwards.gif",
                    width=32,
                    height=32,
                    format="GIF",
                    n_frames=6,
                    n_repeats=0,
                    frame=n,
                    frame_ms=100,
                    grid_columns=8,
                    grid_rows=4,
                    grid_rgba=grid_means(frame, 8, 4),
                )
                for n, frame in enumerate(frames)
            ]
        ),
        reference=_REVERSE_ANIMATION_REFERENCE,
        decoy=with_mistake(_REVERSE_ANIMATION_REFERENCE, "frames[::-1]", "frames"),
    )


_STAIN: Colour = (170, 30, 40, 255)
_STAINS: dict[str, tuple[Box, ...]] = {
    "square": ((52, 30, 74, 50),),
    # A frame is wider and higher than the square, but has fewer pixels.
    "frame": ((4, 4, 44, 7), (4, 4, 7, 44), (41, 4, 44, 44)),
    "bar": ((50, 6, 86, 12),),
    # The second touches the square at a corner.
    "dots": ((80, 20, 86, 26), (74, 50, 86, 56)),
}


LARGEST_STAIN = """\
data/slide.png (96 x 64 pixels) shows several stains of exactly the colour (170, 30, 40) on a lighter
ground. Pixels of that colour belong to the same stain if they touch along an edge (a corner is not enough).
Find the stain with the most pixels. Save the smallest rectangle of the picture that holds it as
output/stain.png (PNG), and output/stain.json as {"left": ..., "top": ..., "width": ..., "height": ...,
"n_pixels": ...}: left and top are the column and row of the rectangle's first pixel, counted from 0;
n_pixels is the number of pixels of the stain itself."""

_LARGEST_STAIN_REFERENCE = Solution(
    cells=(
        """\
import json
from PIL import Image

slide = Image.open("data/slide.png").convert("RGB")
pixels = slide.load()
todo = {
    (x, y) for x in range(slide.width) for y in range(slide.height) if pixels[x, y] == (170, 30, 40)
}
print(len(todo))
""",
        """\
stains = []
while todo:
    stain, front = [], [todo.pop()]
    while front:
        x, y = front.pop()
        stain.append((x, y))
        near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & todo
        todo -= near
        front.extend(near)
    stains.append(stain)
print(sorted(len(stain) for stain in stains))
""",
        """\
def box(stain):
    xs, ys = [x for x, _ in stain], [y for _, y in stain]
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1

largest = max(stains, key=len)
left, top, right, bottom = box(largest)
print(left, top, right, bottom)
""",
        """\
slide.crop((left, top, right, bottom)).save("output/stain.png")
facts = {"left": left, "top": top, "width": right - left, "height": bottom - top, "n_pixels": len(largest)}
with open("output/stain.json", "w") as file:
    json.dump(facts, file)
facts
""",
    ),
    answer="The largest stain is in output/stain.png, its place in output/stain.json.",
)


def _largest_stain() -> Sample:
    slide = blank(96, 64, (235, 230, 220, 255))
    for boxes in _STAINS.values():
        for box in boxes:
            fill(slide, box, _STAIN)
    left, top, right, bottom = _STAINS["square"][0]
    width, height = right - left, bottom - top
    facts = {"left": left, "top": top, "width": width, "height": height, "n_pixels": width * height}
    return Sample(
        id="image-largest-stain",
        category=CATEGORY,
        messages=({"role": "user", "content": LARGEST_STAIN},),
        files=(SampleFile("data/slide.png", partial(png, slide)),),
        check=AllOf(
            checks=[
                JsonFile(path="output/stain.json", value=facts),
                png_check("output/stain.png", blank(width, height, _STAIN), columns=1, rows=1),
            ]
        ),
        reference=_LARGEST_STAIN_REFERENCE,
        # The tallest stain is not the largest.
        decoy=with_mistake(
            _LARGEST_STAIN_REFERENCE, "key=len", "key=lambda stain: box(stain)[3] - box(stain)[1]"
        ),
    )
