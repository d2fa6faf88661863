"""Spectral L1 losses and a multi-resolution STFT loss on the predicted clean sample, as functions and as modules."""

from specreg.losses.decoded import Decoded
from specreg.losses.functional import amplitude, amplitude_phase, wavelet
from specreg.losses.modules import Amplitude, AmplitudePhase, SpectralLoss, Sum, Wavelet, sees_difference_alone
from specreg.losses.registry import LOSSES, build
from specreg.losses.stft import MultiResolutionSTFT

__all__ = [
    "LOSSES",
    "Amplitude",
    "AmplitudePhase",
    "Decoded",
    "MultiResolutionSTFT",
    "SpectralLoss",
    "Sum",
    "Wavelet",
    "amplitude",
    "amplitude_phase",
    "build",
    "sees_difference_alone",
    "wavelet",
]
