"""What the rest of the package asks of a kind of data.

A modality is stateless: every method takes the run's config, which is an instance of the modality's own `config` class.
Samples are handled in parts, so that several processes can draw and analyse a share each: `draw` draws a part,
`analyse` does all work of the metrics that concerns each sample alone, `join` puts parts together, `score` does the
rest, which is cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset

from specreg._memory import Need
from specreg.config import Config, ConfigError
from specreg.denoising import DenoisingMap
from specreg.metrics.info import MetricInfo
from specreg.objectives import Objective
from specreg.regularizer import SpectralRegularizer

Device = torch.device | str
Description = Mapping[str, Any]
"""A network as plain values, as a run's checkpoints hold it: what builds the same network again."""


class NotFinite(ValueError):
    """What a network draws, or what is measured of it, is NaN or infinite: its training diverged."""


def check_samples(x: torch.Tensor) -> torch.Tensor:
    """Return samples; raises NotFinite where a value is none."""
    if not bool(x.isfinite().all()):
        raise NotFinite("the network's samples are not finite: its training diverged (a lower learning rate may help)")
    return x


class Network(NamedTuple):
    """A network with initial weights, and its description where the run's config does not say all of it."""

    module: nn.Module
    description: dict[str, Any] | None


class Prepared(NamedTuple):
    """What training needs of a modality."""

    network: Network
    items: Dataset[dict[str, torch.Tensor]]  # by (step, index in the global batch): "x0" and conditioning by keyword
    shape: tuple[int, ...]  # of one x0, (C, *space)
    memory_format: torch.memory_format = torch.preserve_format  # of the network on a GPU


class Scores(NamedTuple):
    """What was measured, and what was not."""

    values: dict[str, float]  # by the modality's names of metrics
    missing: dict[str, str] = {}  # noqa: RUF012  # by name, why a metric could not be computed
    failures: dict[str, dict[str, str]] = {}  # noqa: RUF012  # by name, samples without a value and why
    record: dict[str, Any] = {}  # noqa: RUF012  # what else belongs into results.json, such as a spectrum


class Denoised(NamedTuple):
    """One-step denoising of real data: the map over noise levels and bands, and the metrics read off it."""

    map: DenoisingMap
    values: dict[str, float]


class Features(Protocol):
    """A network that maps samples to feature vectors, for Frechet distances."""

    @property
    def name(self) -> str:
        """What identifies the features, weights included; statistics of other features are not mixed with these."""

    @property
    def dimensions(self) -> int:
        """Length of a feature vector."""

    def __call__(self, samples: torch.Tensor, /) -> torch.Tensor:
        """Return the features `[N, dimensions]` of samples in the form in which the modality draws them."""


class Real(NamedTuple):
    """Real data on which a network's denoising is measured, with the name of their frequencies."""

    x0: torch.Tensor  # [N, C, *space]
    condition: dict[str, torch.Tensor] | None = None  # by the network's keywords, each [N, …]
    unit: str = "cycles per pixel"
    scale: float = 1.0  # `scale` times cycles per sample is in `unit`


