"""Image editing: turn, cut, threshold, blend, arrange, animate, find, make transparent.

What a right picture looks like is worked out here, pixel by pixel, from the numbers that made the input;
the reference solutions get there with Pillow or numpy.
"""

from __future__ import annotations

from functools import partial

from bench_data.checks import AllOf, AnswerNumber, ImageFile, JsonFile
from bench_data.quickstart.media import (
    BLACK,
    CLEAR,
    WHITE,
    Box,
    Colour,
    Picture,
    blank,
    crop,
    fill,
    grid_means,
    mosaic,
    paste,
    png,
)
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = "image editing"


def samples() -> list[Sample]:
    """Return the samples of this category."""
    return [
        _rotate_label(),
        _crop_enlarge(),
        _threshold_scan(),
        _watermark_blend(),
        _contact_sheet(),
        _reverse_animation(),
        _largest_blob(),
        _cut_out_background(),
    ]


def _check(path: str, expected: Picture, *, columns: int, rows: int) -> ImageFile:
    return ImageFile(
        path=path,
        width=len(expected[0]),
        height=len(expected),
        format="PNG",
        grid_columns=columns,
        grid_rows=rows,
        grid_rgba=grid_means(expected, columns, rows),
    )


def _rotate_label() -> Sample:
    label = mosaic("label", columns=12, rows=8, field=8)
    fill(label, (0, 0, 96, 8), BLACK)
    turned = [list(column) for column in zip(*reversed(label), strict=True)]
    task = """\
data/label.png is a photo of a label that was taken with the camera lying on its side. Turn it 90 degrees
clockwise, as the viewer sees it: the edge that is on the left now is at the top afterwards, and the black
bar that is at the top now is on the right. Keep every pixel as it is (no resampling, no margin), so that
the width and the height change places. Save the result as output/label.png (PNG)."""
    turn = """\
from PIL import Image

label = Image.open("data/label.png")
turned = label.transpose(Image.Transpose.{method})
turned.save("output/label.png")
print(label.size, "->", turned.size)
"""
    return Sample(
        id="image-rotate-label",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/label.png", partial(png, label)),),
        check=_check("output/label.png", turned, columns=16, rows=24),
        reference=Solution((turn.format(method="ROTATE_270"),), "The label is upright in output/label.png."),
        # Pillow counts angles counter-clockwise.
        decoy=Solution((turn.format(method="ROTATE_90"),), "The label is upright in output/label.png."),
    )


def _crop_enlarge() -> Sample:
    scene = mosaic("scene", columns=30, rows=20, field=4)
    left, top, width, height, scale = 36, 20, 48, 28, 3
    cut = crop(scene, (left, top, left + width, top + height))
    enlarged = [[colour for colour in row for _ in range(scale)] for row in cut for _ in range(scale)]
    task = """\
Cut a rectangle out of data/scene.png (120 x 80 pixels): its left edge is 36 pixels from the left edge of
the picture, its top edge 20 pixels from the top; it is 48 pixels wide and 28 pixels high. Enlarge the
cut-out to three times its width and height without smoothing: each pixel becomes a square of 3 x 3 equal
pixels. Save it as output/detail.png (PNG)."""
    cut_cell = """\
from PIL import Image

scene = Image.open("data/scene.png").convert("RGB")
detail = scene.crop({box})
print(scene.size, detail.size)
"""
    enlarge_cell = """\
enlarged = detail.resize((detail.width * 3, detail.height * 3), Image.Resampling.NEAREST)
enlarged.save("output/detail.png")
print(enlarged.size)
"""
    answer = "The detail, three times as large, is in output/detail.png."
    return Sample(
        id="image-crop-enlarge",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/scene.png", partial(png, scene)),),
        check=_check("output/detail.png", enlarged, columns=24, rows=14),
        reference=Solution((cut_cell.format(box="(36, 20, 36 + 48, 20 + 28)"), enlarge_cell), answer),
        # The right size, cut where width and height were read as the centre of the rectangle.
        decoy=Solution((cut_cell.format(box="(36 - 24, 20 - 14, 36 + 24, 20 + 14)"), enlarge_cell), answer),
    )


