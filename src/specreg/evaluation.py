"""A trained run -> samples -> metrics -> `results.json`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from specreg import diffusion, evaluation_audio, evaluation_images, models
from specreg._files import write_json
from specreg.denoising import DenoisingMap, denoising_map
from specreg.diffusion import StackedGenerator
from specreg.evaluation_audio import SoundTruth
from specreg.evaluation_images import Truth, load_images, measure, save_images
from specreg.metrics import spectra
from specreg.models.diffwave import DiffWave
from specreg.models.network_config import NetworkConfig
from specreg.models.pretrained import Pretrained
from specreg.training import checkpoint
from specreg.training import config as configs
from specreg.training.build import build_network, build_objective, build_schedule, restore_regularizer
from specreg.training.config import Config, ConfigError

METRICS = {**evaluation_images.METRICS, **evaluation_audio.METRICS}

RESULTS_VERSION = 3
"""Of what results.json holds; results of another version are measured again, without training."""


def load_truth(config: Config, *, count: int = 2048, device: torch.device | str = "cpu") -> Truth | SoundTruth:
    """What samples are measured against: held-out clips of sound, or up to `count` real images."""
    if config.data.kind == "audio":
        return evaluation_audio.load_truth(config, device=device)
    return load_images(config, count=count, device=device)


class Trained(NamedTuple):
    """The averaged network of a run, and what it was trained for."""

    config: Config
    model: nn.Module
    shape: tuple[int, ...]  # of an image, (C, H, W)
    step: int
    seconds: float  # of training
    regularizer: dict[str, Any] | None  # state of λ at that step


def load_model(folder: Path, device: torch.device | str = "cpu") -> Trained:
    """Load a run folder's last checkpoint; the training data need not be there."""
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: expected a run folder with a config.yaml; there is none")
    config = configs.load(folder / "config.yaml")
    found = checkpoint.latest(folder / "checkpoints")
    if found is None:
        raise ConfigError(f"{folder / 'checkpoints'}: expected a checkpoint; there is none yet")
    weights, state = checkpoint.load_ema(found)
    shape = tuple(state["shape"])
    model = build_network(config, shape[0], saved=state.get("network")).module.to(device).eval()
    model.load_state_dict(weights)
    return Trained(config, model, shape, state["step"], state["seconds"], state.get("regularizer"))


def trained_diffwave(folder: Path) -> Trained | None:
    """A run folder's last checkpoint where the run is of a DiffWave; None where it is of another kind."""
    path = folder / "config.yaml"
    sound = path.is_file() and configs.load(path).data.kind == "audio"
    return load_model(folder) if sound else None


def averaged_network(folder: Path) -> Pretrained:
    """The averaged weights of a run of an EDM network, as a checkpoint that can be saved and fine-tuned further."""
    found = checkpoint.latest(folder / "checkpoints")
    if found is None:
        raise ConfigError(f"{folder / 'checkpoints'}: expected a checkpoint; there is none yet")
    weights, state = checkpoint.load_ema(found)
    network = state.get("network") or {}
    if "denoiser" not in network:
        raise ConfigError(f"{folder}: expected a run of an EDM network; got another kind")
    return Pretrained(NetworkConfig(**network["denoiser"]), weights, str(found))


