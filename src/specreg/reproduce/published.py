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
