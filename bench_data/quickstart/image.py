"""Image editing: turn, cut, threshold, blend, make transparent.

What a right picture looks like is worked out here, pixel by pixel, from the numbers that made the input;
the reference solutions get there with Pillow or numpy.
"""

from __future__ import annotations

from functools import partial

from bench_data.checks import AllOf, AnswerNumber
from bench_data.quickstart import image_layout
from bench_data.quickstart.media import (
    BLACK,
    CLEAR,
    WHITE,
    Colour,
    crop,
    fill,
    mosaic,
    png,
    png_check,
)
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = image_layout.CATEGORY


def samples() -> list[Sample]:
    """Return the samples of this category."""
    return [
        _rotate_label(),
        _crop_enlarge(),
        _threshold_scan(),
        _watermark_blend(),
        _cut_out_background(),
        *image_layout.samples(),
    ]


ROTATE_LABEL = """\
data/label.png is a photo of a label that was taken with the camera lying on its side. Turn it 90 degrees
clockwise, as the viewer sees it: the edge that is on the left now is at the top afterwards, and the black
bar that is at the top now is on the right. Keep every pixel as it is (no resampling, no margin), so that
the width and the height change places. Save the result as output/label.png (PNG)."""

_ROTATE_LABEL_REFERENCE = Solution(
    cells=(
        """\
from PIL import Image

label = Image.open("data/label.png")
turned = label.transpose(Image.Transpose.ROTATE_270)
turned.save("output/label.png")
print(label.size, "->", turned.size)
""",
    ),
    answer="The label is upright in output/label.png.",
)


def _rotate_label() -> Sample:
    label = mosaic("label", columns=12, rows=8, field=8)
    fill(label, (0, 0, 96, 8), BLACK)
    turned = [list(column) for column in zip(*reversed(label), strict=True)]
    return Sample(
        id="image-rotate-label",
        category=CATEGORY,
        messages=({"role": "user", "content": ROTATE_LABEL},),
        files=(SampleFile("data/label.png", partial(png, label)),),
        check=png_check("output/label.png", turned, columns=16, rows=24),
        reference=_ROTATE_LABEL_REFERENCE,
        # Pillow counts angles counter-clockwise.
        decoy=with_mistake(_ROTATE_LABEL_REFERENCE, "ROTATE_270", "ROTATE_90"),
    )


CROP_ENLARGE = """\
Cut a rectangle out of data/scene.png (120 x 80 pixels): its left edge is 36 pixels from the left edge of
the picture, its top edge 20 pixels from the top; it is 48 pixels wide and 28 pixels high. Enlarge the
cut-out to three times its width and height without smoothing: each pixel becomes a square of 3 x 3 equal
pixels. Save it as output/detail.png (PNG)."""

_CROP_ENLARGE_REFERENCE = Solution(
    cells=(
        """\
from PIL import Image

scene = Image.open("data/scene.png").convert("RGB")
detail = scene.crop((36, 20, 36 + 48, 20 + 28))
print(scene.size, detail.size)
""",
        """\
enlarged = detail.resize((detail.width * 3, detail.height * 3), Image.Resampling.NEAREST)
enlarged.save("output/detail.png")
print(enlarged.size)
""",
    ),
    answer="The detail, three times as large, is in output/detail.png.",
)


def _crop_enlarge() -> Sample:
    scene = mosaic("scene", columns=30, rows=20, field=4)
    left, top, width, height, scale = 36, 20, 48, 28, 3
    cut = crop(scene, (left, top, left + width, top + height))
    enlarged = [[colour for colour in row for _ in range(scale)] for row in cut for _ in range(scale)]
    return Sample(
        id="image-crop-enlarge",
        category=CATEGORY,
        messages=({"role": "user", "content": CROP_ENLARGE},),
        files=(SampleFile("data/scene.png", partial(png, scene)),),
        check=png_check("output/detail.png", enlarged, columns=24, rows=14),
        reference=_CROP_ENLARGE_REFERENCE,
        # Takes the corner for the centre of the rectangle.
        decoy=with_mistake(
            _CROP_ENLARGE_REFERENCE, "(36, 20, 36 + 48, 20 + 28)", "(36 - 24, 20 - 14, 36 + 24, 20 + 14)"
        ),
    )


THRESHOLD_SCAN = """\
Make a black and white picture of data/scan.png. The brightness of a pixel is
L = 0.299 * R + 0.587 * G + 0.114 * B, not rounded. Where L is at least 128 the result is white
(255, 255, 255), elsewhere it is black (0, 0, 0). Save it as output/scan-bw.png (PNG, the same width and
height). How many pixels are white? End your final reply with a line `Answer: <number>`."""

_THRESHOLD_SCAN_REFERENCE = Solution(
    cells=(
        """\
import numpy as np
from PIL import Image

rgb = np.asarray(Image.open("data/scan.png").convert("RGB"), dtype=float)
brightness = rgb @ np.array([0.299, 0.587, 0.114])
print(brightness.shape, brightness.min(), brightness.max())
""",
        """\
white = brightness >= 128
Image.fromarray(np.where(white, 255, 0).astype(np.uint8)).save("output/scan-bw.png")
print(int(white.sum()))
""",
    ),
    answer="The picture is in output/scan-bw.png.\n\nAnswer: {last_line}",
)


