"""Data set of sound clips with their log-mel spectrograms, whole or as random crops, for vocoders."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from specreg._checks import choice
from specreg._files import whole_file
from specreg.data.audio_files import (
    UNSCALED,
    Header,
    decoder_versions,
    read_header,
    read_mono,
    read_peak,
    resampled_length,
)
from specreg.data.audio_listing import LJSPEECH_HELD_OUT, Listing, Part, list_audio, select
from specreg.data.mel import MelSettings, log_mel

Short = Literal["pad", "skip"]
Verify = Literal["header", "decode"]

logger = logging.getLogger(__name__)


@lru_cache(maxsize=256)
def _say(notice: str) -> None:
    """Log a notice once per process: the runs of a comparison read the same folder many times."""
    logger.warning("%s", notice)


NAMED = 20  # files that one line of the log names; the report names all
CACHE_FORMAT = 3
"""Part of the name of every cached file: raised when decoding, padding or the spectrogram computes other values."""


class AudioClip(NamedTuple):
    """A clip or crop of sound with its mel spectrogram."""

    audio: Tensor  # [1, T], float32 in [-1, 1]
    mel: Tensor  # [n_mels, frames], float32 in [0, 1]
    start: int  # its first sample, counted in the whole clip
    name: str  # file of the clip


@dataclass
class AudioReport:
    """What happened to every file of a part: `files == clips + len(damaged) + len(skipped_short)`."""

    files: int = 0
    clips: int = 0
    seconds: float = 0.0
    """Total duration of the clips, before padding."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Files left out because they cannot be read, with the reason."""
    skipped_short: list[str] = field(default_factory=list)
    """Files left out because they are shorter than a crop."""
    padded_short: list[str] = field(default_factory=list)
    """Clips shorter than a crop, which are padded with silence at their end."""
    resampled: dict[int, int] = field(default_factory=dict)
    """Number of resampled clips, by the sample rate of their files, Hz."""
    mixed_down: int = 0
    """Number of clips whose channels are averaged."""
    clipped: list[str] = field(default_factory=list)
    """Clips among those decoded so far whose peaks reach beyond ±1, by a factor of 2 at most, and are clipped."""
    unlisted: list[str] = field(default_factory=list)
    """Files left out because LJSpeech's metadata.csv does not list them; not among `files`."""
    not_read: list[str] = field(default_factory=list)
    """Sounds of the whole folder in formats that are not read, such as m4a; not among `files`."""

    def notices(self, sample_rate: int) -> list[str]:
        """Return messages for the user, one line each; `sample_rate` is the data set's, Hz."""
        said = [f"clips resampled from {rate} to {sample_rate} Hz: {n}" for rate, n in self.resampled.items()]
        said += [f"clips of several channels mixed down to one: {self.mixed_down}"] if self.mixed_down else []
        for what, names in (
            ("files left out, unreadable", [f"{name}, {why}" for name, why in self.damaged.items()]),
            ("files left out, shorter than a crop", self.skipped_short),
            ("files padded with silence, shorter than a crop", self.padded_short),
            ("clips with peaks beyond ±1, clipped", self.clipped),
            ("files left out, not in metadata.csv", self.unlisted),
            ("files left out, of a format that is not read", self.not_read),
        ):
            shown = [*names[:NAMED], f"and {len(names) - NAMED} more, named in the report"][: len(names)]
            said += [f"{what}: {len(names)} ({'; '.join(shown)})"] if names else []
        return said


