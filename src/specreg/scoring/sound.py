"""Clips scored beside recordings: those of a run, or files of two folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from specreg import _checks, modalities, processes
from specreg.data.audio import AudioDataset
from specreg.data.audio_files import read_header
from specreg.data.audio_listing import list_audio
from specreg.data.mel import MelSettings, log_mel
from specreg.evaluation import Trained
from specreg.metrics import clip_intervals, sound
from specreg.metrics.sound import SOUND_METRICS, ClipFeatures
from specreg.modalities.protocol import Device
from specreg.scoring import drawn


class Found(NamedTuple):
    """What was scored, as the record has it."""

    samples: int
    reference: int
    entries: dict[str, dict[str, Any]]  # by metric
    missing: dict[str, str]  # by label, why a metric could not be measured
    failures: dict[str, dict[str, str]]  # by label, clips without a value and why
    unit: str


def of_run(
    trained: Trained, work: Path, metrics: Sequence[str] | None, *, draws: int, device: Device = "cpu"
) -> Found | None:
    """Return the scores of a vocoder's clips; under a launcher all but the main process return None."""
    _check(metrics)
    config, modality = trained.config, modalities.of(trained.config)
    truth: Any = modality.truth(config, device=device)
    files = drawn.draw(trained, truth.prompts, truth.fingerprint, work, device=device)
    mine = [files[i] for i in processes.share(len(files))]
    parts = processes.gather([modality.analyse(config, s, truth, device=device) for s in drawn.unpacked(trained, mine)])
    if not processes.state().is_main_process:
        return None
    samples: Any = modality.join([each for part in parts for each in part])
    return _found(samples.features, truth.scores, len(samples.clips), len(truth.recordings.clips), metrics, draws)


def of_files(
    path: Path, reference: Path, metrics: Sequence[str] | None, *, draws: int, device: Device = "cpu"
) -> Found | None:
    """Return the scores of the clips in a folder beside those of another, at the rate of its first clip.

    Where both have the same names, ending aside, each clip is scored beside the recording of its name. Under a launcher
    all but the main process return None.
    """
    _check(metrics)
    rate = read_header(reference / list_audio(reference).names[0]).sample_rate
    settings = MelSettings(sample_rate=rate)
    made, real = (AudioDataset(each, mel=settings) for each in (path, reference))
    names = [[Path(name).with_suffix("").as_posix() for name in data.names] for data in (made, real)]
    paired = sorted(names[0]) == sorted(names[1])
    mine = [_clips(data, own) for data, own in zip((made, real), names, strict=True)]
    outputs, references = mine
    if paired:  # the recordings of this process's clips, whichever share they are in
        where = {name: i for i, name in enumerate(names[1])}
        references = {name: real.item(where[name]).audio[0] for name in outputs}
    part = sound.analyse(
        outputs,
        references,
        rate,
        lambda clip: log_mel(clip, settings),
        paired=paired,
        unpaired=_why_unpaired(made, real, *names),
        device=device,
        tolerance=settings.hop,
    )
    floor = sound.analyse(_clips(real, names[1]), {}, rate, None, paired=False, device=device)
    parts, floors = processes.gather(part), processes.gather(floor)
    if not processes.state().is_main_process:
        return None
    scores = sound.summarize_truth(sound.merge(floors))
    return _found(sound.merge(parts), scores, len(made), len(real), metrics, draws)


def _why_unpaired(made: AudioDataset, real: AudioDataset, outputs: Sequence[str], references: Sequence[str]) -> str:
    """Return why clips are not scored beside recordings of their names; both are given without endings."""
    said = []
    for data, alone, other in (
        (made, sorted({*outputs} - {*references}), real),
        (real, sorted({*references} - {*outputs}), made),
    ):
        if alone:
            number = f"{len(alone)} of {len(data)} in {data.path}"
            said.append(f"{number} have no clip of their name in {other.path}, such as {alone[0]}")
    lost = [(len(data.report.damaged), data.path) for data in (made, real)]
    said += [f"{number} in {path} cannot be read" for number, path in lost if number]
    return f"compares clips with recordings of the same names: {'; '.join(said) or 'a name is there twice'}"


def _clips(data: AudioDataset, names: Sequence[str]) -> dict[str, Tensor]:
    """Return this process's share of the clips `[T]` by name."""
    return {names[i]: data.item(i).audio[0] for i in processes.share(len(data))}


def _check(metrics: Sequence[str] | None) -> None:
    for name in metrics or ():
        _checks.choice("metric", name, SOUND_METRICS)


def _found(
    features: ClipFeatures,
    truth: Mapping[str, float],
    samples: int,
    reference: int,
    metrics: Sequence[str] | None,
    draws: int,
) -> Found:
    scores = sound.summarize(features)
    wanted = [name for name in SOUND_METRICS if metrics is None or name in metrics]
    for name in metrics or ():
        if name in scores.missing:
            raise ValueError(f"{SOUND_METRICS[name].label}: {scores.missing[name]}")
    intervals = clip_intervals.intervals(features, [name for name in wanted if name in scores.values], draws=draws)
    entries = {}
    for name, (low, high) in intervals.items():
        info, value = SOUND_METRICS[name], scores.values[name]
        floor = truth.get(name if info.absolute else f"floor: {name}")
        entries[name] = {
            "label": info.label,
            "unit": info.unit,
            "better": info.better,
            "digits": info.digits,
            "value": value,
            "low": low,
            "high": high,
            "floor": floor,
            "bias": clip_intervals.BIAS[name],
            "words": _words(name, value, low, high, floor),
        }
    missing = {SOUND_METRICS[name].label: why for name, why in scores.missing.items() if name in wanted}
    failures = {SOUND_METRICS[name].label: each for name, each in scores.failures.items() if name in wanted}
    return Found(samples, reference, entries, missing, failures, "clips")


def _words(name: str, value: float, low: float, high: float, floor: float | None) -> str:
    info = SOUND_METRICS[name]
    unit = f" {info.unit}" if info.unit else ""
    real = "" if floor is None else f"; real clips score {floor:.{info.digits}f}"
    ends = f"{low:.{info.digits}f} to {high:.{info.digits}f}"
    return f"{info.label} is {value:.{info.digits}f}{unit} ({ends}){real}. {clip_intervals.BIAS[name]}."