def _threshold_scan() -> Sample:
    scan = mosaic("scan", columns=24, rows=16, field=4)
    for y, row in enumerate(scan):
        scan[y] = [_away_from_middle(colour) for colour in row]
    result = [[WHITE if _luma(colour) >= 128 else BLACK for colour in row] for row in scan]
    n_white = sum(row.count(WHITE) for row in result)
    task = """\
Make a black and white picture of data/scan.png. The brightness of a pixel is
L = 0.299 * R + 0.587 * G + 0.114 * B, not rounded. Where L is at least 128 the result is white
(255, 255, 255), elsewhere it is black (0, 0, 0). Save it as output/scan-bw.png (PNG, the same width and
height). How many pixels are white? End your final reply with a line `Answer: <number>`."""
    load_cell = """\
import numpy as np
from PIL import Image

rgb = np.asarray(Image.open("data/scan.png").convert("RGB"), dtype=float)
brightness = {brightness}
print(brightness.shape, brightness.min(), brightness.max())
"""
    save_cell = """\
white = brightness >= 128
Image.fromarray(np.where(white, 255, 0).astype(np.uint8)).save("output/scan-bw.png")
print(int(white.sum()))
"""
    answer = "The picture is in output/scan-bw.png.\n\nAnswer: {last_line}"
    weighted, plain = "rgb @ np.array([0.299, 0.587, 0.114])", "rgb.mean(axis=2)"
    return Sample(
        id="image-threshold-scan",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/scan.png", partial(png, scan)),),
        check=AllOf(
            checks=[
                _check("output/scan-bw.png", result, columns=24, rows=16),
                AnswerNumber(value=n_white),
            ]
        ),
        reference=Solution((load_cell.format(brightness=weighted), save_cell), answer),
        decoy=Solution((load_cell.format(brightness=plain), save_cell), answer),
    )


def _luma(colour: Colour) -> float:
    red, green, blue, _ = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _away_from_middle(colour: Colour) -> Colour:
    """Darken a colour whose brightness is so near 128 that rounding would decide."""
    red, green, blue, alpha = colour
    return (red // 2, green // 2, blue // 2, alpha) if abs(_luma(colour) - 128) < 3 else colour


def _watermark_blend() -> Sample:
    photo = mosaic("photo", columns=15, rows=10, field=8)
    logo = [[(250, 240, 30 + 4 * y, min(255, 9 * x)) for x in range(32)] for y in range(16)]
    left, top = 120 - 32 - 8, 80 - 16 - 4
    blended = [list(row) for row in photo]
    for y, row in enumerate(logo):
        for x, over in enumerate(row):
            blended[top + y][left + x] = _over(over, photo[top + y][left + x])
    task = """\
Put the logo data/logo.png (32 x 16 pixels, RGBA) on the photo data/photo.png (120 x 80 pixels, RGB) as a
watermark: 8 pixels stay free between its right edge and the right edge of the photo, and 4 pixels between
its bottom edge and the bottom edge of the photo. Respect the logo's own transparency: with its alpha a
(0 to 255), each channel of the result is logo * a / 255 + photo * (1 - a / 255), rounded to the nearest
integer. Save the result, opaque, with the photo's size, as output/marked.png (PNG)."""
    load_cell = """\
from PIL import Image

photo = Image.open("data/photo.png").convert("RGB")
logo = Image.open("data/logo.png")
print(photo.size, logo.size, logo.mode, logo.getchannel("A").getextrema())
"""
    blend_cell = """\
position = (photo.width - logo.width - 8, photo.height - logo.height - 4)
photo.paste({arguments})
photo.save("output/marked.png")
print("logo at", position)
"""
    answer = "The photo with its watermark is in output/marked.png."
    return Sample(
        id="image-watermark-blend",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(
            SampleFile("data/photo.png", partial(png, photo)),
            SampleFile("data/logo.png", partial(png, logo)),
        ),
        check=_check("output/marked.png", blended, columns=30, rows=20),
        reference=Solution((load_cell, blend_cell.format(arguments="logo, position, mask=logo")), answer),
        # Without a mask the logo's transparency is lost.
        decoy=Solution((load_cell, blend_cell.format(arguments='logo.convert("RGB"), position')), answer),
    )


def _over(over: Colour, under: Colour) -> Colour:
    share = over[3] / 255
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(over[:3], under[:3], strict=True))
    return (red, green, blue, 255)


