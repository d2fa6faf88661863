"""Reading a comparison folder or a single run folder; `schema.py` says what its files hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from specreg._files import read_json, said
from specreg.report.colors import arm_colors
from specreg.report.contents import (
    COLUMNS,
    Arm,
    Array,
    Cell,
    Denoising,
    Record,
    RunFiles,
    Samples,
    Spectrum,
    Truth,
)


def is_comparison(folder: Path) -> bool:
    """Return whether `folder` holds a comparison."""
    return (folder / "comparison.json").is_file()


def is_run(folder: Path) -> bool:
    """Return whether `folder` holds a run."""
    return (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file()


def read_files(folder: Path) -> RunFiles:
    """Read a comparison folder (comparison.json) or a run folder (config.yaml and metrics.jsonl).

    Raises ValueError for a folder that is neither, and for a corrupt file, which the message names.
    """
    if is_comparison(folder):
        comparison = read_object(folder / "comparison.json")
        check_comparison(comparison, where=str(folder / "comparison.json"))
    elif is_run(folder):
        comparison = one_arm([folder])
    else:
        raise ValueError(
            f"{folder}: expected a comparison folder (with comparison.json) or a run folder "
            f"(with config.yaml and metrics.jsonl); found neither"
        )
    return from_comparison(folder, comparison)


def from_comparison(folder: Path, comparison: Record) -> RunFiles:
    """Return what `comparison`, of runs in `folder`, names."""
    arms = _arms(comparison)
    truth = comparison.get("truth") or {}
    real = Truth(
        str(truth.get("kind") or "real data"),
        _spectrum(truth, where=f"{folder}: the truth's spectrum"),
        read_samples(folder / "truth" / "samples.npy"),
        folder / "truth",
    )
    return RunFiles(folder, comparison, arms, _cells(folder, comparison, arms), [real])


def check_comparison(comparison: Record, *, where: str = "comparison") -> None:
    """Raise a ValueError that names the first field of `comparison` that is missing or of the wrong type."""
    for key, kind in {"arms": list, "seeds": list, "cells": list, "metrics": dict, "table": list}.items():
        if not isinstance(comparison.get(key), kind):
            came = repr(comparison[key])[:40] if key in comparison else "nothing"
            raise ValueError(f"{where}: expected {key!r} to be a {kind.__name__}; got {came}")
    wanted = {"arms": ("name",), "cells": ("arm", "seed", "folder"), "table": ("arm", "metric", "mean")}
    for key, names in wanted.items():
        for index, entry in enumerate(comparison[key]):
            lost = [name for name in names if not isinstance(entry, dict) or name not in entry]
            if lost:
                raise ValueError(f"{where}: {key}[{index}] has no field {lost[0]!r}")
    fields: list[tuple[str, str, type]] = [
        *(("arms", "name", str), ("cells", "arm", str), ("cells", "seed", int), ("cells", "folder", str)),
        *(("table", "arm", str), ("table", "metric", str)),
    ]
    for key, name, each in fields:
        for index, entry in enumerate(comparison[key]):
            if not isinstance(entry[name], each):
                came = repr(entry[name])[:40]
                raise ValueError(f"{where}: expected {name!r} of {key}[{index}] to be a {_name(each)}; got {came}")
    if wrong := [seed for seed in comparison["seeds"] if not isinstance(seed, int)]:
        raise ValueError(f"{where}: expected every seed to be a whole number; got {repr(wrong[0])[:40]}")
    arms = [arm["name"] for arm in comparison["arms"]]
    for key in ("cells", "table"):
        for entry in comparison[key]:
            if entry["arm"] not in arms:
                raise ValueError(f"{where}: {key} names the arm {entry['arm']!r}; arms are {', '.join(arms)}")


def read_object(path: Path) -> Record:
    """Read a JSON object; a ValueError names the file, and where it breaks."""
    record = read_json(path)
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object; got a {type(record).__name__}")
    return record


def read_results(path: Path) -> Record:
    """Read results.json; a ValueError names the file, and the first field that the report cannot show."""
    results = read_object(path)
    kinds: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("metrics", "failures", "described", "timing", "truth", "missing"), dict),
        **{"seed": int, "arm": str, "title": str, "command": str, "step": int},
    }
    for key, kind in kinds.items():
        if results.get(key) is not None and not isinstance(results[key], kind):
            raise ValueError(f"{path}: expected {key!r} to be a {_name(kind)}; got {repr(results[key])[:40]}")
    parts: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("metrics", "timing"), (int, float)),
        **{"described": dict, "failures": (dict, list)},
    }
    for key, part in parts.items():
        for name, value in (results.get(key) or {}).items():
            if value is not None and not isinstance(value, part):
                raise ValueError(f"{path}: expected {key!r} to hold a {_name(part)}; got {name}: {repr(value)[:40]}")
    return results


def _name(kind: type | tuple[type, ...]) -> str:
    return " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))


def read_log(path: Path) -> tuple[dict[str, Array], int]:
    """Read metrics.jsonl as columns `[steps]` (null is NaN) and the number of truncated lines left out.

    Only an unfinished last line (no newline: the run was killed while writing it) is tolerated. A step that
    was logged twice, before and after a resume, keeps its last values.
    """
    if not path.is_file():
        return {name: np.empty(0) for name in COLUMNS}, 0
    text = path.read_bytes().decode("utf-8", errors="replace")
    lines, steps, truncated = text.split("\n"), dict[float, list[float]](), 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            row = [math.nan if record.get(name) is None else float(record[name]) for name in COLUMNS]
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if number == len(lines):
                truncated = 1
                continue
            raise ValueError(f"{path}, line {number}: expected a JSON object of numbers ({said(error)})") from error
        if not math.isfinite(row[0]):
            raise ValueError(f"{path}, line {number}: the field 'step' is missing")
        steps[row[0]] = row
    table = np.array([steps[step] for step in sorted(steps)], dtype=np.float64).reshape(-1, len(COLUMNS))
    return dict(zip(COLUMNS, table.T, strict=True)), truncated


def read_samples(path: Path) -> Samples | None:
    """Open samples.npy without loading all of it: pictures, uint8 `[N, H, W, C]`, lines, float `[N, C, T]`,
    or fields, float `[N, C, H, W]`.

    Returns None where there is no such file, or an array of another form, which the report does not show.
    """
    if not path.is_file():
        return None
    try:
        samples: Samples = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a NumPy array file ({said(error)})") from error
    shown = are_pictures(samples) or are_lines(samples) or are_fields(samples)
    return samples if samples.size and shown else None


def are_pictures(samples: Samples) -> bool:
    """Return whether samples are pictures, uint8 `[N, H, W, C]`."""
    return samples.dtype == np.uint8 and samples.ndim == 4


def are_lines(samples: Samples) -> bool:
    """Return whether samples have one axis of space, float `[N, C, T]`."""
    return samples.dtype.kind == "f" and samples.ndim == 3


def are_fields(samples: Samples) -> bool:
    """Return whether samples are fields in data units, float `[N, C, H, W]`."""
    return samples.dtype.kind == "f" and samples.ndim == 4


def one_arm(folders: list[Path]) -> Record:
    """Return runs that differ in their seed alone as a comparison of one arm, which they are."""
    every = [read_results(path) if (path := folder / "results.json").is_file() else {} for folder in folders]
    first, name = next((results for results in every if results), {}), folders[0].resolve().name
    arm, described = str(first.get("arm", name)), first.get("described") or {}
    missing: Record = {}
    failures: Record = {}
    values: dict[str, list[float]] = {}
    for results in every:
        missing |= results.get("missing") or {}
        for metric, samples in (results.get("failures") or {}).items():
            failures[metric] = failures.get(metric, 0) + len(samples)
        for metric, value in (results.get("metrics") or {}).items():
            if value is not None:
                values.setdefault(metric, []).append(float(value))
    seeds = [
        results.get("seed", 0) if results or len(folders) == 1 else read_config(folder).get("seed", 0)
        for folder, results in zip(folders, every, strict=True)
    ]
    places = ["."] if len(folders) == 1 else [str(folder.resolve()) for folder in folders]
    return {
        "title": first.get("title") or name,
        "name": arm if len(folders) > 1 else None,
        "command": first.get("command"),
        "config": _text(folders[0] / "config.yaml"),
        "arms": [{"name": arm, "label": arm}],
        "seeds": seeds,
        "cells": [{"arm": arm, "seed": seed, "folder": place} for seed, place in zip(seeds, places, strict=True)],
        "truth": first.get("truth"),
        "missing": missing,
        "failures": failures,
        "metrics": {metric: described.get(metric) or {} for metric in values},
        "table": [
            {"arm": arm, "metric": metric, "mean": fmean(found), "n": len(found)}
            | ({"std": stdev(found)} if len(found) > 1 else {})
            for metric, found in values.items()
        ],
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8 ({said(error)})") from None


def read_config(folder: Path) -> Record:
    """Return a run's config.yaml as it stands."""
    import yaml

    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected fields and their values; got a {type(config).__name__}")
    return config


