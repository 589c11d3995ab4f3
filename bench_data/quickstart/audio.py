"""Audio editing: change the level, mix down, resample, convert; and what `audio_cuts` adds.

The inputs are made of sine tones, so that what a right output sounds like (levels, frequencies, lengths)
follows from the numbers here; the reference solutions get there with `wave` and numpy.
"""

from __future__ import annotations

from functools import partial

from bench_data.quickstart import audio_cuts
from bench_data.quickstart.audio_cuts import READ_CELL
from bench_data.quickstart.media import silence, tone, wav, wav_check
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = audio_cuts.CATEGORY


def samples() -> list[Sample]:
    """Return the samples of this category."""
    return [
        _gain_db(),
        _downmix_mono(),
        _halve_sample_rate(),
        _eight_to_16_bits(),
        *audio_cuts.samples(),
    ]


GAIN_DB = """\
Make data/announcement.wav (mono, 16 bits, 8000 Hz) quieter by 9 dB over its whole length, so that every
part of it has a level (root mean square) 9 dB lower than before. Save the result as output/quieter.wav in
the same format and of the same length."""

_GAIN_DB_REFERENCE = Solution(
    cells=(
        READ_CELL
        + """\

layout, samples = read("data/announcement.wav")
gain = 10 ** (-9 / 20)
write("output/quieter.wav", samples * gain, layout.framerate)
print(gain)
""",
    ),
    answer="The quieter announcement is in output/quieter.wav.",
)


def _gain_db() -> Sample:
    rate = 8000
    loud = [
        *tone(500, 0.4, sample_rate_hz=rate, amplitude=24000),
        *tone(800, 0.4, sample_rate_hz=rate, amplitude=6000),
    ]
    quiet = [value * 10 ** (-9 / 20) for value in loud]
    return Sample(
        id="audio-gain-db",
        category=CATEGORY,
        messages=({"role": "user", "content": GAIN_DB},),
        files=(SampleFile("data/announcement.wav", partial(wav, loud, sample_rate_hz=rate)),),
        check=wav_check(
            "output/quieter.wav", quiet, rate=rate, stretches=((0.05, 0.35, 500), (0.45, 0.75, 800))
        ),
        reference=_GAIN_DB_REFERENCE,
        # That is the ratio of powers, not of amplitudes.
        decoy=with_mistake(_GAIN_DB_REFERENCE, "10 ** (-9 / 20)", "10 ** (-9 / 10)"),
    )


DOWNMIX_MONO = """\
data/interview.wav is stereo (16 bits, 16000 Hz): the guest is on the left channel, the host on the right.
Mix it down to mono: each sample is the mean of the left and the right sample. Save it as output/mono.wav
(mono, 16 bits, 16000 Hz, the same length)."""

_DOWNMIX_MONO_REFERENCE = Solution(
    cells=(
        READ_CELL
        + """\

layout, samples = read("data/interview.wav")
print(layout, samples.shape)
""",
        """\
mono = samples.mean(axis=1, keepdims=True)
write("output/mono.wav", mono, layout.framerate)
print(mono.shape)
""",
    ),
    answer="The mono version is in output/mono.wav.",
)


def _downmix_mono() -> Sample:
    rate = 16000
    pause = silence(0.4, sample_rate_hz=rate)
    left = [*tone(300, 0.4, sample_rate_hz=rate, amplitude=16000), *pause]
    right = [*pause, *tone(1100, 0.4, sample_rate_hz=rate, amplitude=10000)]
    mono = [(a + b) / 2 for a, b in zip(left, right, strict=True)]
    return Sample(
        id="audio-downmix-mono",
        category=CATEGORY,
        messages=({"role": "user", "content": DOWNMIX_MONO},),
        files=(SampleFile("data/interview.wav", partial(wav, left, right, sample_rate_hz=rate)),),
        check=wav_check(
            "output/mono.wav", mono, rate=rate, stretches=((0.05, 0.35, 300), (0.45, 0.75, 1100))
        ),
        reference=_DOWNMIX_MONO_REFERENCE,
        # The left channel alone: the host is gone.
        decoy=with_mistake(_DOWNMIX_MONO_REFERENCE, "samples.mean(axis=1, keepdims=True)", "samples[:, :1]"),
    )


