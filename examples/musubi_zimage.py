"""musubi-tuner's Z-Image trainer with the term, started as its own script is, with its options.

accelerate launch musubi_zimage.py --dit … --vae … --text_encoder … --dataset_config … --output_dir …
"""

from musubi_tuner import zimage_train_network as script

import specreg
from specreg.integrations.musubi import with_term

regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
script.ZImageNetworkTrainer = with_term(script.ZImageNetworkTrainer, regularizer)

if __name__ == "__main__":
    script.main()
