"""Clips of sound to hear and to see: a player and a spectrogram of the recording and of each arm."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specreg._files import said
from specreg.report.colors import INK
from specreg.report.contents import Array, Images, RunFiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLIPS, SECONDS = 3, 5.0  # at most; of a clip, from its start
MOST_BYTES = 6_000_000  # of wav data on a page: fewer clips where there are many arms
BANDS, WINDOW_SECONDS, F_MIN = 96, 0.064, 60.0  # of the spectrograms; Hz
RANGE_DB = 80.0  # shown below the recording's loudest point
PIXELS = 3  # rows of a picture a band
COLORS = "magma"


class Take(NamedTuple):
    """One version of a clip: the recording's or an arm's."""

    title: str
    color: str
    wav: bytes  # 16-bit PCM
    decibels: Array  # [BANDS, frames]
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


def clips(files: RunFiles) -> list[Clip]:
    """Return a few clips that every finished arm has at one seed, evenly over the list of names, never selected."""
    cells = {a: {c.seed: c.folder for c in files.of(a) if c.folder and _wavs(c.folder / "samples")} for a in files.arms}
    cells = {arm: by_seed for arm, by_seed in cells.items() if by_seed}
    truth = next((truth.folder for truth in files.truths if truth.folder and _wavs(truth.folder)), None)
    shared = set.intersection(*map(set, cells.values())) if cells else set()
    if not shared:
        return []
    seed = min(shared)
    folders = [(arm.label, arm.color, by_seed[seed] / "samples") for arm, by_seed in cells.items()]
    folders = [("recording", INK, truth), *folders] if truth else folders
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
        found.append((title, color, _wav(samples, rate), _log_spectrogram(samples / 32768, rate), len(samples) / rate))
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
        raise ValueError(f"{path}: expected a mono 16-bit wav file ({said(error)})") from error


def _wav(samples: Any, rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def _log_spectrogram(sound: Array, rate: int) -> Array:
    """Return amplitude by logarithmic band in dB, [BANDS, frames]: Hann windows of 64 ms, three quarters overlap."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    window = 2 ** round(np.log2(WINDOW_SECONDS * rate))
    shape = hann(window, sym=False)
    transform = ShortTimeFFT(shape / np.sqrt((shape**2).sum()), hop=window // 4, fs=rate)
    amplitude = np.abs(transform.stft(np.pad(sound, (0, max(0, window - len(sound))))))
    decibels: Array = 20 * np.log10(np.maximum(_bands(transform.f, rate) @ amplitude, 1e-7))
    return decibels


def _bands(frequency: Array, rate: int) -> Array:
    """Return weights [BANDS, F] that average the bins of each of BANDS bands, evenly wide on a logarithmic axis."""
    edges = np.geomspace(F_MIN, rate / 2, BANDS + 1)
    centre = np.sqrt(edges[1:] * edges[:-1])
    inside = (frequency >= edges[:-1, None]) & (frequency < edges[1:, None])
    nearest = np.abs(frequency - centre[:, None]).argmin(1)  # low bands are narrower than a bin
    inside[np.arange(BANDS), nearest] |= ~inside.any(1)
    weights: Array = inside / inside.sum(1, keepdims=True)
    return weights
