"""Several folders on one page: runs that differ in their seed alone become one arm, the rest stand side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from specreg.report.colors import arm_colors
from specreg.report.contents import Arm, Record, RunFiles, Truth
from specreg.report.reading import from_comparison, is_comparison, is_run, one_arm, read_config, read_files

OWN = ("name", "title", "seed")  # fields of a config that differ between the seeds of one arm


def read_all(folders: Sequence[Path], *, measured: Sequence[RunFiles] = ()) -> RunFiles:
    """Read comparison folders and run folders for one page, with `measured` sets of samples after them.

    Arms keep their names, with that of their folder where two would be equal. Differences from a baseline stay those
    within a comparison: runs of different comparisons are not paired.

    Raises:
        ValueError: a folder that is neither, or that is named twice; a corrupt file. The message names it.
    """
    twice = [folder for folder, count in Counter(folder.resolve() for folder in folders).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]}: expected each folder once; it is named again")
    alone = [folder for folder in folders if is_run(folder) and not is_comparison(folder)]
    groups = {group[0]: group for group in _by_arm(alone)}
    parts = []
    for folder in folders:
        if folder in groups and len(groups[folder]) > 1:
            parts.append(from_comparison(folder, one_arm(groups[folder])))
        elif folder in groups or folder not in alone:
            parts.append(read_files(folder))
    parts += measured
    return parts[0] if len(parts) == 1 else merged(parts)


def merged(parts: Sequence[RunFiles]) -> RunFiles:
    """Return the files of several folders as those of one page."""
    titles = _titles(parts)
    counts = Counter(arm.label for part in parts for arm in part.arms)
    clash = max(counts.values(), default=0) > 1
    renamed = [
        [Arm(arm.name, f"{arm.label} ({title})" if clash else arm.label, arm.color, index) for arm in part.arms]
        for index, (part, title) in enumerate(zip(parts, titles, strict=True))
    ]
    colors = arm_colors({"arms": [{"name": _key(arm)} for arms in renamed for arm in arms]})
    truths = _shared([part.truths[0] for part in parts], titles)
    found = []
    for part, arms, truth, title in zip(parts, renamed, truths, titles, strict=True):
        arms = [replace(arm, color=colors[_key(arm)]) for arm in arms]
        now = dict(zip(part.arms, arms, strict=True))
        cells = [replace(cell, arm=now[cell.arm]) for cell in part.cells]
        found.append(replace(part, arms=arms, cells=cells, truths=[truth], title=title))
    return RunFiles(
        folder=parts[0].folder,
        comparison=_heading(parts, titles),
        arms=[arm for part in found for arm in part.arms],
        cells=[cell for part in found for cell in part.cells],
        truths=truths,
        several=found,
    )


def _by_arm(folders: Sequence[Path]) -> list[list[Path]]:
    """Return runs in groups of one arm: their configs differ in the seed alone, and each seed occurs once."""
    groups: list[tuple[Record, list[Path], set[object]]] = []
    for folder in folders:
        config = read_config(folder)
        seed = config.get("seed")
        own = {key: value for key, value in config.items() if key not in OWN}
        if isinstance(own.get("sampling"), dict):
            own["sampling"] = {key: value for key, value in own["sampling"].items() if key != "seed"}
        group = next((g for g in groups if g[0] == own and seed not in g[2]), None)
        if group is None:
            groups.append((own, [folder], {seed}))
        else:
            group[1].append(folder)
            group[2].add(seed)
    return [found for _, found, _ in groups]


def _titles(parts: Sequence[RunFiles]) -> list[str]:
    """Return one name for each folder: its own, or its arm's for seeds of one arm; its path where names are equal."""
    names = [str(part.comparison.get("name") or part.folder.resolve().name) for part in parts]
    counts = Counter(names)
    return [name if counts[name] == 1 else str(part.folder) for name, part in zip(names, parts, strict=True)]


def _key(arm: Arm) -> str:
    """Return a name of an arm that no arm of another folder has; it ends in the loss and its λ."""
    return f"{arm.part}/{arm.name}"


def _shared(truths: Sequence[Truth], titles: Sequence[str]) -> list[Truth]:
    """Return the truths, one object for all of one name and one spectrum; different ones of a name get their title."""
    first = [next(k for k, other in enumerate(truths) if other is truth or _equal(other, truth)) for truth in truths]
    counts = Counter(truths[k].name for k in set(first))
    named = {
        k: replace(truths[k], name=f"{truths[k].name} ({titles[k]})") if counts[truths[k].name] > 1 else truths[k]
        for k in set(first)
    }
    return [named[k] for k in first]


def _equal(a: Truth, b: Truth) -> bool:
    if a.name != b.name or a.spectrum is None or b.spectrum is None:
        return False
    return all(np.array_equal(x, y) for x, y in zip(a.spectrum[:2], b.spectrum[:2], strict=True))


def _heading(parts: Sequence[RunFiles], titles: Sequence[str]) -> Record:
    """Return what the page says of all folders together."""
    units = dict.fromkeys(str((part.comparison.get("truth") or {}).get("unit") or "samples") for part in parts)
    return {
        "title": " and ".join(titles) if len(titles) < 3 else f"{len(titles)} folders",
        "arms": [],
        "seeds": sorted({seed for part in parts for seed in part.comparison["seeds"]}),
        "cells": [],
        "metrics": {},
        "table": [],
        "truth": {"unit": " and ".join(units)},
        "folders": list(titles),
    }
