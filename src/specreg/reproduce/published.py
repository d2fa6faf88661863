"""The numbers that the paper prints (arXiv 2603.02447)."""

from __future__ import annotations

from typing import NamedTuple


class Fid(NamedTuple):
    """FID of 50,000 samples with the weighted and the unweighted term."""

    weighted: float
    unweighted: float


TABLE1: dict[str, dict[str, Fid]] = {
    "edm-cifar10-cond-ve": {
        "amplitude": Fid(1.82, 1.82),
        "amplitude_phase": Fid(1.82, 1.82),
        "haar": Fid(1.81, 1.81),
        "bior1.3": Fid(1.82, 1.81),
    },
    "edm-cifar10-cond-vp": {
        "amplitude": Fid(1.84, 1.84),
        "amplitude_phase": Fid(1.84, 1.84),
        "haar": Fid(1.84, 1.84),
        "bior1.3": Fid(1.83, 1.84),
    },
    "edm-afhqv2-ve": {
        "amplitude": Fid(2.13, 2.14),
        "amplitude_phase": Fid(2.13, 2.16),
        "haar": Fid(2.14, 2.14),
        "bior1.3": Fid(2.14, 2.14),
    },
    "edm-afhqv2-vp": {
        "amplitude": Fid(2.03, 2.05),
        "amplitude_phase": Fid(2.04, 2.03),
        "haar": Fid(2.05, 2.03),
        "bior1.3": Fid(2.07, 2.05),
    },
    "edm-ffhq-ve": {
        "amplitude": Fid(2.50, 2.51),
        "amplitude_phase": Fid(2.49, 2.50),
        "haar": Fid(2.50, 2.49),
        "bior1.3": Fid(2.51, 2.50),
    },
    "edm-ffhq-vp": {
        "amplitude": Fid(2.35, 2.31),
        "amplitude_phase": Fid(2.33, 2.34),
        "haar": Fid(2.33, 2.33),
        "bior1.3": Fid(2.34, 2.32),
    },
}
"""Table 1: by recipe and loss."""

TABLE1_UNTOUCHED: dict[str, float] = {
    "edm-cifar10-cond-ve": 1.81,
    "edm-cifar10-cond-vp": 1.84,
    "edm-afhqv2-ve": 2.17,
    "edm-afhqv2-vp": 2.04,
    "edm-ffhq-ve": 2.56,
    "edm-ffhq-vp": 2.38,
}
"""Table 1's last column: the checkpoint as it is."""


def fid(recipe: str, arm: str) -> float:
    """Table 1's number for a recipe and one of its arms, or "edm" for the untouched checkpoint."""
    if arm == "edm":
        return TABLE1_UNTOUCHED[recipe]
    loss = arm.removesuffix("-weighted")
    found = TABLE1[recipe][loss]
    return found.unweighted if loss == arm else found.weighted


class SoundRow(NamedTuple):
    """A row of Table 2."""

    fad: float
    utmos: float
    pesq: float
    mr_stft: float
    ndb: float


TABLE2: dict[str, SoundRow] = {
    "none": SoundRow(1.994, 3.941, 3.440, 1.217, 0.63),
    "amplitude@1e-4": SoundRow(1.462, 3.953, 3.477, 1.180, 0.65),
    "amplitude@1e-5": SoundRow(1.609, 3.953, 3.476, 1.193, 0.63),
    "amplitude@1e-6": SoundRow(1.775, 3.952, 3.491, 1.196, 0.64),
    "amplitude_phase@1e-4": SoundRow(1.694, 3.969, 3.516, 1.190, 0.66),
    "amplitude_phase@1e-5": SoundRow(1.543, 3.988, 3.495, 1.177, 0.59),
    "amplitude_phase@1e-6": SoundRow(1.539, 3.976, 3.344, 1.192, 0.65),
    "haar@1e-4": SoundRow(1.729, 3.965, 3.466, 1.171, 0.59),
    "haar@1e-5": SoundRow(1.992, 3.988, 3.485, 1.216, 0.66),
    "haar@1e-6": SoundRow(2.123, 3.923, 3.359, 1.234, 0.69),
    "bior1.3@1e-4": SoundRow(1.492, 3.977, 3.500, 1.177, 0.62),
    "bior1.3@1e-5": SoundRow(2.649, 3.927, 3.303, 1.295, 0.67),
    "bior1.3@1e-6": SoundRow(1.520, 3.985, 3.466, 1.179, 0.64),
}
"""Table 2: by loss@λ; "none" is its first row, DiffWave."""
