"""What PyBench's unit tests look at in a sound, as facts. Runs inside a sandbox: see extract.py."""

from __future__ import annotations

import math
import wave
from pathlib import Path
from typing import Any

GAIN_TAG = "TXXX:replaygain_track_gain"


def read_wav_levels(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the level of a WAV file and of an input, in dB of full scale."""
    return {"level_dbfs": _level_dbfs(path), "reference_dbfs": _level_dbfs(root / request["ref"])}


def _level_dbfs(path: Path) -> float:
    import numpy as np

    with wave.open(str(path), "rb") as sound:
        width_bytes = sound.getsampwidth()
        # A header can claim any length, and that much memory would be taken before a byte is read.
        n_frames = min(sound.getnframes(), path.stat().st_size // (width_bytes * sound.getnchannels()))
        samples = np.frombuffer(sound.readframes(n_frames), dtype=np.int16)
    # Upstream reads every width as if it were 16 bits.
    rms = math.sqrt(float(np.mean((samples / 2 ** (8 * width_bytes - 1)) ** 2)))
    return 20 * math.log10(rms)


def read_mp3s(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return duration and ReplayGain tag of an MP3 file and of an input."""
    duration_s, gain = _mp3(path)
    reference_s, reference_gain = _mp3(root / request["ref"])
    return {
        "duration_s": duration_s,
        "gain": gain,
        "reference_s": reference_s,
        "reference_gain": reference_gain,
    }


def _mp3(path: Path) -> tuple[float, float | None]:
    from mutagen.mp3 import MP3

    sound: Any = MP3(path)
    tag = sound.tags.get(GAIN_TAG) if sound.tags else None
    return float(sound.info.length), float(str(tag.text[0]).split()[0]) if tag else None
