"""Everything that differs from one kind of data to another, behind one protocol: the registry by `data.kind`.

The trainer, comparisons, evaluation, the commands and the report know a modality by `Modality` alone. A new kind of
data is a new file that implements it and is registered here, or by `register` from elsewhere.
"""

from specreg.modalities.protocol import Denoised, Modality, Network, Prepared, Real, Scores, Truth
from specreg.modalities.registry import KINDS, find, load, of, parse, refuse_too_large, register

__all__ = [
    "KINDS",
    "Denoised",
    "Modality",
    "Network",
    "Prepared",
    "Real",
    "Scores",
    "Truth",
    "find",
    "load",
    "of",
    "parse",
    "refuse_too_large",
    "register",
]