class AudioDataset(Dataset[AudioClip]):
    """Mono clips from a folder of wav, flac, ogg or mp3 files, or from LJSpeech's layout (metadata.csv beside wavs/).

    Args:
        path: the folder; subfolders are included.
        mel: sample rate, hop and mel settings. Sound at another rate is resampled, several channels are averaged;
            both are logged.
        crop_frames: mel frames of a random crop, which has crop_frames · hop samples.
        part: "train", "held_out", or "all".
        held_out: file-name patterns, or a fraction of the clips (by a hash of seed and name). None is LJ001-* and
            LJ002-* in LJSpeech's layout, and elsewhere refused unless the part is "all".
        seed: seed of that hash.
        short: treatment of a clip shorter than a crop: "pad" it with silence at its end, or "skip" it.
        verify: "header" reads the headers, and the samples where a header leaves the length or the range open (some
            mp3, floats); "decode" reads every sample once, so that a file with damage beyond its header is found
            here and not in training, where it is an error.
        max_damaged: number of damaged files, each of them named, beyond which an error is raised.
        cache: a folder for the decoded sound and its spectrograms, float32, written on first use and then mapped into
            memory; None computes both at every access. An entry is used only for the same path, size and time of the
            file, the same mel settings and crop length, and the same versions of the decoding packages.

    Item i is the whole clip i, with its audio cut to the last whole hop: `audio.shape[-1] == hop · frames`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no clip is left, too many are damaged, or an option is out of range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mel: MelSettings | None = None,
        crop_frames: int = 62,
        part: Part = "all",
        held_out: Sequence[str] | float | None = None,
        seed: int = 0,
        short: Short = "pad",
        verify: Verify = "header",
        max_damaged: int = 10,
        cache: str | Path | None = None,
    ) -> None:
        choice("part", part, get_args(Part))
        choice("short", short, get_args(Short))
        choice("verify", verify, get_args(Verify))
        self.path, self.mel, self.crop_frames = Path(path), mel or MelSettings(), crop_frames
        self.cache = None if cache is None else Path(cache)
        if crop_frames < 1 or self.crop_samples <= self.mel.n_fft // 2:
            raise ValueError(
                f"crop_frames · hop must be more than n_fft / 2 = {self.mel.n_fft // 2} samples; got "
                f"{crop_frames} · {self.mel.hop}"
            )
        listing = list_audio(self.path)
        out = _held_out(self.path, listing, part, held_out, seed)
        names, absent = (select(some, part, out, seed=seed) for some in (listing.names, listing.absent))
        self.report = AudioReport(
            len(names) + len(absent),
            unlisted=list(select(listing.unlisted, part, out, seed=seed)),
            not_read=list(listing.not_read),
        )
        self.report.damaged = dict.fromkeys(absent, "listed in metadata.csv, not there")
        self.names, self._lengths = self._scan(names, short, verify, max_damaged)
        for notice in self.report.notices(self.mel.sample_rate):
            _say(f"{self.path}: {notice}")
        if not self.names:
            first = next((f"; the first: {name}, {why}" for name, why in self.report.damaged.items()), "")
            raise ValueError(
                f"no clip is left of the {self.report.files} files in part {part!r} of {self.path}: "
                f"{len(self.report.damaged)} damaged, {len(self.report.skipped_short)} too short{first}"
            )

    @property
    def crop_samples(self) -> int:
        """Length of a crop, samples."""
        return self.crop_frames * self.mel.hop

    def samples(self, i: int) -> int:
        """Return the length of clip i in samples at the data set's rate, padding included."""
        return max(self._lengths[i], self.crop_samples)

    def item(self, i: int) -> AudioClip:
        """Return the whole clip i."""
        frames = self.samples(i) // self.mel.hop
        return self._part(i, 0, frames)

    def crop(self, i: int, generator: np.random.Generator) -> AudioClip:
        """Return `crop_frames` frames of clip i; one draw of `generator` decides the first frame.

        Mel frame k is centred on sample k · hop of the crop; at the crop's edges the window reaches beyond it.
        """
        return self._part(i, self.crop_start(i, generator), self.crop_frames)

    def crop_start(self, i: int, generator: np.random.Generator) -> int:
        """Return a random first frame for a crop of clip i, uniform over all that leave a whole crop."""
        return int(generator.integers(self.samples(i) // self.mel.hop - self.crop_frames + 1))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> AudioClip:
        return self.item(i)

    def _scan(
        self, names: Sequence[str], short: Short, verify: Verify, max_damaged: int
    ) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return names and lengths of the clips to use, and note the other files in the report."""
        report, kept = self.report, {}
        for name in names:
            try:
                header = read_header(self.path / name)
                # Floats may have any range: better decoded here than an error hours into training.
                decoded = verify == "decode" or header.subtype in UNSCALED
                clipped = decoded and read_peak(self.path / name) > 1
            except ValueError as error:
                report.damaged[name] = str(error).removeprefix(f"cannot read the sound {self.path / name}: ")
                continue
            length = resampled_length(header.samples, header.sample_rate, self.mel.sample_rate)
            if length < self.crop_samples:
                (report.padded_short if short == "pad" else report.skipped_short).append(name)
            if length >= self.crop_samples or short == "pad":
                kept[name] = length
                self._note(header)
                report.clipped += [name] if clipped else []
        if len(report.damaged) > max_damaged:
            listed = ", ".join(f"{name} ({why})" for name, why in list(report.damaged.items())[:5])
            raise ValueError(
                f"{len(report.damaged)} files in {self.path} are damaged, "
                f"more than max_damaged = {max_damaged}: {listed}"
            )
        report.clips, report.seconds = len(kept), sum(kept.values()) / self.mel.sample_rate
        return tuple(kept), tuple(kept.values())

    def _note(self, header: Header) -> None:
        if header.sample_rate != self.mel.sample_rate:
            self.report.resampled[header.sample_rate] = self.report.resampled.get(header.sample_rate, 0) + 1
        self.report.mixed_down += header.channels > 1

    def _part(self, i: int, start: int, frames: int) -> AudioClip:
        hop, begin = self.mel.hop, start * self.mel.hop
        if self.cache is not None:
            sound, spectrogram = self._cached(i)
            audio = torch.from_numpy(np.array(sound[begin : begin + frames * hop]))
            mel = torch.from_numpy(np.array(spectrogram[:, start : start + frames]))
            return AudioClip(audio[None], mel, begin, self.names[i])
        # Samples around the part that its first and last windows and the reflection at a clip's end reach.
        margin = -(-self.mel.n_fft // hop)
        first = max(0, start - margin)
        count = (start - first + frames + margin) * hop
        around = self._read(i, first * hop, count)
        mel = log_mel(around, self.mel, start=start - first, frames=frames)
        audio = around[begin - first * hop :][: frames * hop].clone()
        return AudioClip(audio[None], mel, begin, self.names[i])

    def _read(self, i: int, start: int = 0, samples: int | None = None) -> Tensor:
        """Return a part of clip i, `[T]`, padded where the clip is short."""
        length = self.samples(i)
        sound = read_mono(self.path / self.names[i], self.mel.sample_rate, start=start, samples=samples)
        wanted = length - start if samples is None else min(samples, length - start)
        return torch.from_numpy(np.pad(sound, (0, wanted - len(sound))))

    def _cached(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return sound and spectrogram of clip i, mapped into memory; compute and write them on first use."""
        assert self.cache is not None
        file = self.path / self.names[i]
        stat = file.stat()
        source = [str(file.resolve()), stat.st_size, stat.st_mtime_ns]
        made_by = [CACHE_FORMAT, decoder_versions(), self.crop_frames, asdict(self.mel)]
        key = hashlib.sha256(json.dumps([source, made_by]).encode()).hexdigest()[:32]
        paths = self.cache / f"{key}.audio.npy", self.cache / f"{key}.mel.npy"
        shapes = (self.samples(i),), (self.mel.n_mels, -1)
        if (found := _mapped(paths, shapes)) is None:
            self.cache.mkdir(parents=True, exist_ok=True)
            sound = self._read(i)
            for path, values in zip(paths, (sound, log_mel(sound, self.mel)), strict=True):
                with whole_file(path) as out:
                    np.save(out, values.numpy())
            found = _mapped(paths, shapes)
        assert found is not None
        return found


def _mapped(
    paths: tuple[Path, Path], shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return two arrays of the cache, mapped into memory; None where one is not there, cut short or damaged."""
    found = []
    for path, shape in zip(paths, shapes, strict=True):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = len(array.shape) == len(shape) and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True))
        if array.dtype != np.float32 or not fits:
            return None
        found.append(array)
    return found[0], found[1]


def _held_out(
    path: Path, listing: Listing, part: Part, held_out: Sequence[str] | float | None, seed: int
) -> Sequence[str] | float:
    """Return the patterns or the fraction to hold out; raises where they leave a part without any clip."""
    if isinstance(held_out, float) and not 0 < held_out < 1:
        raise ValueError(f"held_out, as a fraction, must be between 0 and 1; got {held_out}")
    if isinstance(held_out, (str, int)):
        raise TypeError(f"held_out must be a list of patterns or a fraction; got {held_out!r}")
    if part == "all":
        return LJSPEECH_HELD_OUT if held_out is None else held_out
    if held_out is None and not listing.is_ljspeech:
        raise ValueError(f"{path}: part {part!r} needs held_out, patterns or a fraction; got None")
    out = LJSPEECH_HELD_OUT if held_out is None else held_out
    count, of = len(select(listing.names, "held_out", out, seed=seed)), len(listing.names)
    if count == 0 or (part == "train" and count == of):
        share = str(out) if isinstance(out, float) else ", ".join(out) or "no pattern"
        raise ValueError(
            f"{path}: held_out (data.held_out of a run) must leave clips in both parts; {share} holds out {count} of "
            f"{of} clips, of which the first is {Path(listing.names[0]).stem}"
        )
    return out
