"""Noise levels, schedules, parameterizations and samplers: everything between x0 and x_t."""

from specreg.diffusion.noise_level import NoiseLevel
from specreg.diffusion.pair import check_wiring, x0_pair
from specreg.diffusion.parameterization import Prediction, coefficients, ddim_estimate, recover_x0, target
from specreg.diffusion.precond import Preconditioned, Preconditioning
from specreg.diffusion.samplers import Churn, StackedGenerator, ancestral, ddim, edm_sigmas, flow, heun
from specreg.diffusion.schedules import alphas_cumprod, fractional_timestep, vp_sigma, vp_t

__all__ = [
    "Churn",
    "NoiseLevel",
    "Preconditioned",
    "Preconditioning",
    "Prediction",
    "StackedGenerator",
    "alphas_cumprod",
    "ancestral",
    "check_wiring",
    "coefficients",
    "ddim",
    "ddim_estimate",
    "edm_sigmas",
    "flow",
    "fractional_timestep",
    "heun",
    "recover_x0",
    "target",
    "vp_sigma",
    "vp_t",
    "x0_pair",
]
