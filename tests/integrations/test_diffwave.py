"""DiffWave's own learner, trained, saved and resumed with the term."""

import numpy as np
import pytest
import torch

import specreg

learner = pytest.importorskip("diffwave.learner")
ours = pytest.importorskip("specreg.integrations.diffwave")
model = pytest.importorskip("diffwave.model")
params = pytest.importorskip("diffwave.params")

OPTIONS = params.AttrDict(
    residual_layers=2, residual_channels=8, dilation_cycle_length=2, n_mels=80, unconditional=False, max_grad_norm=None,
    noise_schedule=np.linspace(1e-4, 0.05, 50).tolist(),
)  # fmt: skip


def built(folder, **options):
    torch.manual_seed(0)
    network = model.DiffWave(OPTIONS)
    torch.nn.init.normal_(network.output_projection.weight, std=0.1)  # the package starts it at 0
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    return ours.SpectralLearner(str(folder), network, [], optimizer, OPTIONS, **options)


def features():
    torch.manual_seed(1)
    return {"audio": torch.randn(3, 1024), "spectrogram": torch.rand(3, 80, 4)}


def test_a_step_minimizes_l1_and_the_term(tmp_path):
    plain = learner.DiffWaveLearner.train_step
    one, other = built(tmp_path, regularizer=specreg.SpectralRegularizer(weight=0.0)), built(tmp_path)
    torch.manual_seed(2)
    base = plain(one, features())
    torch.manual_seed(2)
    loss = plain(other, features())
    assert float(other.term.gradient_ratio) == pytest.approx(1, rel=1e-3)
    assert float(loss.detach()) == pytest.approx(float((base + other.term.loss).detach()), rel=1e-5)
    assert float(one.term.loss) == 0


def test_the_term_compares_the_clip_at_its_level(tmp_path):
    found, seen = built(tmp_path, regularizer=specreg.SpectralRegularizer("amplitude", weight=1.0)), []
    found.model.register_forward_hook(lambda module, given, output: seen.append((given, output)))
    clip = features()
    found.train_step(clip)
    (x_t, _, t), output = seen[0]
    level = specreg.NoiseLevel.ddpm(found.noise_level[t])
    noise = (x_t - level.alpha[:, None] * clip["audio"]) / level.sigma[:, None]
    specreg.check_wiring(noise, x_t, clip["audio"], level, prediction="epsilon")
    x0_hat = specreg.recover_x0(output.squeeze(1), x_t, level, prediction="epsilon")
    expected = specreg.SpectralRegularizer("amplitude", weight=1.0)(x0_hat, clip["audio"], level)
    torch.testing.assert_close(found.term.loss, expected.loss, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("order", [(0, 2, 1), (0, 1, 2), (0, 1)])
def test_the_step_is_found_in_either_order_of_arguments(order, tmp_path):
    given = (torch.randn(3, 1024), torch.tensor([1, 4, 9]), torch.rand(3, 80, 4))
    found = built(tmp_path)
    found._remember(found.model, tuple(given[i] for i in order), {}, None)  # 0.1.7, 0.1.8, 0.1.8 without spectrograms
    audio, step = found._given
    assert audio is given[0]
    assert step is given[1]


def test_checkpoints_hold_lambda_and_older_ones_load(tmp_path):
    first = built(tmp_path)
    first.train_step(features())
    first.save_to_checkpoint()
    again = built(tmp_path)
    assert again.restore_from_checkpoint()
    assert torch.equal(again.regularizer.weight.value, first.regularizer.weight.value)
    assert float(first.regularizer.weight.value) > 0
    older = first.state_dict()
    del older["specreg"]
    built(tmp_path).load_state_dict(older)