HALVE_SAMPLE_RATE = """\
Convert data/melody.wav (mono, 16 bits, 16000 Hz, 1 s long) to a sample rate of 8000 Hz. It must sound as
before: the same length, pitch and level. (It holds nothing above 1000 Hz, so the simplest way of dropping
samples is good enough.) Save it as output/melody.wav (mono, 16 bits, 8000 Hz)."""

_HALVE_SAMPLE_RATE_REFERENCE = Solution(
    cells=(
        READ_CELL
        + """\

layout, samples = read("data/melody.wav")
print(layout)
""",
        """\
resampled = samples[::2]
write("output/melody.wav", resampled, 8000)
print(len(resampled) / 8000, "s")
""",
    ),
    answer="The melody at 8000 Hz is in output/melody.wav.",
)


def _halve_sample_rate() -> Sample:
    rate = 16000
    melody = [
        *tone(400, 0.5, sample_rate_hz=rate, amplitude=14000),
        *tone(600, 0.5, sample_rate_hz=rate, amplitude=14000),
    ]
    halved = melody[::2]
    return Sample(
        id="audio-halve-sample-rate",
        category=CATEGORY,
        messages=({"role": "user", "content": HALVE_SAMPLE_RATE},),
        files=(SampleFile("data/melody.wav", partial(wav, melody, sample_rate_hz=rate)),),
        check=wav_check("output/melody.wav", halved, rate=8000, stretches=((0.1, 0.4, 400), (0.6, 0.9, 600))),
        reference=_HALVE_SAMPLE_RATE_REFERENCE,
        # Only the header says 8000 Hz: twice as long, an octave too low.
        decoy=with_mistake(_HALVE_SAMPLE_RATE_REFERENCE, "resampled = samples[::2]", "resampled = samples"),
    )


EIGHT_TO_16_BITS = """\
data/ring.wav is an old recording with 8 bits a sample (mono, 8000 Hz). In WAV files, samples of 8 bits are
unsigned and 128 stands for silence. Convert it to 16 bits (signed, mono, 8000 Hz) at the same level: each
sample becomes (value - 128) * 256. Save it as output/ring.wav."""

_EIGHT_TO_16_BITS_REFERENCE = Solution(
    cells=(
        """\
import wave
import numpy as np

with wave.open("data/ring.wav", "rb") as file:
    layout = file.getparams()
    values = np.frombuffer(file.readframes(layout.nframes), dtype=np.uint8).astype(int) - 128
wide = (values * 256).astype("<i2")
with wave.open("output/ring.wav", "wb") as file:
    file.setparams(layout._replace(sampwidth=2))
    file.writeframes(wide.tobytes())
print(layout, wide.min(), wide.max())
""",
    ),
    answer="The recording with 16 bits is in output/ring.wav.",
)


def _eight_to_16_bits() -> Sample:
    rate = 8000
    ring = [
        *tone(440, 0.3, sample_rate_hz=rate, amplitude=20000),
        *silence(0.2, sample_rate_hz=rate),
        *tone(880, 0.3, sample_rate_hz=rate, amplitude=10000),
    ]
    heard = [value // 256 * 256 for value in ring]
    return Sample(
        id="audio-8-to-16-bits",
        category=CATEGORY,
        messages=({"role": "user", "content": EIGHT_TO_16_BITS},),
        files=(SampleFile("data/ring.wav", partial(wav, ring, sample_rate_hz=rate, sample_width_bytes=1)),),
        check=wav_check(
            "output/ring.wav",
            heard,
            rate=rate,
            stretches=((0.05, 0.25, 440), (0.32, 0.48, 0), (0.55, 0.75, 880)),
        ),
        reference=_EIGHT_TO_16_BITS_REFERENCE,
        # Read as signed numbers, every half wave jumps.
        decoy=with_mistake(
            _EIGHT_TO_16_BITS_REFERENCE, "dtype=np.uint8).astype(int) - 128", "dtype=np.int8).astype(int)"
        ),
    )
