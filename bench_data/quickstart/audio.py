"""Audio editing: trim and fade, change the level, mix down, resample, join, remove pauses, convert.

The inputs are made of sine tones, so that what a right output sounds like (levels, frequencies, lengths)
follows from the numbers here; the reference solutions get there with `wave` and numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench_data.checks import AllOf, AnswerNumber, AudioFile, AudioSegment
from bench_data.quickstart.inputs import json_bytes
from bench_data.quickstart.media import rms_dbfs, silence, tone, wav
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = "audio editing"


def samples() -> list[Sample]:
    """Return the samples of this category."""
    return [
        _trim_fade(),
        _gain_db(),
        _downmix_mono(),
        _halve_sample_rate(),
        _join_playlist(),
        _remove_pauses(),
        _eight_to_sixteen_bits(),
    ]


Stretch = tuple[float, float, float]
"""From, to (seconds), and the frequency of the tone there in Hz, 0 for silence."""

READ_CELL = """\
import wave
import numpy as np

def read(path):
    with wave.open(path, "rb") as file:
        layout = file.getparams()
        samples = np.frombuffer(file.readframes(layout.nframes), dtype="<i2")
    return layout, samples.reshape(-1, layout.nchannels).astype(float)

def write(path, samples, sample_rate_hz):
    samples = np.clip(np.rint(samples), -32768, 32767).astype("<i2")
    with wave.open(path, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(samples.tobytes())
"""


def _wav(path: str, sound: Sequence[float], *, rate: int, stretches: Sequence[Stretch]) -> AudioFile:
    """Describe the expected output: one channel of 16 bits."""
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


def _trim_fade() -> Sample:
    rate = 8000
    tones = [tone(hz, 0.5, sample_rate_hz=rate, amplitude=12000) for hz in (400, 600, 900, 1300)]
    interview = [value for sound in tones for value in sound]
    excerpt: list[float] = [*tones[1], *tones[2]]
    for i in range(1600):
        excerpt[i] *= i / 1600
        excerpt[len(excerpt) - 1 - i] *= i / 1600
    stretches = ((0.0, 0.1, 600), (0.1, 0.2, 600), (0.25, 0.45, 600), (0.55, 0.75, 900), (0.9, 1.0, 900))
    task = """\
Cut the second from 0.5 s to 1.5 s out of data/interview.wav (mono, 16 bits, 8000 Hz, 2 s long). After
that, let the excerpt fade in over its first 0.2 s and fade out over its last 0.2 s, linearly in amplitude:
the factor goes from 0 at its very beginning to 1 after 0.2 s, and from 1 back to 0 at its very end. Save
the excerpt, exactly 1 s long, as output/excerpt.wav in the same format (mono, 16 bits, 8000 Hz)."""
    cut = "excerpt = samples[rate // 2 : rate * 3 // 2]\n"
    fade = """\
ramp = np.linspace(0, 1, rate // 5, endpoint=False)[:, None]
{name}[: len(ramp)] *= ramp
{name}[-len(ramp) :] *= ramp[::-1]
"""
    load_cell = (
        READ_CELL
        + """
layout, samples = read("data/interview.wav")
rate = layout.framerate
print(layout)
"""
    )
    save_cell = """\
write("output/excerpt.wav", excerpt, rate)
print(len(excerpt) / rate, "s")
"""
    answer = "The excerpt with its fades is in output/excerpt.wav."
    return Sample(
        id="audio-trim-fade",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/interview.wav", partial(wav, interview, sample_rate_hz=rate)),),
        check=_wav("output/excerpt.wav", excerpt, rate=rate, stretches=stretches),
        reference=Solution((load_cell, cut + fade.format(name="excerpt"), save_cell), answer),
        # Faded before it was cut: the fades are cut away.
        decoy=Solution((load_cell, fade.format(name="samples") + cut, save_cell), answer),
    )


def _gain_db() -> Sample:
    rate = 8000
    loud = [
        *tone(500, 0.4, sample_rate_hz=rate, amplitude=24000),
        *tone(800, 0.4, sample_rate_hz=rate, amplitude=6000),
    ]
    quiet = [value * 10 ** (-9 / 20) for value in loud]
    task = """\
Make data/announcement.wav (mono, 16 bits, 8000 Hz) quieter by 9 dB over its whole length, so that every
part of it has a level (root mean square) 9 dB lower than before. Save the result as output/quieter.wav in
the same format and of the same length."""
    cell = (
        READ_CELL
        + """
layout, samples = read("data/announcement.wav")
gain = 10 ** (-9 / {divisor})
write("output/quieter.wav", samples * gain, layout.framerate)
print(gain)
"""
    )
    answer = "The quieter announcement is in output/quieter.wav."
    return Sample(
        id="audio-gain-db",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/announcement.wav", partial(wav, loud, sample_rate_hz=rate)),),
        check=_wav("output/quieter.wav", quiet, rate=rate, stretches=((0.05, 0.35, 500), (0.45, 0.75, 800))),
        reference=Solution((cell.format(divisor=20),), answer),
        # 10 ** (dB / 10) is a ratio of powers, not of amplitudes.
        decoy=Solution((cell.format(divisor=10),), answer),
    )


def _downmix_mono() -> Sample:
    rate = 16000
    pause = silence(0.4, sample_rate_hz=rate)
    left = [*tone(300, 0.4, sample_rate_hz=rate, amplitude=16000), *pause]
    right = [*pause, *tone(1100, 0.4, sample_rate_hz=rate, amplitude=10000)]
    mono = [(a + b) / 2 for a, b in zip(left, right, strict=True)]
    task = """\
data/interview.wav is stereo (16 bits, 16000 Hz): the guest is on the left channel, the host on the right.
Mix it down to mono: each sample is the mean of the left and the right sample. Save it as output/mono.wav
(mono, 16 bits, 16000 Hz, the same length)."""
    load_cell = (
        READ_CELL
        + """
layout, samples = read("data/interview.wav")
print(layout, samples.shape)
"""
    )
    mix_cell = """\
mono = {mix}
write("output/mono.wav", mono, layout.framerate)
print(mono.shape)
"""
    answer = "The mono version is in output/mono.wav."
    return Sample(
        id="audio-downmix-mono",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/interview.wav", partial(wav, left, right, sample_rate_hz=rate)),),
        check=_wav("output/mono.wav", mono, rate=rate, stretches=((0.05, 0.35, 300), (0.45, 0.75, 1100))),
        reference=Solution((load_cell, mix_cell.format(mix="samples.mean(axis=1, keepdims=True)")), answer),
        # The left channel alone: the host is gone.
        decoy=Solution((load_cell, mix_cell.format(mix="samples[:, :1]")), answer),
    )


def _halve_sample_rate() -> Sample:
    rate = 16000
    melody = [
        *tone(400, 0.5, sample_rate_hz=rate, amplitude=14000),
        *tone(600, 0.5, sample_rate_hz=rate, amplitude=14000),
    ]
    halved = melody[::2]
    task = """\
Convert data/melody.wav (mono, 16 bits, 16000 Hz, 1 s long) to a sample rate of 8000 Hz. It must sound as
before: the same length, pitch and level. (It holds nothing above 1000 Hz, so the simplest way of dropping
samples is good enough.) Save it as output/melody.wav (mono, 16 bits, 8000 Hz)."""
    load_cell = (
        READ_CELL
        + """
layout, samples = read("data/melody.wav")
print(layout)
"""
    )
    save_cell = """\
resampled = {resampled}
write("output/melody.wav", resampled, 8000)
print(len(resampled) / 8000, "s")
"""
    answer = "The melody at 8000 Hz is in output/melody.wav."
    return Sample(
        id="audio-halve-sample-rate",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/melody.wav", partial(wav, melody, sample_rate_hz=rate)),),
        check=_wav("output/melody.wav", halved, rate=8000, stretches=((0.1, 0.4, 400), (0.6, 0.9, 600))),
        reference=Solution((load_cell, save_cell.format(resampled="samples[::2]")), answer),
        # Only the header says 8000 Hz: twice as long, an octave too low.
        decoy=Solution((load_cell, save_cell.format(resampled="samples")), answer),
    )


def _join_playlist() -> Sample:
    rate = 8000
    clips = {
        name: tone(hz, 0.3, sample_rate_hz=rate, amplitude=amplitude)
        for name, hz, amplitude in (("a-end", 500, 8000), ("b-start", 700, 12000), ("c-middle", 1000, 16000))
    }
    order = ["b-start.wav", "c-middle.wav", "a-end.wav"]
    pause = silence(0.25, sample_rate_hz=rate)
    joined = [*clips["b-start"], *pause, *clips["c-middle"], *pause, *clips["a-end"]]
    stretches = ((0.0, 0.3, 700), (0.31, 0.54, 0), (0.55, 0.85, 1000), (0.86, 1.09, 0), (1.1, 1.4, 500))
    task = """\
data/playlist.json is a list of file names. Join the WAV files of these names in the folder data/clips
(mono, 16 bits, 8000 Hz) in the order of the list, with 0.25 s of silence between two clips, and none
before the first or after the last. Save the result as output/joined.wav (mono, 16 bits, 8000 Hz). How long
is it? End your final reply with a line `Answer: <seconds>`, with two decimals."""
    load_cell = (
        READ_CELL
        + """
import json
from pathlib import Path

names = {names}
clips = [read(f"data/clips/{{name}}")[1] for name in names]
print({{name: len(clip) for name, clip in zip(names, clips)}})
"""
    )
    join_cell = """\
pause = np.zeros((2000, 1))
parts = [clips[0]]
for clip in clips[1:]:
    parts += [pause, clip]
joined = np.concatenate(parts)
"""
    save_cell = """\
write("output/joined.wav", joined, 8000)
print(f"{len(joined) / 8000:.2f}")
"""
    answer = "The clips are joined in output/joined.wav.\n\nAnswer: {last_line}"
    by_list = 'json.loads(Path("data/playlist.json").read_text())'
    by_name = 'sorted(path.name for path in Path("data/clips").glob("*.wav"))'
    return Sample(
        id="audio-join-playlist",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(
            SampleFile("data/playlist.json", partial(json_bytes, order)),
            *(
                SampleFile(f"data/clips/{name}.wav", partial(wav, clip, sample_rate_hz=rate))
                for name, clip in clips.items()
            ),
        ),
        check=AllOf(
            checks=[
                _wav("output/joined.wav", joined, rate=rate, stretches=stretches),
                AnswerNumber(value=1.4, abs_tol=0.005),
            ]
        ),
        reference=Solution((load_cell.format(names=by_list), join_cell, save_cell), answer),
        decoy=Solution((load_cell.format(names=by_name), join_cell, save_cell), answer),
    )


def _remove_pauses() -> Sample:
    rate = 8000
    short, long = silence(0.1, sample_rate_hz=rate), silence(0.5, sample_rate_hz=rate)
    words = [
        [value + 1000 for value in tone(hz, 0.2, sample_rate_hz=rate, amplitude=9000)]
        for hz in (450, 650, 850, 1050)
    ]
    speech = [*words[0], *short, *words[1], *long, *words[2], *short, *words[3]]
    tightened = [
        *words[0],
        *short,
        *words[1],
        *silence(0.3, sample_rate_hz=rate),
        *words[2],
        *short,
        *words[3],
    ]
    stretches = (
        (0.0, 0.2, 450),
        (0.21, 0.29, 0),
        (0.3, 0.5, 650),
        (0.51, 0.79, 0),
        (0.8, 1.0, 850),
        (1.01, 1.09, 0),
        (1.1, 1.3, 1050),
    )
    task = """\
data/speech.wav (mono, 16 bits, 8000 Hz) holds words with pauses between them. A pause is an unbroken run of
samples that are exactly 0, at least 0.05 s long. Shorten each pause that is longer than 0.3 s to exactly
0.3 s; leave shorter pauses and the words as they are. Save the result as output/tight.wav (mono, 16 bits,
8000 Hz). How many seconds were removed in total? End your final reply with a line `Answer: <seconds>`,
with two decimals."""
    load_cell = (
        READ_CELL
        + """
layout, samples = read("data/speech.wav")
print(layout)
"""
    )
    runs_cell = """\
is_zero = samples[:, 0] == 0
edges = np.flatnonzero(np.diff(is_zero.astype(int), prepend=0, append=0))
pauses = [(start, end) for start, end in edges.reshape(-1, 2).tolist() if end - start >= 400]
print([(start / 8000, end / 8000) for start, end in pauses])
"""
    keep_cell = """\
keep = np.ones(len(samples), dtype=bool)
for start, end in pauses:
    keep[start + $KEPT : end] = False
print(int(keep.sum()))
"""
    save_cell = """\
write("output/tight.wav", samples[keep], 8000)
print(f"{(~keep).sum() / 8000:.2f}")
"""
    answer = "The speech without its long pauses is in output/tight.wav.\n\nAnswer: {last_line}"
    kept, dropped = keep_cell.replace("$KEPT", "2400"), keep_cell.replace("$KEPT", "0")
    return Sample(
        id="audio-shorten-pauses",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/speech.wav", partial(wav, speech, sample_rate_hz=rate)),),
        check=AllOf(
            checks=[
                _wav("output/tight.wav", tightened, rate=rate, stretches=stretches),
                AnswerNumber(value=0.2, abs_tol=0.005),
            ]
        ),
        reference=Solution((load_cell, runs_cell, kept, save_cell), answer),
        # All pauses are removed whole.
        decoy=Solution((load_cell, runs_cell, dropped, save_cell), answer),
    )


def _eight_to_sixteen_bits() -> Sample:
    rate = 8000
    ring = [
        *tone(440, 0.3, sample_rate_hz=rate, amplitude=20000),
        *silence(0.2, sample_rate_hz=rate),
        *tone(880, 0.3, sample_rate_hz=rate, amplitude=10000),
    ]
    heard = [value // 256 * 256 for value in ring]
    task = """\
data/ring.wav is an old recording with 8 bits a sample (mono, 8000 Hz). In WAV files, samples of 8 bits are
unsigned and 128 stands for silence. Convert it to 16 bits (signed, mono, 8000 Hz) at the same level: each
sample becomes (value - 128) * 256. Save it as output/ring.wav."""
    cell = """\
import wave
import numpy as np

with wave.open("data/ring.wav", "rb") as file:
    layout = file.getparams()
    values = np.frombuffer(file.readframes(layout.nframes), dtype=np.{dtype}).astype(int)
wide = ({value} * 256).astype("<i2")
with wave.open("output/ring.wav", "wb") as file:
    file.setparams(layout._replace(sampwidth=2))
    file.writeframes(wide.tobytes())
print(layout, wide.min(), wide.max())
"""
    answer = "The recording with 16 bits is in output/ring.wav."
    return Sample(
        id="audio-8-to-16-bits",
        category=CATEGORY,
        messages=({"role": "user", "content": task},),
        files=(SampleFile("data/ring.wav", partial(wav, ring, sample_rate_hz=rate, sample_width_bytes=1)),),
        check=_wav(
            "output/ring.wav",
            heard,
            rate=rate,
            stretches=((0.05, 0.25, 440), (0.32, 0.48, 0), (0.55, 0.75, 880)),
        ),
        reference=Solution((cell.format(dtype="uint8", value="(values - 128)"),), answer),
        # Read as signed numbers, every half wave jumps.
        decoy=Solution((cell.format(dtype="int8", value="values"),), answer),
    )
