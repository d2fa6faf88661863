"""What a run on images needs of memory at least: of every sum only the terms that are certain."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from specreg._memory import Need
from specreg.modalities.images.config import ImageConfig

WORKER = 10_000_000
"""Bytes of a process that loads data, beside what it shares with the process that started it."""


def of_training(config: ImageConfig, processes: int) -> Iterator[Need]:
    """Yield what training takes in one of `processes`, with the network of the config or a smaller one."""
    data, model, training = config.data, config.model, config.training
    batch = training.batch_size // processes
    yield Need("data.resolution, training.batch_size", "a batch of images with its noise", 8 * batch * _numbers(config))
    yield Need("training.workers", "what loads data", WORKER * training.workers)
    if data.kind in ("checkerboard", "dead_leaves"):
        yield Need("data.count", "the order of an epoch", 8 * data.count)
    if model.kind == "pretrained":
        return
    # Every level has blocks on its way down and one more on its way up, of two 3×3 convolutions each.
    blocks = 2 * model.blocks + 1
    weights = sum(blocks * 18 * (model.width * multiplier) ** 2 for multiplier in model.multipliers)
    copies = 1 if torch.cuda.is_available() else 5  # with gradients, weight average, and Adam's two moments
    yield Need("model.width, model.multipliers, model.blocks", "the network in training", 4 * copies * weights)
    if not torch.cuda.is_available():
        side = data.resolution // model.patch_size
        levels = enumerate(model.multipliers)
        inputs = sum(blocks * (side >> level) ** 2 * model.width * multiplier for level, multiplier in levels)
        each = 2 if training.compile else 4  # inputs of convolutions, and of norms where nothing is computed again
        part = max(1, batch // training.accumulate)
        size = 4 if training.precision == "no" else 2
        fields = "data.resolution, training.batch_size, model.width"
        yield Need(fields, "what the network keeps for its gradients", size * each * part * inputs)


def of_sampling(config: ImageConfig) -> Iterator[Need]:
    """Yield what drawing sampling.count images takes."""
    sampling = config.sampling
    at_once = min(sampling.batch_size, sampling.count)
    yield Need("data.resolution, sampling.count", "all samples", sampling.count * _numbers(config))
    yield Need("data.resolution, sampling.batch_size", "samples drawn at once", 12 * at_once * _numbers(config))


def _numbers(config: ImageConfig) -> int:
    """Return how many numbers an image has; those of unknown channels have one."""
    return (config.data.channels or 1) * config.data.resolution**2
