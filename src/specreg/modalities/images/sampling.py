"""Drawing images from a trained network, each from a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from specreg import diffusion, models
from specreg.diffusion import StackedGenerator
from specreg.metrics import spectra
from specreg.modalities.images.config import ImageConfig
from specreg.modalities.images.data import all_labels, open_images
from specreg.modalities.images.networks import build_objective, schedule
from specreg.modalities.protocol import Device, check_samples


@torch.no_grad()
def draw_images(
    config: ImageConfig,
    network: nn.Module,
    shape: Sequence[int],
    indices: range,
    *,
    device: Device = "cpu",
    finish: Callable[[Tensor], Tensor] = spectra.to_uint8,
) -> Tensor:
    """Return the samples of `indices` as uint8 images `[N, C, H, W]` of `shape` `(C, H, W)`; i has seed + i.

    `finish` maps what the sampler returns to what is kept of it, batch by batch.
    """
    settings = config.sampling
    denoiser = partial(_by_sigma, classes=_classes(config, network).to(device))
    draw = {"ddpm": _by_timestep, "flow": _by_flow}.get(config.diffusion.objective, denoiser)
    images = [finish(torch.empty(0, *shape))]
    for start in range(indices.start, indices.stop, settings.batch_size):
        stop = min(start + settings.batch_size, indices.stop)
        generator = StackedGenerator(range(settings.seed + start, settings.seed + stop), device)
        latents = generator.randn((len(generator), *shape))
        images.append(finish(check_samples(draw(config, network, latents, generator))).cpu())
    return torch.cat(images)


def describe_sampler(config: ImageConfig) -> str:
    """Return the sampler and its steps in words."""
    settings = config.sampling
    if settings.sampler == "ancestral":
        return "ancestral"
    if settings.sampler == "ddim":
        return f"DDIM, {settings.steps} steps, eta {settings.eta:g}"
    churn = f", churn {settings.churn:g}" if settings.churn else ""
    return f"{settings.sampler.capitalize()}, {settings.steps} steps{churn}"


def _by_timestep(config: ImageConfig, network: nn.Module, latents: Tensor, generator: StackedGenerator) -> Tensor:
    settings, objective = config.sampling, build_objective(config, None, latents.device)
    clip = (-1.0, 1.0) if settings.clip else None

    def predict_x0(x_t: Tensor, t: Tensor) -> Tensor:
        return objective.predict_x0(network, x_t, t)

    if settings.sampler == "ancestral":
        return diffusion.ancestral(predict_x0, latents, schedule(config), generator=generator, clip=clip)
    return diffusion.ddim(
        predict_x0, latents, schedule(config), steps=settings.steps, eta=settings.eta, generator=generator, clip=clip
    )


def _by_flow(config: ImageConfig, network: nn.Module, latents: Tensor, generator: StackedGenerator) -> Tensor:
    settings, objective = config.sampling, build_objective(config, None, latents.device)

    def predict_x0(x_t: Tensor, t: Tensor) -> Tensor:
        return objective.predict_x0(network, x_t.float(), t.float())

    return diffusion.flow(predict_x0, latents, steps=settings.steps, second_order=settings.sampler == "heun")


def _classes(config: ImageConfig, network: nn.Module) -> Tensor:
    """Return the classes of which each sample's is drawn, int64 `[N]`; none for a network that is told none."""
    classes = models.conditioning(network).classes
    if not classes or config.sampling.classes == "equal":
        return torch.arange(classes)
    return torch.from_numpy(all_labels(open_images(config.data), config, classes))


def _by_sigma(
    config: ImageConfig, network: nn.Module, latents: Tensor, generator: StackedGenerator, *, classes: Tensor
) -> Tensor:
    """Draw from a denoiser; each sample's latents, class and churn come from its own seed, in that order."""
    settings = config.sampling
    condition = {"labels": classes[generator.randint(len(classes))]} if len(classes) else {}

    def predict_x0(x: Tensor, sigma: Tensor) -> Tensor:
        denoised: Tensor = network(x, sigma, **condition)
        return denoised

    return diffusion.heun(
        predict_x0,
        latents,
        steps=settings.steps,
        sigma_min=settings.sigma_min,
        sigma_max=settings.sigma_max,
        rho=settings.rho,
        churn=diffusion.Churn(settings.churn, settings.churn_min, settings.churn_max, settings.churn_noise),
        generator=generator,
        second_order=settings.sampler == "heun",
        preconditioning=getattr(network, "preconditioning", None),
    )
