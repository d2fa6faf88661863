"""anemoi-training's own classes with the term: its factory, CombinedLoss, variable mapper and EDM objective."""

from types import SimpleNamespace

import pytest
import torch

import specreg

pytest.importorskip("anemoi.training.losses", reason="needs anemoi-training")
omegaconf = pytest.importorskip("omegaconf")
from anemoi.models.transport.paths import edm_loss_weight  # noqa: E402
from anemoi.training import losses as theirs  # noqa: E402
from anemoi.training.losses.loss import get_loss_function  # noqa: E402
from anemoi.training.train.methods.edm_diffusion import EDMDiffusionTransportObjective  # noqa: E402
from anemoi.training.utils.enums import TensorDim  # noqa: E402

from specreg.integrations.anemoi import SpectralLoss, sigma_from_weights  # noqa: E402

NAME = "specreg.integrations.anemoi.SpectralLoss"
Y, X = 6, 8


def fields(*lead, variables=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lead = lead or (2, 1, 2)
    return torch.randn(*lead, Y * X, variables, generator=generator)


def weights(seed=1):
    sigma = torch.rand(2, 1, 2, 1, 1, generator=torch.Generator().manual_seed(seed)) * 3 + 0.1
    return edm_loss_weight(sigma, 1.0), sigma


def combined(**options):
    scalers = {
        "general_variable": (TensorDim.VARIABLE, torch.tensor([1.0, 2.0, 0.5])),
        "node_weights": (TensorDim.GRID, torch.full((Y * X,), 1 / (Y * X))),
    }
    spectral = {"_target_": NAME, "x_dim": X, "y_dim": Y, "scalers": ["general_variable"], **options}
    config = {
        "_target_": "anemoi.training.losses.combined.CombinedLoss",
        "loss_weights": [1.0, 0.25],
        "losses": [{"_target_": "anemoi.training.losses.WeightedMSELoss",
                    "scalers": ["general_variable", "node_weights"]}, spectral],
    }  # fmt: skip
    return get_loss_function(omegaconf.OmegaConf.create(config), scalers=scalers)


def by_hand(pred, target, sigma, scaler=(1.0, 2.0, 0.5)):
    """Return the term in numpy's order of things: each field alone, the mean of what it and its σ say."""
    total = []
    for b in range(pred.shape[0]):
        for e in range(pred.shape[2]):
            for v in range(pred.shape[-1]):
                x0_hat, x0 = (x[b, 0, e, :, v].reshape(Y, X) for x in (pred, target))
                size = [torch.fft.fft2(x, norm="ortho").abs() for x in (x0_hat, x0)]
                weight = min(1.0, float(sigma[b, 0, e]) ** -2) ** 0.5
                total.append(scaler[v] * weight * float((size[0] - size[1]).abs().mean()))
    return sum(total) / len(total)


def test_their_factory_and_combined_loss_add_the_term_with_edm_weights():
    pred, target, (weight, sigma) = fields(), fields(seed=3), weights()
    loss = combined()
    mse = loss.losses[0](pred, target, weights=weight)
    expected = float(mse) + 0.25 * by_hand(pred, target, sigma)
    assert float(loss(pred, target, weights=weight)) == pytest.approx(expected, rel=1e-5)
    assert [type(leaf).__name__ for leaf in loss.iter_leaf_losses()] == ["WeightedMSELoss", "SpectralLoss"]


def test_their_edm_objective_calls_it_with_its_own_weights():
    """The real compute_loss on a real combined loss, with the weights that the objective made of its σ."""
    pred, target, (_, sigma) = fields(), fields(seed=3), weights()
    loss = combined()
    model = SimpleNamespace(edm=SimpleNamespace(sigma_data=1.0))
    module = SimpleNamespace(
        model=SimpleNamespace(model=model), loss={"data": loss}, model_comm_group=None, grid_shard_sizes={"data": None}
    )
    objective = EDMDiffusionTransportObjective(module)
    made = objective._loss_weights({"data": sigma})
    found = objective.compute_loss(pred, target, dataset_name="data", weights=made)
    mse = loss.losses[0](pred, target, weights=made["data"])
    assert float(found - mse) == pytest.approx(0.25 * by_hand(pred, target, sigma), rel=1e-4)


def test_sigma_of_their_training_distributions_comes_back():
    conditions = {"karras": {"rho": 7}, "exponential": {}}
    for name, more in conditions.items():
        condition = {"distribution": name, "sigma_min": 0.02, "sigma_max": 100.0, **more}
        model = SimpleNamespace(edm=SimpleNamespace(sigma_data=1.0), training_condition=condition)
        objective = EDMDiffusionTransportObjective(SimpleNamespace(model=SimpleNamespace(model=model)))
        sigma = objective._sample_training_sigma({"data": (64, 1, 2, Y * X, 3)}, torch.device("cpu"))
        weight = objective._loss_weights(sigma)["data"]
        assert weight.shape == (64, 1, 2, 1, 1)
        torch.testing.assert_close(sigma_from_weights(weight, 1.0), sigma["data"], rtol=0.01, atol=0, check_dtype=False)


def test_their_variable_mapper_hands_the_weights_on():
    from anemoi.models.data_indices.collection import IndexCollection

    names = {"t": 0, "u": 1, "v": 2}
    indices = IndexCollection(omegaconf.OmegaConf.create({"forcing": [], "diagnostic": [], "target": []}), names)
    config = {"_target_": NAME, "x_dim": X, "y_dim": Y, "predicted_variables": ["u", "v"], "scalers": []}
    mapped = get_loss_function(omegaconf.OmegaConf.create(config), scalers={}, data_indices=indices)
    assert type(mapped).__name__ == "LossVariableMapper"
    pred, target, (weight, sigma) = fields(), fields(seed=3), weights()
    layouts = {"pred_layout": "model_output", "target_layout": "data_full"}
    found = mapped(pred, target, weights=weight, **layouts)
    assert float(found) == pytest.approx(by_hand(pred[..., 1:], target[..., 1:], sigma, (1, 1)), rel=1e-5)


def test_gradients_reach_the_prediction_and_are_less_at_high_noise():
    target, pred = fields(seed=3), fields().requires_grad_()
    loss = SpectralLoss(x_dim=X, y_dim=Y)
    weight = edm_loss_weight(torch.tensor([0.1, 10.0]).reshape(2, 1, 1, 1, 1), 1.0)
    loss(pred, target, weights=weight).backward()
    clean, noisy = pred.grad[0].norm(), pred.grad[1].norm()
    assert float(clean / noisy) == pytest.approx(10, rel=0.2)


def test_losses_by_variable_and_their_sum_follow_the_base_class():
    pred, target, (weight, _) = fields(), fields(seed=3), weights()
    loss = SpectralLoss("haar", x_dim=X, y_dim=Y)
    loss.add_scaler(TensorDim.VARIABLE, torch.tensor([1.0, 2.0, 0.5]), name="general_variable")
    each = loss(pred, target, squash=False, weights=weight)
    assert each.shape == (3,)
    torch.testing.assert_close(loss(pred, target, weights=weight), each.mean())
    torch.testing.assert_close(loss(pred, target, weights=weight, squash_mode="sum"), each.sum())
    one = loss(pred, target, weights=weight, squash=False, scaler_indices=(..., [1]))
    torch.testing.assert_close(one, each[1:2])
    bare = loss(pred, target, weights=weight, squash=False, without_scalers=["general_variable"])
    torch.testing.assert_close(bare * torch.tensor([1.0, 2.0, 0.5]), each)


def test_the_grid_is_theirs():
    """The flattened grid has x fastest, as their own spectral transform has it."""
    field = fields(1, 1, 1, variables=1)
    own = theirs.LogFFT2Distance(x_dim=X, y_dim=Y).transform.prepare_for_fft(field)[0, 0, 0, ..., 0]
    ours = SpectralLoss(x_dim=X, y_dim=Y)._fields("pred", field)[0, 0]
    assert torch.equal(own, ours)
    with_border = torch.cat([field, torch.full((1, 1, 1, 5, 1), 9.0)], 3)
    cut = SpectralLoss(x_dim=X, y_dim=Y, subgrid=(0, Y * X))
    assert torch.equal(cut._fields("pred", with_border)[0, 0], own)


def test_without_weights_the_noise_weight_is_one():
    pred, target = fields(), fields(seed=3)
    found = SpectralLoss(x_dim=X, y_dim=Y)(pred, target)
    clean = torch.full((2, 1, 2, 1, 1), 0.5)
    assert float(found) == pytest.approx(by_hand(pred, target, clean, (1, 1, 1)), rel=1e-5)


def test_sigma_comes_back_from_the_weights():
    sigma = torch.tensor([0.002, 0.02, 0.5, 1, 10, 100, 500])
    for sigma_data in (0.5, 1.0, 2.0):
        found = sigma_from_weights(edm_loss_weight(sigma * sigma_data, sigma_data), sigma_data)
        torch.testing.assert_close(found, sigma * sigma_data, rtol=0.01, atol=0)
    wide = torch.tensor([1e4, 1e6])
    assert bool(sigma_from_weights(edm_loss_weight(wide, 1.0), 1.0).isfinite().all())
    exact = torch.tensor([0.002, 1.0, 1e4], dtype=torch.float64)
    torch.testing.assert_close(sigma_from_weights(edm_loss_weight(exact, 1.0), 1.0), exact, rtol=1e-6, atol=0)


def test_missing_values_are_masked_where_asked():
    pred, target, (weight, _) = fields(), fields(seed=3), weights()
    gap = torch.zeros(Y * X, dtype=torch.bool)
    gap[10:14] = True
    target[..., gap, :] = float("nan")
    pred = pred.requires_grad_()
    loss = SpectralLoss("haar", x_dim=X, y_dim=Y, ignore_nans=True)(pred, target, weights=weight)
    loss.backward()
    assert loss.isfinite()
    assert pred.grad[..., gap, :].abs().max() == 0 < pred.grad[..., ~gap, :].abs().sum()


@pytest.mark.parametrize(
    ("name", "does"),
    [("LogSpectralDistance", "refuses"), ("LogFFT2Distance", "refuses"), ("FourierCorrelationLoss", "refuses"),
     ("SpectralCRPSLoss", "refuses"), ("SpectralAMSELoss", "swallows"), ("PowerSpectrumLoss", "swallows"),
     ("MSELoss", "swallows"), ("WeightedMSELoss", "weights")],
)  # fmt: skip
def test_what_their_losses_do_with_the_weights(name, does):
    """The table of the page, against the package."""
    import inspect

    kind = getattr(theirs, name, None) or getattr(__import__("anemoi.training.losses.spectral", fromlist=["_"]), name)
    parameters = inspect.signature(kind.forward).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    assert does == ("weights" if "weights" in parameters else "swallows" if takes_any else "refuses")
    if name in ("SpectralAMSELoss", "PowerSpectrumLoss"):
        loss = kind(transform="octahedral_sht", nlat=8, truncation=3)
        points = 2 * sum(20 + 4 * ring for ring in range(4))
        pred, target = torch.randn(2, 2, 1, 1, points, 1)
        weight = edm_loss_weight(torch.tensor([0.1, 5.0]), 1.0).reshape(2, 1, 1, 1, 1)
        assert torch.equal(loss(pred, target, weights=weight), loss(pred, target))
    elif name in ("LogFFT2Distance", "MSELoss", "WeightedMSELoss"):
        loss = kind(**({"x_dim": X, "y_dim": Y} if name == "LogFFT2Distance" else {}))
        pred, target, (weight, _) = fields(), fields(seed=3), weights()
        if does == "refuses":
            with pytest.raises(TypeError, match="weights"):
                loss(pred, target, weights=weight)
        else:
            same = torch.equal(loss(pred, target, weights=weight), loss(pred, target))
            assert same == (does == "swallows")


def test_their_schema_refuses_the_class_so_validation_has_to_be_off():
    import pydantic
    from anemoi.training.schemas.training import LossSchemas

    schema = pydantic.TypeAdapter(LossSchemas)
    known = {"_target_": "anemoi.training.losses.WeightedMSELoss", "scalers": []}
    schema.validate_python(known)
    with pytest.raises(pydantic.ValidationError, match="WeightedMSELoss"):
        schema.validate_python({**known, "_target_": NAME})


def test_mistakes_are_said_in_one_sentence():
    pred, target, (weight, _) = fields(), fields(seed=3), weights()
    loss = SpectralLoss(x_dim=X, y_dim=Y)
    with pytest.raises(ValueError, match=r"'node_weights' has a value for each grid point"):
        loss.add_scaler(TensorDim.GRID, torch.ones(Y * X), name="node_weights")
    with pytest.raises(ValueError, match="'nan_mask' has a value for each grid point"):
        loss.add_scaler((TensorDim.GRID, TensorDim.VARIABLE), torch.ones(Y * X, 3), name="nan_mask")
    with pytest.raises(ValueError, match=r"got \[2, 1, 2, 47, 3\]"):
        loss(pred[..., 1:, :], target[..., 1:, :])
    with pytest.raises(ValueError, match=r"at least 1/sigma_data² = 4; the smallest is"):
        SpectralLoss(x_dim=X, y_dim=Y, sigma_data=0.5)(pred, target, weights=weight)
    with pytest.raises(ValueError, match=r"broadcast to batch, times and members, \[2, 1, 2, 1, 1\]"):
        loss(pred, target, weights=torch.ones(3, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="whole grid"):
        loss(pred, target, grid_shard_slice=slice(0, 4))
    with pytest.raises(ValueError, match="sigma_data must be"):
        SpectralLoss(x_dim=X, y_dim=Y, sigma_data=0)


def test_degrees_of_the_sphere():
    pytest.importorskip("torch_harmonics")
    pred, target, (weight, _) = fields(), fields(seed=3), weights()
    loss = SpectralLoss("sht:amse", x_dim=X, y_dim=Y)
    assert float(loss(pred, target, weights=weight)) > 0
    assert float(loss(target, target, weights=weight)) == pytest.approx(0, abs=1e-6)
    assert isinstance(loss.regularizer, specreg.SpectralRegularizer)