class Truth(Protocol):
    """Real data that samples are measured against."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the data and of all that decides what is measured against them."""

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one x0, (C, *space)."""

    @property
    def prompts(self) -> Any:
        """What samples are drawn from, as `Modality.prompts` returns it."""

    def save(self, folder: Path) -> None:
        """Write some of the data in the form in which samples are written."""

    def record(self) -> dict[str, Any]:
        """Return the truth as results.json has it: what it is called, how many, its spectrum, what it scores itself."""


class Modality(Protocol):
    """One kind of data: its config, data sets, networks, objectives, samples and metrics.

    A class that derives from this one has to say what is not implemented here.
    """

    @property
    def config(self) -> type[Config]:
        """The class of a run's config."""

    @property
    def metrics(self) -> Mapping[str, MetricInfo]:
        """How each metric is shown and read; the first that was measured stands for a cell in a line of text."""

    def needs(self, config: Any, *, processes: int | None) -> Iterable[Need]:
        """Yield what training in one of `processes`, and drawing samples, needs of memory at least; here nothing.

        `processes` is None where samples are drawn alone. Nothing may be built for the answer.
        """
        return ()

    def prepare(self, config: Any, saved: Description | None) -> Prepared:
        """Open the training data and build the network with its initial weights.

        `saved` describes the network where a checkpoint of the run exists. Raises ConfigError where data, network and
        run do not fit.
        """

    def network(self, config: Any, shape: Sequence[int], saved: Description | None) -> Network:
        """Build the network of a run for x0 of `shape`, without the training data where `saved` describes it."""

    def objective(
        self, config: Any, regularizer: SpectralRegularizer | None, *, device: Device, saved: Description | None
    ) -> Objective:
        """Return the training objective on `device`; `saved` describes the network."""

    def truth(self, config: Any, *, device: Device, scored: bool = True) -> Truth:
        """Load the real data that samples are measured against; `scored`: with what these data score themselves."""

    def prompts(self, config: Any, saved: Description | None) -> Any:
        """Load what samples are drawn from beside noise, such as recordings to vocode; here nothing."""
        return None

    def count(self, config: Any, prompts: Any) -> int:
        """Return how many samples a run draws: here sampling.count."""
        number: int = config.sampling.count
        return number

    def draw(
        self, config: Any, network: nn.Module, shape: Sequence[int], prompts: Any, indices: range, *, device: Device
    ) -> Any:
        """Draw the samples of `indices`; sample i depends on seed sampling.seed + i and not on the others."""

    def analyse(self, config: Any, samples: Any, truth: Any, *, device: Device) -> Any:
        """Return the samples with all work of the metrics done that concerns each sample alone: here none."""
        return samples

    def join(self, parts: Sequence[Any]) -> Any:
        """Return the samples of several processes as one, in the order of the parts; here tensors, concatenated."""
        return torch.cat(list(parts))

    def score(self, config: Any, samples: Any, truth: Any) -> Scores:
        """Return the metrics of analysed samples."""

    def denoise(
        self, config: Any, objective: Objective, network: nn.Module, truth: Any, *, device: Device
    ) -> Denoised | None:
        """Measure one-step denoising of real data; here it is not measured."""
        return None

    def real(self, config: Any, network: nn.Module, *, path: Path | None, count: int) -> Real:
        """Return up to `count` real data, spread over the set at `path`; None: the run's own, held out where it can.

        Here ConfigError: they are not known.
        """
        raise ConfigError(f"data.kind: networks of {config.data.kind} cannot be diagnosed")

    @property
    def calibrates(self) -> bool:
        """Whether `calibrate` is implemented; here it is not."""
        return False

    def calibrate(self, config: Any, objective: Objective, network: nn.Module, *, device: Device) -> nn.Module:
        """Return the network with its own gain applied, measured on training data (see `specreg.calibrated`)."""
        raise ConfigError(f"data.kind: networks of {config.data.kind} cannot be calibrated")

    def pack(self, samples: Any) -> dict[str, torch.Tensor]:
        """Return drawn samples as tensors by name, which `unpack` reads back; here the samples are one tensor."""
        return {"samples": samples}

    def unpack(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Return the samples that `pack` was given."""
        return tensors["samples"]

    def describe_sampler(self, config: Any, network: nn.Module) -> str:
        """Return the sampler and its steps in words; here its name."""
        name: str = config.sampling.sampler
        return name

    def save(self, samples: Any, folder: Path) -> None:
        """Write samples for the report, in one of the forms that it shows (see `specreg.report.schema`)."""

    def export_samples(self, samples: Any, folder: Path, *, first: int) -> str:
        """Write samples for people, named by their seeds from `first` on; return what was written in words."""
        self.save(samples, folder)
        return "samples"

    def export_network(
        self, target: Path, config: Any, network: nn.Module, saved: Description | None, step: int
    ) -> str:
        """Write a trained network in a public format and return what it is; ConfigError where there is none."""
        raise ConfigError(f"data.kind: there is no public format for networks of data.kind {config.data.kind}")


class Streamed(Protocol):
    """A modality whose samples can be scored in any number, without keeping them."""

    def reference(self, config: Any, cache: Path, features: Features | None) -> Any:
        """Return the statistics of all data at data.path, from `cache` where it holds them."""

    def stream(
        self,
        config: Any,
        network: nn.Module,
        shape: Sequence[int],
        folder: Path,
        reference: Any,
        *,
        features: Features | None,
        made_of: Mapping[str, Any],
        device: Device,
    ) -> dict[str, float]:
        """Draw sampling.count samples and return their metrics by name; an interrupted score is continued.

        `made_of` describes the network's weights: sums made of other weights, samplers or data are not continued.
        """
