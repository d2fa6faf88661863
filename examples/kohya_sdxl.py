"""sd-scripts' SDXL LoRA trainer with the term: a file beside sdxl_train_network.py, started as that is.

accelerate launch kohya_sdxl.py --pretrained_model_name_or_path … --dataset_config … --network_module networks.lora …
"""

import sdxl_train_network as script
from library import train_util

import specreg
from specreg.integrations.kohya import with_term

regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
Trainer = with_term(script.SdxlNetworkTrainer, regularizer)

if __name__ == "__main__":  # as their script ends
    parser = script.setup_parser()
    args = parser.parse_args()
    train_util.verify_command_line_training_args(args)
    Trainer().train(train_util.read_config_from_file(args, parser))