def _arms(comparison: Record) -> list[Arm]:
    colors, names = arm_colors(comparison), [str(record["name"]) for record in comparison["arms"]]
    labels = [str(record.get("label") or record["name"]) for record in comparison["arms"]]
    return [Arm(name, label, colors[name]) for name, label in zip(names, labels, strict=True)]


def _cells(folder: Path, comparison: Record, arms: list[Arm]) -> list[Cell]:
    """Return one cell for every arm and seed, the ones that were never begun included."""
    planned = {(arm.name, seed): None for arm in arms for seed in comparison["seeds"]}
    folders = planned | {(str(cell["arm"]), cell["seed"]): cell["folder"] for cell in comparison["cells"]}
    by_name = {arm.name: arm for arm in arms}
    order = list(by_name)
    keys = sorted(folders, key=lambda key: (order.index(key[0]), key[1]))
    return [_cell(folder, by_name[name], seed, folders[name, seed]) for name, seed in keys]


def _cell(root: Path, arm: Arm, seed: int, name: str | None) -> Cell:
    if name is None or not (root / name).is_dir():
        return Cell(arm=arm, seed=seed, missing="not started")
    folder = root / name
    log, truncated = read_log(folder / "metrics.jsonl")
    results = read_results(folder / "results.json") if (folder / "results.json").is_file() else None
    failed = results is None and (folder / "failure.json").is_file()
    last = f"; last logged step {log['step'][-1]:.0f}" if log["step"].size else ""
    missing = _failure(folder / "failure.json") if failed else f"no results.json{last}"
    return Cell(
        arm=arm,
        seed=seed,
        folder=folder,
        results=results,
        log=log,
        truncated=truncated,
        spectrum=_spectrum(results or {}, where=f"{folder / 'results.json'}: the spectrum"),
        denoising=_denoising(results or {}, where=f"{folder / 'results.json'}: denoising"),
        samples=read_samples(folder / "samples" / "samples.npy"),
        missing=None if results else missing,
        stopped=failed,
    )


