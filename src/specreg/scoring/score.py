"""A run's samples, or files, scored against real data -> one record of plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from specreg import _checks, evaluation, modalities, processes
from specreg._files import is_run_folder
from specreg.config import ConfigError
from specreg.data.audio_listing import SUFFIXES as SOUND
from specreg.data.folders import list_files
from specreg.evaluation import Trained
from specreg.metrics import image_sets, spectra
from specreg.metrics.image_sets import BIAS, METRICS, Measured
from specreg.metrics.info import MetricInfo
from specreg.scoring import drawn, sound
from specreg.scoring.images import ImageSource, default_cache, files_source, find_extractors, reference_rows, rows_of

SCHEMA = 1
"""Version of the record."""

REFERENCE = 2048
"""Real data at most where a run's own are the reference."""


@dataclass(frozen=True)
class Options:
    """How to score.

    Args:
        metrics: names of `image_sets.METRICS`, or of `metrics.sound.SOUND_METRICS`; None: all that can be measured.
        count: samples that a run draws; None: as in the run.
        batch_size: images drawn at a time; None: as in the run.
        seed: of the first sample that a run draws, and of resampling; None: as in the run, and 0.
        draws: resampled sets of which the intervals are made.
        inception: Inception weights, see `metrics.features.find_inception`.
        cache: folder of the reference's features; None for the user's cache folder.
        work: folder of a run's drawn samples; None: RUN/evaluate.
        device: where networks run.
    """

    metrics: Sequence[str] | None = None
    count: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    draws: int = 200
    inception: Path | None = None
    cache: Path | None = None
    work: Path | None = None
    device: torch.device | str = "cpu"


