"""ai-toolkit's SDTrainer with the term: a file beside its run.py, started as that is. Configs stay as they are.

python ai_toolkit.py config/….yaml
"""

import run  # first: it sets what the libraries read when they are imported
from extensions_built_in.sd_trainer import SDTrainer as home

import specreg
from specreg.integrations.ai_toolkit import with_term

# Its extensions import the class from there when a job starts, those that derive from it too.
home.SDTrainer = with_term(home.SDTrainer, specreg.SpectralRegularizer("amplitude", weight="auto"))

if __name__ == "__main__":
    run.main()