def _threshold_scan() -> Sample:
    scan = mosaic("scan", columns=24, rows=16, field=4)
    for y, row in enumerate(scan):
        scan[y] = [_away_from_middle(colour) for colour in row]
    result = [[WHITE if _luma(colour) >= 128 else BLACK for colour in row] for row in scan]
    n_white = sum(row.count(WHITE) for row in result)
    return Sample(
        id="image-threshold-scan",
        category=CATEGORY,
        messages=({"role": "user", "content": THRESHOLD_SCAN},),
        files=(SampleFile("data/scan.png", partial(png, scan)),),
        check=AllOf(
            checks=[
                png_check("output/scan-bw.png", result, columns=24, rows=16),
                AnswerNumber(value=n_white),
            ]
        ),
        reference=_THRESHOLD_SCAN_REFERENCE,
        decoy=with_mistake(
            _THRESHOLD_SCAN_REFERENCE, "rgb @ np.array([0.299, 0.587, 0.114])", "rgb.mean(axis=2)"
        ),
    )


def _luma(colour: Colour) -> float:
    red, green, blue, _ = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _away_from_middle(colour: Colour) -> Colour:
    """Darken a colour whose brightness is so near 128 that rounding would decide."""
    red, green, blue, alpha = colour
    return (red // 2, green // 2, blue // 2, alpha) if abs(_luma(colour) - 128) < 3 else colour


WATERMARK_BLEND = """\
Put the logo data/logo.png (32 x 16 pixels, RGBA) on the photo data/photo.png (120 x 80 pixels, RGB) as a
watermark: 8 pixels stay free between its right edge and the right edge of the photo, and 4 pixels between
its bottom edge and the bottom edge of the photo. Respect the logo's own transparency: with its alpha a
(0 to 255), each channel of the result is logo * a / 255 + photo * (1 - a / 255), rounded to the nearest
integer. Save the result, opaque, with the photo's size, as output/marked.png (PNG)."""

_WATERMARK_BLEND_REFERENCE = Solution(
    cells=(
        """\
from PIL import Image

photo = Image.open("data/photo.png").convert("RGB")
logo = Image.open("data/logo.png")
print(photo.size, logo.size, logo.mode, logo.getchannel("A").getextrema())
""",
        """\
position = (photo.width - logo.width - 8, photo.height - logo.height - 4)
photo.paste(logo, position, mask=logo)
photo.save("output/marked.png")
print("logo at", position)
""",
    ),
    answer="The photo with its watermark is in output/marked.png.",
)


def _watermark_blend() -> Sample:
    photo = mosaic("photo", columns=15, rows=10, field=8)
    logo = [[(250, 240, 30 + 4 * y, min(255, 9 * x)) for x in range(32)] for y in range(16)]
    left, top = 120 - 32 - 8, 80 - 16 - 4
    blended = [list(row) for row in photo]
    for y, row in enumerate(logo):
        for x, over in enumerate(row):
            blended[top + y][left + x] = _over(over, photo[top + y][left + x])
    return Sample(
        id="image-watermark-blend",
        category=CATEGORY,
        messages=({"role": "user", "content": WATERMARK_BLEND},),
        files=(
            SampleFile("data/photo.png", partial(png, photo)),
            SampleFile("data/logo.png", partial(png, logo)),
        ),
        check=png_check("output/marked.png", blended, columns=30, rows=20),
        reference=_WATERMARK_BLEND_REFERENCE,
        # Without a mask the logo loses its transparency.
        decoy=with_mistake(
            _WATERMARK_BLEND_REFERENCE, "logo, position, mask=logo", 'logo.convert("RGB"), position'
        ),
    )


def _over(over: Colour, under: Colour) -> Colour:
    share = over[3] / 255
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(over[:3], under[:3], strict=True))
    return (red, green, blue, 255)


CUT_OUT_BACKGROUND = """\
In data/studio.png the background has exactly the colour (255, 0, 255). Make it transparent: each pixel of
exactly that colour becomes (0, 0, 0, 0) as R, G, B, A. All other pixels, also those of a similar colour,
keep their colour and are opaque (A = 255). Save the result as output/studio.png (PNG with an alpha
channel, the same size)."""

_CUT_OUT_BACKGROUND_REFERENCE = Solution(
    cells=(
        """\
import numpy as np
from PIL import Image

rgba = np.array(Image.open("data/studio.png").convert("RGBA"))
background = (rgba[..., :3] == (255, 0, 255)).all(axis=2)
rgba[background] = (0, 0, 0, 0)
Image.fromarray(rgba).save("output/studio.png")
print(int(background.sum()), "of", background.size, "pixels are transparent")
""",
    ),
    answer="The background is transparent in output/studio.png: {last_line}.",
)


def _cut_out_background() -> Sample:
    studio = mosaic("studio", columns=12, rows=12, field=6)
    fill(studio, (0, 0, 72, 18), (255, 0, 255, 255))
    fill(studio, (0, 54, 30, 72), (255, 0, 255, 255))
    fill(studio, (42, 24, 60, 42), (240, 10, 240, 255))
    result = [[CLEAR if colour[:3] == (255, 0, 255) else colour for colour in row] for row in studio]
    return Sample(
        id="image-cut-out-background",
        category=CATEGORY,
        messages=({"role": "user", "content": CUT_OUT_BACKGROUND},),
        files=(SampleFile("data/studio.png", partial(png, studio)),),
        check=png_check("output/studio.png", result, columns=24, rows=24),
        reference=_CUT_OUT_BACKGROUND_REFERENCE,
        # Cuts out a similar colour as well.
        decoy=with_mistake(
            _CUT_OUT_BACKGROUND_REFERENCE,
            "(rgba[..., :3] == (255, 0, 255)).all(axis=2)",
            "(abs(rgba[..., :3].astype(int) - (255, 0, 255)) < 32).all(axis=2)",
        ),
    )
