from __future__ import annotations

import hashlib
import io
import math
import wave

import numpy as np
import pytest
from PIL import Image

from bench_data.quickstart import media

RATE_HZ = 8000


def pixels_of(content: bytes) -> np.ndarray:
    """Decode a picture with Pillow."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGBA"))


def test_pillow_reads_back_the_pixels_of_an_opaque_picture() -> None:
    """What png() writes is RGB and holds the same pixels, also when it takes several stored blocks."""
    picture = media.mosaic("wide", columns=20, rows=12, field=16)
    content = media.png(picture)
    assert len(content) > 2 * 65_535
    assert Image.open(io.BytesIO(content)).mode == "RGB"
    assert pixels_of(content).tolist() == [[list(colour) for colour in row] for row in picture]


def test_pillow_reads_back_transparency() -> None:
    """A picture that is not all opaque is written as RGBA."""
    picture = media.blank(3, 2, (10, 20, 30, 255))
    media.fill(picture, (1, 0, 2, 2), (40, 50, 60, 7))
    assert pixels_of(media.png(picture))[1].tolist() == [
        [10, 20, 30, 255],
        [40, 50, 60, 7],
        [10, 20, 30, 255],
    ]


def test_paste_and_crop_are_inverse() -> None:
    """A picture that was pasted into a larger one can be cut out of it again."""
    tile = media.mosaic("tile", columns=2, rows=3, field=2)
    sheet = media.blank(20, 20)
    media.paste(sheet, tile, 5, 7)
    assert media.crop(sheet, (5, 7, 9, 13)) == tile
    assert {colour for row in media.crop(sheet, (9, 0, 20, 20)) for colour in row} == {media.WHITE}


def test_grid_means_are_those_of_numpy() -> None:
    """The mean colours go row by row and agree with another library's arithmetic."""
    picture = media.mosaic("means", columns=6, rows=4, field=3)
    expected = np.asarray(picture, dtype=float).reshape(4, 3, 3, 6, 4).mean(axis=(1, 3)).reshape(-1, 4)
    assert np.allclose(media.grid_means(picture, 3, 4), expected)


def test_a_grid_that_does_not_divide_the_picture_is_refused() -> None:
    """Where fields would have to be rounded, no expectation is made up."""
    with pytest.raises(ValueError, match="5x2 does not divide a picture of 12x8"):
        media.grid_means(media.blank(12, 8), 5, 2)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_the_wave_module_reads_back_sixteen_bits(n_channels: int) -> None:
    """Rate, channels, width and samples survive, channels interleaved."""
    channels = [[0, 1, -2, 32767, -32768], [5, -5, 6, -6, 7]][:n_channels]
    with wave.open(io.BytesIO(media.wav(*channels, sample_rate_hz=RATE_HZ))) as file:
        layout = file.getparams()
        samples = np.frombuffer(file.readframes(5), "<i2").reshape(-1, n_channels)
    assert (layout.nchannels, layout.sampwidth, layout.framerate) == (n_channels, 2, RATE_HZ)
    assert samples.T.tolist() == channels


def test_eight_bits_are_unsigned_around_128() -> None:
    """Silence is 128; the extremes are 255 and 0."""
    content = media.wav([0, 32767, -32768, 255], sample_rate_hz=RATE_HZ, sample_width_bytes=1)
    with wave.open(io.BytesIO(content)) as file:
        assert file.getsampwidth() == 1
        assert list(file.readframes(4)) == [128, 255, 0, 128]


def test_the_level_of_a_sine_is_three_decibels_below_its_amplitude() -> None:
    """A tone has the duration, the frequency and the root mean square that were asked for."""
    sound = media.tone(500, 0.5, sample_rate_hz=RATE_HZ, amplitude=16384)
    assert len(sound) == RATE_HZ // 2
    assert media.rms_dbfs(sound) == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.001)
    assert np.argmax(np.abs(np.fft.rfft(sound))) * 2 == 500


def test_the_level_of_zeros_is_that_of_silence() -> None:
    """No logarithm of zero is taken."""
    assert media.rms_dbfs(media.silence(0.1, sample_rate_hz=RATE_HZ)) == media.SILENCE_DBFS


def test_an_odd_amplitude_is_refused() -> None:
    """Half an odd number lies between two integers, where machines may round differently."""
    with pytest.raises(ValueError, match="amplitude 9001 is odd"):
        media.tone(440, 0.1, sample_rate_hz=RATE_HZ, amplitude=9001)


@pytest.mark.parametrize(
    ("content", "sha256"),
    [
        (
            media.png(media.mosaic("label", columns=12, rows=8, field=8)),
            "4c238e3f9dd97dfb0d32bb6fc3602757c415624949cd0b5397d3ae39c1ef0347",
        ),
        (
            media.wav(media.tone(440, 0.5, sample_rate_hz=RATE_HZ, amplitude=12000), sample_rate_hz=RATE_HZ),
            "aa421e488f563be1ad4da6ea78f5afce16a56083f1fdd2e09bc5c8856e069320",
        ),
    ],
    ids=["png", "wav"],
)
def test_files_are_the_same_everywhere(content: bytes, sha256: str) -> None:
    """The bytes depend on no library's version: they are those that were there when this was written."""
    assert hashlib.sha256(content).hexdigest() == sha256


def test_the_check_of_a_sound_says_what_is_in_it() -> None:
    """Format, duration, levels and frequencies follow from the samples; silence has no frequency."""
    sound = [
        *media.tone(400, 0.2, sample_rate_hz=RATE_HZ, amplitude=32000),
        *media.silence(0.1, sample_rate_hz=RATE_HZ),
    ]
    check = media.wav_check("output/x.wav", sound, rate=RATE_HZ, stretches=((0.0, 0.2, 400), (0.2, 0.3, 0)))
    assert (check.sample_rate_hz, check.n_channels, check.sample_width_bytes) == (RATE_HZ, 1, 2)
    assert check.duration_s == pytest.approx(0.3)
    loud, silent = check.segments
    assert loud.rms_dbfs == pytest.approx(-3.2, abs=0.05)
    assert (loud.dominant_hz, silent.rms_dbfs, silent.dominant_hz) == (400, media.SILENCE_DBFS, None)
