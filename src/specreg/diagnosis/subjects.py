"""What a diagnosis is of: the network of a run, checkpoint or pipeline, with its objective and real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from specreg import _checks, evaluation, losses, modalities, objectives
from specreg._files import array_fault
from specreg._torch_files import load_plain, load_safetensors
from specreg.config import Config, ConfigError
from specreg.data import ImageDataset
from specreg.denoising import DenoisingPowers, denoising_powers
from specreg.diffusion import noise_density
from specreg.modalities import Real
from specreg.models import pipeline_denoisers, pretrained
from specreg.objectives import Objective
from specreg.regularizer import SpectralRegularizer
from specreg.training.term import build_objective, restore_regularizer

DEFAULT_LOSS = "amplitude"
"""Loss whose pull is shown for networks that were trained without a term."""

_OBJECTIVES = {"edm": "edm", "vp": "vp", "ve": "ve", "iddpm": "edm"}
"""By a checkpoint's preconditioning, the noise density that it is looked at under."""


class Subject(NamedTuple):
    """A trained network and the real data that it denoises."""

    title: str
    objective: Objective
    network: nn.Module
    real: Real
    loss: str  # of the objective's term
    trained_with: str | None = None  # loss of the term that the network was trained with

    def powers(self, *, levels: int, bands: int | None, seed: int, batch_size: int) -> DenoisingPowers:
        """Return how the network denoises the data, see `denoising_powers`."""
        device = next(self.network.parameters()).device
        condition = None
        if self.real.condition is not None:
            condition = {name: values.to(device) for name, values in self.real.condition.items()}
        return denoising_powers(
            self.objective,
            self.network,
            self.real.x0.to(device),
            condition=condition,
            levels=levels,
            bands=bands,
            seed=seed,
            batch_size=batch_size,
        )