def score(path: Path, reference: Path | None, options: Options) -> dict[str, Any] | None:
    """Return the scores of a run folder, or of files of images or sound, against real data at `reference`.

    Under a launcher every process must call; all but the main one return None. `reference` may be None for a run, whose
    own held-out data it then is. Raises ValueError and FileNotFoundError that say what is missing or does not fit.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a run folder, or files to score; there is none")
    if is_run_folder(path):
        return _run(path, reference, options)
    if reference is None:
        raise ConfigError(f"--reference: expected real data to compare {path} with; got nothing")
    if _is_sound(reference):
        found = sound.of_files(path, reference, options.metrics, draws=options.draws, device=options.device)
        return None if found is None else _record(path, reference, found)
    source, real = files_source(path), files_source(reference)
    return _images(path, reference, source, real, options)


def _run(path: Path, reference: Path | None, options: Options) -> dict[str, Any] | None:
    trained = evaluation.load_trained(path, options.device, warn=_checks.warn)
    if trained.config.data.kind == "fields":
        raise ConfigError(
            f"{path}: expected a run on images or sound; got fields: results.json has their scores, and "
            "`specreg spectrum` compares their samples"
        )
    tree = trained.config.model_dump(mode="json")
    changes = {"count": options.count, "seed": options.seed}
    if "batch_size" in tree["sampling"]:
        changes["batch_size"] = options.batch_size
    tree["sampling"] |= {name: value for name, value in changes.items() if value is not None}
    if reference is not None and trained.config.data.kind == "audio":
        tree["data"]["test_path"] = str(reference)
    trained = trained._replace(config=modalities.parse(tree, where=str(path)))
    work = options.work or path / "evaluate"
    if trained.config.data.kind == "audio":
        found = sound.of_run(trained, work, options.metrics, draws=options.draws, device=options.device)
        return None if found is None else _record(path, reference, found, step=trained.step)
    prompts = modalities.of(trained.config).prompts(trained.config, trained.description)
    files = drawn.draw(trained, prompts, "", work, device=options.device)
    if reference is not None:
        real = files_source(reference, channels=trained.shape[0])
    else:
        x0 = modalities.of(trained.config).real(trained.config, trained.network, path=None, count=REFERENCE).x0
        real = _tensor_source(spectra.to_uint8(x0))
    return _images(path, reference, _drawn_source(trained, files), real, options, step=trained.step)


def _images(
    path: Path, reference: Path | None, source: ImageSource, real: ImageSource, options: Options, **more: Any
) -> dict[str, Any] | None:
    extractors = find_extractors(options.metrics, options.inception, device=options.device)
    rows, digest = reference_rows(real, extractors, options.cache or default_cache())
    samples = rows_of(source, extractors.networks)
    if not processes.state().is_main_process:
        return None
    if not (torch.equal(samples.frequency, rows.frequency) and torch.equal(samples.size, rows.size)):
        sizes = [f"{each.size.sum():.0f} pixels" for each in (samples, rows)]
        name = reference or "the run's own data"
        raise ValueError(f"{path}: expected images of the size of the reference, {name}, {sizes[1]}; got {sizes[0]}")
    measured = image_sets.compare(samples, rows, extractors.metrics, draws=options.draws, seed=options.seed or 0)
    entries = {name: image_entry(name, each) for name, each in measured.items()}
    reasons: dict[str, list[str]] = {}
    for name, why in extractors.missing.items():
        reasons.setdefault(why, []).append(METRICS[name].label)
    missing = {", ".join(labels): why for why, labels in reasons.items()}
    found = sound.Found(len(samples), len(rows), entries, missing, {}, "images")
    return _record(path, reference, found, reference_sha256=digest, **more)


def _record(path: Path, reference: Path | None, found: sound.Found, **more: Any) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "source": str(path),
        "reference": None if reference is None else str(reference),
        **more,
        "unit": found.unit,
        "samples": found.samples,
        "reference_samples": found.reference,
        "metrics": found.entries,
        "missing": found.missing,
        "failures": found.failures,
    }


def image_entry(name: str, found: Measured) -> dict[str, Any]:
    """Return one metric as the record has it, with its sentence."""
    info = METRICS[name]
    value, low, high, floor = (f"{each:.{info.digits}f}" for each in (found.value, found.low, found.high, found.floor))
    unit = f" {info.unit}" if info.unit else ""
    some, others = found.floor_images
    return {
        "label": info.label,
        "unit": info.unit,
        "better": info.better,
        "digits": info.digits,
        **found._asdict(),
        "bias": BIAS[name],
        "words": f"{info.label} is {value}{unit} ({low} to {high}){_verdict(name, info, found)}; real images score "
        f"{floor} ({some} against {others}). {BIAS[name]}.",
    }


def _verdict(name: str, info: MetricInfo, found: Measured) -> str:
    """Return what the interval supports, to follow the number."""
    if info.better == "zero":
        if found.low <= 0 <= found.high:
            return ": no difference seen"
        ends = sorted(100 * abs(10 ** (each / 10) - 1) for each in (found.low, found.high))
        lacks = "samples lack" if found.value < 0 else "samples have too much by"
        return f": {lacks} {ends[0]:.0f} to {ends[1]:.0f}%"
    if name in ("kid", "kernel_distance"):
        return ": samples are told from the reference" if found.low > 0 else ": no difference seen"
    return ""


def _tensor_source(images: torch.Tensor) -> ImageSource:
    return ImageSource(len(images), lambda indices: images[indices.start : indices.stop])


def _drawn_source(trained: Trained, files: list[Path]) -> ImageSource:
    """Return drawn images, a file in memory at a time."""
    kept: dict[int, torch.Tensor] = {}

    def read(indices: range) -> torch.Tensor:
        parts = []
        for k in range(indices.start // drawn.CHUNK, math.ceil(indices.stop / drawn.CHUNK)):
            if k not in kept:
                kept.clear()
                (samples,) = drawn.unpacked(trained, [files[k]])
                kept[k] = samples.images
            start = k * drawn.CHUNK
            parts.append(kept[k][max(0, indices.start - start) : indices.stop - start])
        return torch.cat(parts)

    count = modalities.of(trained.config).count(trained.config, None)
    return ImageSource(count, read)


def _is_sound(path: Path) -> bool:
    """Return whether a folder holds sound files."""
    return path.is_dir() and any(name.lower().endswith(tuple(SOUND)) for name in list_files(path))