def _failure(path: Path) -> str:
    """Return why a run stopped, e.g. "stopped at step 120: the spectral term is not finite"."""
    record = read_object(path)
    if not isinstance(record.get("step"), int) or not isinstance(record.get("message"), str):
        raise ValueError(f"{path}: expected an integer 'step' and a text 'message'; got {str(record)[:80]}")
    return f"stopped at step {record['step']}: {record['message']}".rstrip(".")


def spectrum_of(value: Record, *, where: str) -> Spectrum:
    """Return a spectrum from its record, with "low" and "high" where it has them."""
    try:
        frequency, power = (np.array(value[key], dtype=np.float64) for key in ("frequency", "power"))
        low, high = (np.array(value[key], dtype=np.float64) if key in value else None for key in ("low", "high"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected lists of numbers 'frequency' and 'power' ({error!r})") from error
    for found in (power, low, high):
        if found is not None and (frequency.ndim != 1 or frequency.shape != found.shape):
            raise ValueError(f"{where}: {frequency.size} frequencies but {found.size} powers")
    return Spectrum(frequency, power, low, high)


def _spectrum(record: Record, *, where: str) -> Spectrum | None:
    value = record.get("spectrum")
    return None if value is None else spectrum_of(value, where=where)


def _denoising(record: Record, *, where: str) -> Denoising | None:
    value = record.get("denoising")
    if value is None:
        return None
    try:
        found = [np.array(value[key], dtype=np.float64) for key in ("log_snr", "edges", "error_db")]
        pull = None if value.get("pull_db") is None else np.array(value["pull_db"], dtype=np.float64)
        gain = None if value.get("gain") is None else np.array(value["gain"], dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: expected arrays of numbers log_snr, edges and error_db ({error!r})") from error
    log_snr, edges, error_db = found
    shape = (log_snr.size, edges.size - 1)
    for name, table in (("error_db", error_db), ("pull_db", pull), ("gain", gain)):
        if table is not None and (table.shape != shape or 0 in shape):
            came = f"{shape[0]} noise levels and {shape[1]} bands but {name} {list(table.shape)}"
            raise ValueError(f"{where}: expected one value a noise level and band; got {came}")
    order = np.argsort(log_snr, kind="stable")
    ordered = [None if table is None else table[order] for table in (pull, gain)]
    return Denoising(log_snr[order], edges, error_db[order], *ordered)