def open_subject(
    path: Path, data: Path | None, *, count: int, loss: str | None = None, device: torch.device | str = "cpu"
) -> Subject:
    """Return the network at `path` with up to `count` real data.

    Args:
        path: a run folder, an EDM checkpoint (.pkl, .safetensors, .pt), a DiffWave .pt or a diffusers pipeline folder.
        data: images or sound; float latents `[N, C, H, W]` (.npy, .safetensors) for a pipeline. None: a run's own.
        count: data at most.
        loss: spectral loss whose pull is measured; None: the run's own, or `DEFAULT_LOSS`.
        device: where the network runs.

    Raises ValueError or FileNotFoundError that names what is missing or does not fit.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a run folder, a checkpoint or a pipeline folder; there is none")
    if path.is_dir() and (path / "config.yaml").is_file():
        return _run(path, data, count, loss, device)
    if data is None:
        raise ConfigError(f"--data: expected real data to denoise, since {path} is no run folder; got nothing")
    if path.is_dir():
        if not pipeline_denoisers.is_pipeline(path):
            raise FileNotFoundError(
                f"{path}: expected a run folder with config.yaml or a pipeline with {pipeline_denoisers.INDEX}; "
                "it has neither"
            )
        return _pipeline(path, data, count, loss, device)
    return _checkpoint(path, data, count, loss, device)


def _run(path: Path, data: Path | None, count: int, loss: str | None, device: torch.device | str) -> Subject:
    trained = evaluation.load_trained(path, device, warn=_checks.warn)
    config = trained.config
    real = modalities.of(config).real(config, trained.network, path=data, count=count)
    objective = build_objective(config, device, saved=trained.description)
    if loss is None and objective.regularizer is not None and config.spectral is not None:
        restore_regularizer(objective.regularizer, trained.regularizer, step=trained.step)
        name = config.spectral.name
        return Subject(f"{path.name}, step {trained.step}", objective, trained.network, real, name, name)
    objective = modalities.of(config).objective(config, _term(loss), device=device, saved=trained.description)
    title = f"{path.name}, step {trained.step}"
    with_term = config.spectral.name if config.spectral is not None else None
    return Subject(title, objective, trained.network, real, loss or DEFAULT_LOSS, with_term)


def _checkpoint(path: Path, data: Path, count: int, loss: str | None, device: torch.device | str) -> Subject:
    config = _config(path, data)
    modality = modalities.of(config)
    network = modality.network(config, (getattr(config.data, "channels", None) or 1,), None).module.to(device).eval()
    real = modality.real(config, network, path=data, count=count)
    objective = modality.objective(config, _term(loss), device=device, saved=None)
    return Subject(path.name, objective, network, real, loss or DEFAULT_LOSS)


def _config(path: Path, data: Path) -> Config:
    """Return a checkpoint as the run that would start from it."""
    model = {"kind": "pretrained", "checkpoint": str(path)}
    if path.suffix in (".pt", ".pth") and _is_diffwave(path):
        sound = {"kind": "audio", "path": str(data), "test_path": str(data)}
        return modalities.parse({"data": sound, "model": model}, where=str(path))
    found = pretrained.read(path).config
    images = {
        "kind": "images",
        "path": str(data),
        "resolution": found.network["img_resolution"],
        "channels": found.network["img_channels"],
    }
    objective = {"objective": _OBJECTIVES[found.preconditioning]}
    return modalities.parse({"data": images, "model": model, "diffusion": objective}, where=str(path))


def _is_diffwave(path: Path) -> bool:
    content = load_plain(path)
    tensors = content.get("model") if isinstance(content, dict) else None
    return isinstance(tensors, dict) and any(str(name).startswith("residual_layers.") for name in tensors)


def _pipeline(path: Path, data: Path, count: int, loss: str | None, device: torch.device | str) -> Subject:
    found = pipeline_denoisers.read_pipeline(path)
    term = _term(loss)
    if found.axis == "timesteps":
        assert found.alphas_cumprod is not None
        prediction: Any = found.prediction
        objective = objectives.ddpm(found.alphas_cumprod.to(device), prediction, term)
    elif found.axis == "flow":
        objective = objectives.flow(noise_density.build("uniform"), "flow", term, scale=found.scale)
    else:
        objective = objectives.denoiser(regularizer=term)
    x0, labels = _for_pipeline(path, found, data, count)
    unit = "cycles per pixel" if found.encoder is None and found.channels in (1, 3) else "cycles per latent pixel"
    condition = None if labels is None else {"labels": labels}
    return Subject(
        path.name, objective, found.network.to(device).eval(), Real(x0, condition, unit), loss or DEFAULT_LOSS
    )


def _for_pipeline(
    path: Path, found: pipeline_denoisers.Pipeline, data: Path, count: int
) -> tuple[Tensor, Tensor | None]:
    """Return the data of a pipeline in the space of its network, and their classes where it is told them."""
    latents = _latents(data)
    labels: Tensor | None = None
    if latents is not None:
        x0 = latents[_spread(len(latents), count)].float()
    else:
        in_pixels = found.encoder is None
        if in_pixels and found.channels not in (1, 3):
            raise ValueError(
                f"{path}: its network takes {found.channels} channels and there is no vae folder to encode images; "
                f"expected latents [N, {found.channels}, H, W] as a float .npy; got {data}"
            )
        images = ImageDataset(data, resolution=found.side if in_pixels else None, channels=_channels(found))
        chosen = _spread(len(images), count)
        x0 = torch.stack([images.item(i) for i in chosen.tolist()])
        if found.encoder is not None:
            x0 = torch.cat([found.encoder(part) for part in torch.split(x0, 16)])
        if found.classes:
            known = [images.label(i) for i in chosen.tolist()]
            if any(label is None or not 0 <= label < found.classes for label in known):
                raise ValueError(f"{data}: expected labels from 0 to {found.classes - 1}, which {path} is told")
            labels = torch.tensor(known)
    if found.classes and labels is None:
        raise ValueError(f"{path}: its network is told classes; expected images with labels, got latents {data}")
    side = (found.side, found.side) if found.side else tuple(x0.shape[2:])
    if tuple(x0.shape[1:]) != (found.channels, *side):
        expected, got = [found.channels, *side], list(x0.shape[1:])
        raise ValueError(f"{data}: expected data of shape {expected} for the network of {path}; got {got}")
    return x0, labels


def _channels(found: pipeline_denoisers.Pipeline) -> Any:
    return 3 if found.encoder is not None else found.channels


def _spread(length: int, count: int) -> Tensor:
    return torch.from_numpy(np.linspace(0, length - 1, min(count, length)).round().astype(int))


def _latents(data: Path) -> Tensor | None:
    """Return the float tensor `[N, C, H, W]` in a file; None for images."""
    if data.suffix == ".safetensors":
        _, tensors = load_safetensors(data)
        if len(tensors) != 1:
            raise ValueError(f"{data}: expected one tensor of latents; got {', '.join(sorted(tensors)) or 'none'}")
        found = next(iter(tensors.values()))
    elif data.suffix == ".npy" and data.is_file():
        try:
            array = np.load(data, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"cannot read the array {data}: {array_fault(data, error)}") from None
        if array.dtype == np.uint8:
            return None
        if array.dtype.kind != "f":
            raise ValueError(f"{data}: expected float latents or uint8 images; got {array.dtype}")
        found = torch.from_numpy(np.array(array, dtype=np.float32))
    else:
        return None
    if found.ndim != 4 or not found.is_floating_point() or not bool(found.isfinite().all()):
        raise ValueError(f"{data}: expected finite float latents [N, C, H, W]; got {found.dtype} {list(found.shape)}")
    return found


def _term(loss: str | None) -> SpectralRegularizer:
    # λ and the weight by noise level do not matter to shares within a level; "snr" suits every prediction.
    return SpectralRegularizer(losses.build(loss or DEFAULT_LOSS), weight=1.0, noise_weight="snr")
