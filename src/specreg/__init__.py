"""specreg: spectral regularization for diffusion models.

    regularizer = specreg.SpectralRegularizer("amplitude", weight=specreg.AutoWeight())
    level = specreg.NoiseLevel.ddpm(alphas_cumprod[t])  # or .edm(sigma), .flow(t), .from_diffusers(scheduler, t)
    x0_hat = specreg.recover_x0(model_output, x_t, level, prediction="epsilon")  # v, x0, flow, score, edm
    (base_loss + regularizer(x0_hat, x0, level, base_loss=base_loss, output=model_output).loss).backward()

Importing it loads torch, numpy and PyWavelets, nothing heavier.
"""

from specreg import losses
from specreg.auto_weight import AutoWeight
from specreg.diffusion import NoiseLevel, check_wiring, ddim_estimate, recover_x0, x0_pair
from specreg.diffusion import band_weight as band_weights
from specreg.diffusion import noise_weight as noise_weights
from specreg.regularizer import SpectralRegularizer, SpectralTerm
from specreg.watch import unpack_tokens, watch

__version__ = "0.1.0"

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
