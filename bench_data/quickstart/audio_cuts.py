"""Audio editing along the time axis: trim and fade, join, shorten pauses."""

from __future__ import annotations

from functools import partial

from bench_data.checks import AllOf, AnswerNumber
from bench_data.quickstart.inputs import json_bytes
from bench_data.quickstart.media import silence, tone, wav, wav_check
from bench_data.quickstart.solutions import with_mistake
from bench_data.sample import Sample, SampleFile, Solution

CATEGORY = "audio editing"

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


def samples() -> list[Sample]:
    """Return these samples."""
    return [
        _trim_fade(),
        _join_playlist(),
        _shorten_pauses(),
    ]


TRIM_FADE = """\
Cut the second from 0.5 s to 1.5 s out of data/interview.wav (mono, 16 bits, 8000 Hz, 2 s long). After
that, let the excerpt fade in over its first 0.2 s and fade out over its last 0.2 s, linearly in amplitude:
the factor goes from 0 at its very beginning to 1 after 0.2 s, and from 1 back to 0 at its very end. Save
the excerpt, exactly 1 s long, as output/excerpt.wav in the same format (mono, 16 bits, 8000 Hz)."""

_TRIM_FADE_REFERENCE = Solution(
    cells=(
        READ_CELL
        + """\

layout, samples = read("data/interview.wav")
rate = layout.framerate
print(layout)
""",
        """\
excerpt = samples[rate // 2 : rate * 3 // 2]
ramp = np.linspace(0, 1, rate // 5, endpoint=False)[:, None]
excerpt[: len(ramp)] *= ramp
excerpt[-len(ramp) :] *= ramp[::-1]
""",
        """\
write("output/excerpt.wav", excerpt, rate)
print(len(excerpt) / rate, "s")
""",
    ),
    answer="The excerpt with its fades is in output/excerpt.wav.",
)


def _trim_fade() -> Sample:
    rate = 8000
    parts = ((400, 12000), (600, 6000), (900, 14000), (1300, 8000))
    tones = [tone(hz, 0.5, sample_rate_hz=rate, amplitude=amplitude) for hz, amplitude in parts]
    interview = [value for sound in tones for value in sound]
    excerpt: list[float] = [*tones[1], *tones[2]]
    for i in range(1600):
        excerpt[i] *= i / 1600
        excerpt[len(excerpt) - 1 - i] *= i / 1600
    # The two in the middle end and begin where the tone changes: they tell a cut at another time.
    stretches = (
        (0.0, 0.1, 600),
        (0.1, 0.2, 600),
        (0.4, 0.495, 600),
        (0.505, 0.6, 900),
        (0.8, 0.9, 900),
        (0.9, 1.0, 900),
    )
    return Sample(
        id="audio-trim-fade",
        category=CATEGORY,
        messages=({"role": "user", "content": TRIM_FADE},),
        files=(SampleFile("data/interview.wav", partial(wav, interview, sample_rate_hz=rate)),),
        check=wav_check("output/excerpt.wav", excerpt, rate=rate, stretches=stretches),
        reference=_TRIM_FADE_REFERENCE,
        # Fades in once more where it should fade out.
        decoy=with_mistake(_TRIM_FADE_REFERENCE, "*= ramp[::-1]", "*= ramp"),
    )


JOIN_PLAYLIST = """\
data/playlist.json is a list of file names. Join the WAV files of these names in the folder data/clips
(mono, 16 bits, 8000 Hz) in the order of the list, with 0.25 s of silence between two clips, and none
before the first or after the last. Save the result as output/joined.wav (mono, 16 bits, 8000 Hz). How long
is it? End your final reply with a line `Answer: <seconds>`, with two decimals."""

_JOIN_PLAYLIST_REFERENCE = Solution(
    cells=(
        READ_CELL
        + """\

import json
from pathlib import Path

names = json.loads(Path("data/playlist.json").read_text())
clips = [read(f"data/clips/{name}")[1] for name in names]
print({name: len(clip) for name, clip in zip(names, clips)})
""",
        """\
pause = np.zeros((2000, 1))
parts = [clips[0]]
for clip in clips[1:]:
    parts += [pause, clip]
joined = np.concatenate(parts)
""",
        """\
write("output/joined.wav", joined, 8000)
print(f"{len(joined) / 8000:.2f}")
""",
    ),
    answer="The clips are joined in output/joined.wav.\n\nAnswer: {last_line}",
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
    return Sample(
        id="audio-join-playlist",
        category=CATEGORY,
        messages=({"role": "user", "content": JOIN_PLAYLIST},),
        files=(
            SampleFile("data/playlist.json", partial(json_bytes, order)),
            *(
                SampleFile(f"data/clips/{name}.wav", partial(wav, clip, sample_rate_hz=rate))
                for name, clip in clips.items()
            ),
        ),
        check=AllOf(
            checks=[
                wav_check("output/joined.wav", joined, rate=rate, stretches=stretches),
                AnswerNumber(value=1.4, abs_tol=0.005),
            ]
        ),
        reference=_JOIN_PLAYLIST_REFERENCE,
        decoy=with_mistake(
            _JOIN_PLAYLIST_REFERENCE,
            'json.loads(Path("data/playlist.json").read_text())',
            'sorted(path.name for path in Path("data/clips").glob("*.wav"))',
        ),
    )


SHORTEN_PAUSES = """\
data/speech.wav (mono, 16 bits, 8000 Hz) holds words with pauses between them. A pause is an unbroken run of
samples that are exactly 0, at least 0.05 s long. Shorten each pause that is longer than 0.3 s to exactly
0.3 s; leave shorter pauses and the words as they are. Save the result as output/tight.wav (mono, 16 bits,
8000 Hz). How many seconds were removed in total? End your final reply with a line `Answer: <seconds>`,
with two decimals."""

_SHORTEN_PAUSES_REFERENCE = Solution(
    cells=(
        READ_CELL
        + """\

layout, samples = read("data/speech.wav")
print(layout)
""",
        """\
is_zero = samples[:, 0] == 0
edges = np.flatnonzero(np.diff(is_zero.astype(int), prepend=0, append=0))
pauses = [(start, end) for start, end in edges.reshape(-1, 2).tolist() if end - start >= 400]
print([(start / 8000, end / 8000) for start, end in pauses])
""",
        """\
keep = np.ones(len(samples), dtype=bool)
for start, end in pauses:
    keep[start + 2400 : end] = False
print(int(keep.sum()))
""",
        """\
write("output/tight.wav", samples[keep], 8000)
print(f"{(~keep).sum() / 8000:.2f}")
""",
    ),
    answer="The speech without its long pauses is in output/tight.wav.\n\nAnswer: {last_line}",
)


def _shorten_pauses() -> Sample:
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
    return Sample(
        id="audio-shorten-pauses",
        category=CATEGORY,
        messages=({"role": "user", "content": SHORTEN_PAUSES},),
        files=(SampleFile("data/speech.wav", partial(wav, speech, sample_rate_hz=rate)),),
        check=AllOf(
            checks=[
                wav_check("output/tight.wav", tightened, rate=rate, stretches=stretches),
                AnswerNumber(value=0.2, abs_tol=0.005),
            ]
        ),
        reference=_SHORTEN_PAUSES_REFERENCE,
        # Long and short, all pauses go.
        decoy=with_mistake(_SHORTEN_PAUSES_REFERENCE, "keep[start + 2400 : end]", "keep[start:end]"),
    )