@torch.no_grad()
def draw_samples(
    config: Config, model: nn.Module, shape: tuple[int, ...], *, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw `sampling.count` images of `shape` `(C, H, W)`: uint8 `[N, C, H, W]`, image i from its own seed."""
    settings = config.sampling
    if config.diffusion.objective != "ddpm":
        return _draw_by_sigma(config, model, shape, torch.device(device))
    objective, schedule = build_objective(config, device), build_schedule(config)
    clip = (-1.0, 1.0) if settings.clip else None
    images = []
    for start in range(0, settings.count, settings.batch_size):
        stop = min(start + settings.batch_size, settings.count)
        generator = StackedGenerator(range(settings.seed + start, settings.seed + stop), device)
        latents = generator.randn((len(generator), *shape))

        def predict_x0(x_t: Tensor, t: Tensor) -> Tensor:
            return objective.predict_x0(model, x_t, t)

        if settings.sampler == "ancestral":
            x = diffusion.ancestral(predict_x0, latents, schedule, generator=generator, clip=clip)
        else:
            x = diffusion.ddim(
                predict_x0,
                latents,
                schedule,
                steps=settings.steps,
                eta=settings.eta,
                generator=generator,
                clip=clip,
            )
        images.append(spectra.to_uint8(x).cpu())
    return torch.cat(images)


def _draw_by_sigma(config: Config, model: nn.Module, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw from a denoiser; each sample's latents, class and churn come from its own seed, in that order."""
    settings = config.sampling
    churn = diffusion.Churn(settings.churn, settings.churn_min, settings.churn_max, settings.churn_noise)
    classes = models.conditioning(model).classes
    images = []
    for start in range(0, settings.count, settings.batch_size):
        stop = min(start + settings.batch_size, settings.count)
        generator = StackedGenerator(range(settings.seed + start, settings.seed + stop), device)
        latents = generator.randn((len(generator), *shape))
        condition = {"labels": generator.randint(classes)} if classes else {}

        def predict_x0(x: Tensor, sigma: Tensor, condition: dict[str, Tensor] = condition) -> Tensor:
            denoised: Tensor = model(x, sigma, **condition)
            return denoised

        x = diffusion.heun(
            predict_x0,
            latents,
            steps=settings.steps,
            sigma_min=settings.sigma_min,
            sigma_max=settings.sigma_max,
            rho=settings.rho,
            churn=churn,
            generator=generator,
            second_order=settings.sampler == "heun",
            preconditioning=getattr(model, "preconditioning", None),
        )
        images.append(spectra.to_uint8(x).cpu())
    return torch.cat(images)


def measure_denoising(
    trained: Trained, truth: Truth, *, count: int = 64, device: torch.device | str = "cpu"
) -> DenoisingMap:
    """How the network denoises `count` images of the truth, and where its spectral term pulls with its last λ."""
    objective = build_objective(trained.config, device)
    restore_regularizer(objective.regularizer, trained.regularizer)
    labelled = truth.labels is not None and models.conditioning(trained.model).classes > 0
    condition = {"labels": truth.labels[:count].to(device)} if labelled and truth.labels is not None else None
    x0 = spectra.from_uint8(truth.images[:count]).to(device)
    return denoising_map(objective, trained.model, x0, condition=condition)


def evaluate(
    folder: Path,
    truth: Truth | SoundTruth,
    *,
    arm: str | None = None,
    command: str | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Sample the run in `folder`, measure, and write `samples/` and `results.json`; returns the results."""
    trained = load_model(folder, device)
    config, model, _, step, seconds, _ = trained
    if isinstance(truth, SoundTruth):
        assert isinstance(model, DiffWave)
        found = evaluation_audio.evaluate(config, model, truth, folder, device=device)
    else:
        found = _evaluate_images(trained, truth, folder, device)
    results = {
        "version": RESULTS_VERSION,
        "title": config.title,
        "command": command,
        "arm": arm or (config.spectral.name if config.spectral else "none"),
        "seed": config.seed,
        "step": step,
        "sampling": config.sampling.model_dump(),
        **found,
        "timing": {**timing(folder / "metrics.jsonl"), "train_seconds": seconds},
        "truth": truth_record(config, truth),
        "truth_sha256": truth.fingerprint,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    write_json(folder / "results.json", results)
    return results


def _evaluate_images(trained: Trained, truth: Truth, folder: Path, device: torch.device | str) -> dict[str, Any]:
    """Images drawn and measured: that part of results.json."""
    config = trained.config
    images = draw_samples(config, trained.model, trained.shape, device=device)
    values, spectrum = measure(images, config, truth, device=device)
    denoised = measure_denoising(trained, truth, device=device)
    values |= {"denoising_error_db": denoised.error_db(), "denoising_high_db": denoised.error_db(low=0.25)}
    save_images(folder / "samples" / "samples.npy", images)
    return {
        "samples": len(images),
        "sampler": _described_sampler(config),
        "metrics": values,
        "described": {name: METRICS[name]._asdict() for name in values},
        "missing": {METRICS[name].label: why for name, why in (truth.missing or {}).items()},
        "spectrum": spectrum_record(spectrum),
        "denoising": denoised.record(),
    }


def _described_sampler(config: Config) -> str:
    settings = config.sampling
    if settings.sampler == "heun":
        return f"Heun, {settings.steps} steps" + (f", churn {settings.churn:g}" if settings.churn else "")
    return f"DDIM, {settings.steps} steps, eta {settings.eta:g}" if settings.sampler == "ddim" else "ancestral"


def truth_record(config: Config, truth: Truth | SoundTruth) -> dict[str, Any]:
    """The truth as the report shows it: its spectrum, and what real images score.

    Distances are those of some real images to the others, the floor of what samples can reach: as many as there are
    samples, or half of the truth where it is small.
    """
    if isinstance(truth, SoundTruth):
        return truth.record()
    count = min(config.sampling.count, len(truth.images) // 2)
    chosen = torch.zeros(len(truth.images), dtype=torch.bool)
    chosen[torch.linspace(0, len(chosen) - 1, count).round().long()] = True
    some, others = truth.part(chosen), truth.part(~chosen)
    values, _ = measure(some.images, config, others, features=some.features)
    return {
        "samples": len(truth.images),
        "spectrum": spectrum_record(truth.spectrum),
        "metrics": {("" if METRICS[name].absolute else "floor: ") + name: value for name, value in values.items()},
    }


def timing(log: Path) -> dict[str, float]:
    """Median seconds a step over the logged steps of a run, from its metrics.jsonl; empty without whole lines."""
    seconds = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            seconds.append(float(json.loads(line)["seconds_per_step"]))
        except (ValueError, KeyError, TypeError):
            continue  # the torn last line of a run that was killed
    return {"seconds_per_step": statistics.median(seconds)} if seconds else {}


def spectrum_record(spectrum: spectra.MeanSpectrum) -> dict[str, list[float]]:
    """A spectrum as it stands in results.json."""
    return {"frequency": spectrum.frequency.tolist(), "power": spectrum.power.tolist()}