def _contact_sheet() -> Sample:
    tiles = {n: mosaic(f"tile-{n}", columns=6, rows=4, field=4) for n in range(1, 13)}
    sheet = blank(116, 64)
    for n, tile in tiles.items():
        row, column = divmod(n - 1, 4)
        paste(sheet, tile, 4 + column * 28, 4 + row * 20)
    task = """\
Make a contact sheet of the twelve pictures data/tiles/tile-1.png to data/tiles/tile-12.png (24 x 16 pixels
each), in the order of their numbers: four in a row, from left to right, three rows from top to bottom.
There is a white margin of 4 pixels around the whole and a white gap of 4 pixels between neighbours, so the
sheet is 116 x 64 pixels. The pictures themselves are not changed. Save it as output/sheet.png (PNG)."""
    find_cell = """\
from pathlib import Path

paths = sorted(Path("data/tiles").glob("tile-*.png"){key})
print([path.name for path in paths])
"""
    load_cell = """\
from PIL import Image

tiles = [Image.open(path).convert("RGB") for path in paths]
print({tile.size for tile in tiles})
"""
    paste_cell = """\
sheet = Image.new("RGB", (116, 64), "white")
for i, tile in enumerate(tiles):
    row, column = divmod(i, 4)
    sheet.paste(tile, (4 + column * 28, 4 + row * 20))
sheet.save("output/sheet.png")
"""
    answer = "The contact sheet is in output/sheet.png."
    by_number = ', key=lambda path: int(path.stem.split("-")[1])'
    return Sample(
        id="image-contact-sheet",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=tuple(SampleFile(f"data/tiles/tile-{n}.png", partial(png, tile)) for n, tile in tiles.items()),
        check=_check("output/sheet.png", sheet, columns=29, rows=16),
        reference=Solution((find_cell.format(key=by_number), load_cell, paste_cell), answer),
        # Sorted by name, tile-10 comes before tile-2.
        decoy=Solution((find_cell.format(key=""), load_cell, paste_cell), answer),
    )


def _reverse_animation() -> Sample:
    strip = blank(6 * 32, 32, (40, 60, 90, 255))
    for n in range(6):
        fill(strip, (32 * n + 4 * n, 8, 32 * n + 4 * n + 8, 24), (240, 200 - 30 * n, 40, 255))
    last = crop(strip, (160, 0, 192, 32))
    task = """\
data/strip.png holds the six frames of an animation side by side, 32 x 32 pixels each, the first one on the
left. Make an animated GIF that plays it backwards: it begins with the frame on the right of the strip and
ends with the one on the left. It has exactly six frames of 32 x 32 pixels, shows each for 100 ms and
repeats for ever. Save it as output/backwards.gif."""
    cut_cell = """\
from PIL import Image

strip = Image.open("data/strip.png").convert("RGB")
frames = [strip.crop((left, 0, left + 32, 32)) for left in range(0, strip.width, 32)]
print(len(frames))
"""
    save_cell = """\
first, *others = {frames}
first.save("output/backwards.gif", save_all=True, append_images=others, duration=100, loop=0)
print(Image.open("output/backwards.gif").n_frames)
"""
    answer = "The animation is in output/backwards.gif."
    return Sample(
        id="image-reverse-animation",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/strip.png", partial(png, strip)),),
        check=ImageFile(
            path="output/backwards.gif",
            width=32,
            height=32,
            format="GIF",
            n_frames=6,
            grid_columns=8,
            grid_rows=4,
            grid_rgba=grid_means(last, 8, 4),
        ),
        reference=Solution((cut_cell, save_cell.format(frames="frames[::-1]")), answer),
        decoy=Solution((cut_cell, save_cell.format(frames="frames")), answer),
    )


_BLOB: Colour = (170, 30, 40, 255)
_BLOBS: dict[str, tuple[Box, ...]] = {
    "square": ((52, 30, 74, 50),),
    # A frame is wider and higher than the square, but has fewer pixels.
    "frame": ((4, 4, 44, 7), (4, 4, 7, 44), (41, 4, 44, 44)),
    "bar": ((50, 6, 90, 12),),
    "dots": ((80, 20, 86, 26), (80, 40, 92, 46)),
}


