"""Spectral losses on the predicted clean sample: the paper's, and any TRANSFORM:COMPARISON."""

from specreg.losses.compared import Compared
from specreg.losses.decoded import Decoded
from specreg.losses.functional import amplitude, amplitude_phase, wavelet
from specreg.losses.grammar import COMPARISONS, TRANSFORMS
from specreg.losses.modules import Amplitude, AmplitudePhase, SpectralLoss, Sum, Wavelet, sees_difference_alone
from specreg.losses.registry import LOSSES, as_loss, build
from specreg.losses.stft import MultiResolutionSTFT

__all__ = [
    "COMPARISONS",
    "LOSSES",
    "TRANSFORMS",
    "Amplitude",
    "AmplitudePhase",
    "Compared",
    "Decoded",
    "MultiResolutionSTFT",
    "SpectralLoss",
    "Sum",
    "Wavelet",
    "amplitude",
    "amplitude_phase",
    "as_loss",
    "build",
    "sees_difference_alone",
    "wavelet",
]
