"""specreg: spectral regularization for diffusion models.

    reg = specreg.SpectralRegularizer("amplitude_phase", weight=0.1)
    level = specreg.NoiseLevel.ddpm(alphas_cumprod[t])
    x0_hat = specreg.recover_x0(model_output, x_t, level, prediction="epsilon")
    loss = base_loss + reg(x0_hat, x0, level).loss

Importing it loads torch, numpy and PyWavelets, nothing heavier.
"""

from specreg import losses
from specreg.auto_weight import AutoWeight
from specreg.diffusion import NoiseLevel, ddim_estimate, recover_x0
from specreg.diffusion import band_weight as band_weights
from specreg.diffusion import noise_weight as noise_weights
from specreg.regularizer import SpectralRegularizer, SpectralTerm

__version__ = "0.1.0"

__all__ = [
    "AutoWeight",
    "NoiseLevel",
    "SpectralRegularizer",
    "SpectralTerm",
    "__version__",
    "band_weights",
    "ddim_estimate",
    "losses",
    "noise_weights",
    "recover_x0",
]
