"""specreg: spectral regularization for diffusion models.

    regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")  # once, before the loop
    # in the loop:
    level = specreg.NoiseLevel.ddpm(alphas_cumprod[t])  # or .edm(sigma), .flow(t), .from_diffusers(scheduler, t)
    term = regularizer.from_output(model_output, target, level, prediction="v", x0=x0, base_loss=base_loss)
    (base_loss + term.loss).backward()  # or epsilon, x0 (EDM's denoised), flow, velocity, score, a scheduler

Importing it loads torch, numpy and PyWavelets, nothing heavier.
"""

from specreg._signals import quietly_if_command

with quietly_if_command():
    from specreg import losses
    from specreg.auto_weight import AutoWeight
    from specreg.diffusion import NoiseLevel, check_wiring, ddim_estimate, recover_x0, x0_pair
    from specreg.diffusion import band_weight as band_weights
    from specreg.diffusion import noise_weight as noise_weights
    from specreg.regularizer import SpectralRegularizer
    from specreg.spectral_term import SpectralTerm
    from specreg.watch import unpack_tokens, watch

__version__ = "0.2.0"

__all__ = [
    "AutoWeight",
    "NoiseLevel",
    "SpectralRegularizer",
    "SpectralTerm",
    "__version__",
    "band_weights",
    "check_wiring",
    "ddim_estimate",
    "losses",
    "noise_weights",
    "recover_x0",
    "unpack_tokens",
    "watch",
    "x0_pair",
]
