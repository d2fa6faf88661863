"""OneTrainer's Flux setups with the term: a file beside its scripts/train.py, started as that is.

python scripts/onetrainer_flux.py --config-path …
"""

from util.import_util import script_imports

script_imports()  # as their script does, before its other imports
# ruff: noqa: E402

import train
from modules.modelSetup.BaseFluxSetup import BaseFluxSetup

import specreg
from specreg.integrations.onetrainer import add_term

# Not under the line below: the processes that it starts for several GPUs import this file too.
add_term(BaseFluxSetup, specreg.SpectralRegularizer("amplitude", weight="auto"))

if __name__ == "__main__":
    train.main()
