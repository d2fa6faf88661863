"""Spectral L1 losses on the predicted clean sample, as functions and as modules."""

from specreg.losses.functional import amplitude, amplitude_phase, wavelet
from specreg.losses.modules import LOSSES, Amplitude, AmplitudePhase, SpectralLoss, Wavelet, build

__all__ = [
    "LOSSES",
    "Amplitude",
    "AmplitudePhase",
    "SpectralLoss",
    "Wavelet",
    "amplitude",
    "amplitude_phase",
    "build",
    "wavelet",
]