def _largest_blob() -> Sample:
    slide = blank(96, 64, (235, 230, 220, 255))
    for boxes in _BLOBS.values():
        for box in boxes:
            fill(slide, box, _BLOB)
    task = """\
data/slide.png (96 x 64 pixels) shows several stains of exactly the colour (170, 30, 40) on a lighter
ground. Pixels of that colour belong to the same stain if they touch along an edge (a corner is not enough).
Find the stain with the most pixels. Save the smallest rectangle of the picture that holds it as
output/stain.png (PNG), and output/stain.json as {"left": ..., "top": ..., "width": ..., "height": ...,
"n_pixels": ...}: left and top are the column and row of the rectangle's first pixel, counted from 0;
n_pixels is the number of pixels of the stain itself."""
    load_cell = """\
import json
from PIL import Image

slide = Image.open("data/slide.png").convert("RGB")
pixels = slide.load()
todo = {
    (x, y) for x in range(slide.width) for y in range(slide.height) if pixels[x, y] == (170, 30, 40)
}
print(len(todo))
"""
    find_cell = """\
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
"""
    box_cell = """\
def box(stain):
    xs, ys = [x for x, _ in stain], [y for _, y in stain]
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1

def area(stain):
    left, top, right, bottom = box(stain)
    return (right - left) * (bottom - top)

largest = max(stains, key=$MEASURE)
left, top, right, bottom = box(largest)
print(left, top, right, bottom)
"""
    save_cell = """\
slide.crop((left, top, right, bottom)).save("output/stain.png")
facts = {"left": left, "top": top, "width": right - left, "height": bottom - top, "n_pixels": len(largest)}
with open("output/stain.json", "w") as file:
    json.dump(facts, file)
facts
"""
    left, top, right, bottom = _BLOBS["square"][0]
    width, height = right - left, bottom - top
    facts = {"left": left, "top": top, "width": width, "height": height, "n_pixels": width * height}
    cells = (load_cell, find_cell, box_cell.replace("$MEASURE", "len"), save_cell)
    wrong = (load_cell, find_cell, box_cell.replace("$MEASURE", "area"), save_cell)
    answer = "The largest stain is in output/stain.png, its place in output/stain.json."
    return Sample(
        id="image-largest-stain",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/slide.png", partial(png, slide)),),
        check=AllOf(
            checks=[
                JsonFile(path="output/stain.json", value=facts),
                _check("output/stain.png", blank(width, height, _BLOB), columns=1, rows=1),
            ]
        ),
        reference=Solution(cells, answer),
        decoy=Solution(wrong, answer),
    )


def _cut_out_background() -> Sample:
    studio = mosaic("studio", columns=12, rows=12, field=6)
    fill(studio, (0, 0, 72, 18), (255, 0, 255, 255))
    fill(studio, (0, 54, 30, 72), (255, 0, 255, 255))
    fill(studio, (42, 24, 60, 42), (240, 10, 240, 255))
    result = [[CLEAR if colour[:3] == (255, 0, 255) else colour for colour in row] for row in studio]
    task = """\
In data/studio.png the background has exactly the colour (255, 0, 255). Make it transparent: each pixel of
exactly that colour becomes (0, 0, 0, 0) as R, G, B, A. All other pixels, also those of a similar colour,
keep their colour and are opaque (A = 255). Save the result as output/studio.png (PNG with an alpha
channel, the same size)."""
    cut_cell = """\
import numpy as np
from PIL import Image

rgba = np.array(Image.open("data/studio.png").convert("RGBA"))
background = {background}
rgba[background] = (0, 0, 0, 0)
Image.fromarray(rgba).save("output/studio.png")
print(int(background.sum()), "of", background.size, "pixels are transparent")
"""
    exact = "(rgba[..., :3] == (255, 0, 255)).all(axis=2)"
    near = "(abs(rgba[..., :3].astype(int) - (255, 0, 255)) < 32).all(axis=2)"
    answer = "The background is transparent in output/studio.png: {last_line}."
    return Sample(
        id="image-cut-out-background",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/studio.png", partial(png, studio)),),
        check=_check("output/studio.png", result, columns=24, rows=24),
        reference=Solution((cut_cell.format(background=exact),), answer),
        decoy=Solution((cut_cell.format(background=near),), answer),
    )
