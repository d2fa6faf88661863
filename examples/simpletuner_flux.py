"""SimpleTuner's Flux with the term: a file beside its config folder, started in the place of its train.py.

accelerate launch simpletuner_flux.py
"""

import runpy

from simpletuner.helpers.models.flux.model import Flux

import specreg
from specreg.integrations.simpletuner import add_term

add_term(Flux, specreg.SpectralRegularizer("amplitude", weight="auto"))

if __name__ == "__main__":
    runpy.run_module("simpletuner.train", run_name="__main__")
