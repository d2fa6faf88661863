"""diffusion-pipe's Flux with the term: a file beside its train.py, started in its place.

deepspeed --num_gpus=1 diffusion_pipe_flux.py --deepspeed --config ….toml
"""

import runpy
from typing import Any

import specreg
from models import flux
from specreg.integrations.diffusion_pipe import add_term


class Flux(flux.FluxPipeline):  # type: ignore[misc]
    """Its model, whose inputs and loss the term joins; features[3] are its times, tokens are 2×2 squares."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
        add_term(self, regularizer, time=lambda features: features[3], patch=2)


flux.FluxPipeline = Flux  # train.py takes it from there

if __name__ == "__main__":
    runpy.run_path("train.py", run_name="__main__")
