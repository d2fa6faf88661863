"""Clips of sound to hear and to see: a player and a log-mel spectrogram of the recording and of each arm."""

from __future__ import annotations

import io
import wave
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specreg.report.colors import INK
from specreg.report.reading import Array, Images, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLIPS, SECONDS = 3, 5.0  # at most; of a clip, from its start
MOST_BYTES = 6_000_000  # of wav data on a page: fewer clips where there are many arms
BANDS, WINDOW_SECONDS, F_MIN = 80, 0.064, 20.0  # of the spectrograms; Hz
RANGE_DB = 80.0  # shown below the recording's loudest point
PIXELS = 3  # rows of a picture a band
COLORS = "magma"


class Take(NamedTuple):
    """One version of a clip: the recording's or an arm's."""

    title: str
    color: str
    wav: bytes  # 16-bit PCM
    decibels: Array  # [BANDS, frames], log-mel amplitude
    floor: float  # dB shown as darkest; the same in all takes of a clip

    @property
    def pixels(self) -> Images:
        """The spectrogram as uint8 [H, W, 3], low frequencies at the bottom."""
        from matplotlib import colormaps

        level = np.clip((self.decibels[::-1] - self.floor) / RANGE_DB, 0, 1).repeat(PIXELS, 0)
        rgb: Images = (colormaps[COLORS](level)[..., :3] * 255).round().astype(np.uint8)
        return rgb


class Clip(NamedTuple):
    """One clip and its takes, the recording first."""

    name: str
    seconds: float  # as shown
    seed: int
    takes: list[Take]


def clips(study: Study) -> list[Clip]:
    """Return a few clips that every finished arm has at one seed, evenly over the list of names, never selected."""
    cells = {a: {c.seed: c.folder for c in study.of(a) if c.folder and _wavs(c.folder / "samples")} for a in study.arms}
    cells = {arm: by_seed for arm, by_seed in cells.items() if by_seed}
    truth = study.folder / "truth"
    shared = set.intersection(*map(set, cells.values())) if cells else set()
    if not shared:
        return []
    seed = min(shared)
    folders = [(arm.label, arm.color, by_seed[seed] / "samples") for arm, by_seed in cells.items()]
    folders = [("recording", INK, truth), *folders] if _wavs(truth) else folders
    names = sorted(set.intersection(*(set(_wavs(folder)) for _, _, folder in folders)))
    if not names:
        return []
    rate = _read(folders[0][2] / names[0])[1]
    fits = int(MOST_BYTES // (len(folders) * SECONDS * rate * 2))
    chosen = np.linspace(0, len(names) - 1, max(1, min(CLIPS, fits, len(names)))).round().astype(int)
    return [_clip(names[i], folders, seed) for i in dict.fromkeys(chosen.tolist())]


def figure(found: list[Clip]) -> Figure:
    """Return the spectrograms of all clips, one column a clip, one row a take."""
    from matplotlib.figure import Figure

    rows = max(len(clip.takes) for clip in found)
    drawn = Figure(figsize=(3.4 * len(found), 0.4 + 1.5 * rows), layout="constrained")
    axes: Any = drawn.subplots(rows, len(found), squeeze=False)
    for column, clip in enumerate(found):
        for row, take in enumerate(clip.takes):
            ax = axes[row, column]
            ax.imshow(take.pixels, aspect="auto", extent=(0, clip.seconds, 0, BANDS))
            ax.set_yticks([])
            ax.grid(visible=False)
            ax.set_title(take.title if column == 0 else "", size=9, loc="left", color=take.color, parse_math=False)
        axes[-1, column].set_xlabel(f"seconds of {clip.name}", parse_math=False)
    return drawn


def _clip(name: str, folders: list[tuple[str, str, Path]], seed: int) -> Clip:
    found = []
    for title, color, folder in folders:
        samples, rate = _read(folder / name)
        found.append((title, color, _wav(samples, rate), _log_mel(samples / 32768, rate), len(samples) / rate))
    floor = float(found[0][3].max()) - RANGE_DB
    takes = [Take(title, color, wav, decibels, floor) for title, color, wav, decibels, _ in found]
    return Clip(Path(name).stem, found[0][4], seed, takes)


def _wavs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.wav"))


def _read(path: Path) -> tuple[Any, int]:
    """The first seconds of a mono 16-bit wav file, int16 [T], and its rate in Hz."""
    try:
        with wave.open(str(path)) as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, 2):
                raise ValueError(f"{file.getnchannels()} channels of {8 * file.getsampwidth()} bits")
            rate = file.getframerate()
            return np.frombuffer(file.readframes(int(SECONDS * rate)), dtype="<i2"), rate
    except (wave.Error, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a mono 16-bit wav file ({error})") from error


def _wav(samples: Any, rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def _log_mel(sound: Array, rate: int) -> Array:
    """Log-mel amplitude in dB, [BANDS, frames]: Hann windows of 64 ms, a quarter of one apart."""
    window = 2 ** round(np.log2(WINDOW_SECONDS * rate))
    hop = window // 4
    padded = np.pad(sound, (window // 2, window // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    shape = np.hanning(window + 1)[:-1]
    amplitude = np.abs(np.fft.rfft(frames * shape)) / np.sqrt((shape**2).sum())
    decibels: Array = 20 * np.log10(np.maximum(_mel_filters(window, rate) @ amplitude.T, 1e-7))
    return decibels


@lru_cache(maxsize=4)
def _mel_filters(window: int, rate: int) -> Array:
    """Triangles, [BANDS, window / 2 + 1], evenly on the HTK mel scale 2595·log₁₀(1 + f/700)."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(2595 * np.log10(1 + F_MIN / 700), top, BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(window, 1 / rate)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequency - low) / (centre - low), (high - frequency) / (high - centre)
    filters: Array = np.maximum(0, np.minimum(rising, falling))
    return filters
