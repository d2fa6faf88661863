"""Stand-in with the signatures of SimpleTuner at commit bc8e6ab: they stand in its helpers/models/common.py."""

from types import SimpleNamespace as Space


class Flux:
    PREDICTION_TYPE = Space(value="flow_matching")

    def get_prediction_target(self, prepared_batch):
        return prepared_batch["noise"] - prepared_batch["latents"]

    def auxiliary_loss(self, model_output, prepared_batch, loss, *, apply_layersync=True,
                       clear_hidden_state_buffer=True):  # fmt: skip
        return loss, None
