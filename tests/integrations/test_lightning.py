"""Lightning's own checkpoints with a regularizer inside the module, saved and resumed by Lightning."""

import subprocess
import sys

import lightning
import torch

import specreg
from specreg.integrations.lightning import KeepRegularizer

DATA = torch.utils.data.DataLoader(torch.randn(24, 1, 8, 8), batch_size=4)


class Module(lightning.LightningModule):
    def __init__(self, regularized=True):
        super().__init__()
        self.network = torch.nn.Conv2d(1, 1, 3, padding=1)
        if regularized:
            self.regularizer = specreg.SpectralRegularizer("amplitude", weight="auto", warmup=20)

    def training_step(self, x0, index):
        noise, level = torch.randn_like(x0), specreg.NoiseLevel.flow(torch.full((len(x0),), 0.5))
        output = self.network(level.diffuse(x0, noise))
        loss = (output - x0).square().mean()
        return loss + self.regularizer.from_output(output, x0, level, prediction="x0", x0=x0, base_loss=loss).loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(module, folder, epochs):
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[KeepRegularizer(module.regularizer)], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip


def test_lightning_saves_and_resumes_lambda(tmp_path):
    module = Module()
    first = trainer(module, tmp_path, 1)
    first.fit(module, DATA)
    first.save_checkpoint(tmp_path / "last.ckpt")
    lam = module.regularizer.weight.value.clone()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert not [key for key in saved["state_dict"] if "regularizer" in key]
    Module(regularized=False).load_state_dict(saved["state_dict"], strict=True)

    again = Module()
    second = trainer(again, tmp_path, 1)
    second.fit(again, DATA, ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert torch.equal(again.regularizer.weight.value, lam)
    assert int(again.regularizer.calls) == 6


def test_the_callback_needs_neither_name_of_lightning_in_particular():
    """stable-audio-tools and others install pytorch_lightning alone."""
    code = """
import sys
sys.modules["lightning"] = None
import pytorch_lightning, specreg
from specreg.integrations.lightning import KeepRegularizer
assert isinstance(KeepRegularizer(specreg.SpectralRegularizer()), pytorch_lightning.Callback)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
