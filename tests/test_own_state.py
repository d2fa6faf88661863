"""What a trainer's model, its averages and its checkpoints see of a regularizer: nothing, unless it is asked."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import specreg


class Holder(nn.Module):
    """A trainer's module that keeps the regularizer as an attribute, as Lightning modules do."""

    def __init__(self, regularizer=None):
        super().__init__()
        self.network = nn.Conv2d(1, 1, 3, padding=1)
        if regularizer is not None:
            self.regularizer = regularizer


def trained(steps=3):
    reg = specreg.SpectralRegularizer("amplitude", weight="auto", warmup=10)
    for i in range(steps):
        output = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(i)).requires_grad_()
        x0, level = torch.randn(2, 1, 8, 8), specreg.NoiseLevel.flow(torch.tensor([0.3, 0.5]))
        reg(output, x0, level, base_loss=(output - x0).square().mean(), output=output)
    return reg


def test_a_module_that_holds_it_has_the_state_dict_that_it_had_before():
    plain, holder = Holder(), Holder(trained())
    assert holder.state_dict().keys() == plain.state_dict().keys()
    holder.load_state_dict(plain.state_dict(), strict=True)
    plain.load_state_dict(holder.state_dict(), strict=True)
    assert not list(holder.regularizer.buffers())


def test_averages_do_not_touch_it():
    holder = Holder(trained(3))
    average = AveragedModel(holder, use_buffers=True)
    holder.regularizer = trained(5)
    average.update_parameters(holder)
    assert int(holder.regularizer.calls) == 5
    assert int(average.module.regularizer.calls) == 3


@pytest.mark.parametrize("through", ["state_dict", "pickle", "deepcopy"])
def test_its_own_state_goes_round(through, tmp_path):
    reg = trained()
    if through == "state_dict":
        torch.save(reg.state_dict(), tmp_path / "state.pt")
        again = specreg.SpectralRegularizer("amplitude", weight="auto", warmup=10)
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    else:
        again = pickle.loads(pickle.dumps(reg)) if through == "pickle" else copy.deepcopy(reg)
    assert int(again.calls) == 3
    assert torch.equal(again.weight.value, reg.weight.value)
    again.weight.update(torch.tensor(5.0), torch.tensor(1.0))
    assert not torch.equal(again.weight.value, reg.weight.value)


def test_a_state_that_lacks_something_is_refused():
    state = trained().state_dict()
    assert set(state) == {"calls", "weight.log_mean", "weight.mass", "weight.skipped", "weight.clamped"}
    fresh = specreg.SpectralRegularizer("amplitude", weight="auto")
    counters = {key: value for key, value in state.items() if key not in ("weight.skipped", "weight.clamped")}
    fresh.load_state_dict(counters)
    with pytest.raises(RuntimeError, match=r"no 'weight\.mass'"):
        fresh.load_state_dict({key: value for key, value in state.items() if key != "weight.mass"})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        fresh.load_state_dict({**state, "other": torch.zeros(())})
    fresh.load_state_dict({"other": torch.zeros(())}, strict=False)


def test_accelerate_saves_and_restores_it(tmp_path):
    from accelerate import Accelerator

    accelerator, reg = Accelerator(cpu=True), trained()
    accelerator.register_for_checkpointing(reg)
    accelerator.save_state(str(tmp_path / "state"))
    lam = reg.weight.value.clone()
    reg.weight.update(torch.tensor(100.0), torch.tensor(1.0))
    accelerator.load_state(str(tmp_path / "state"))
    assert torch.equal(reg.weight.value, lam)
    assert int(reg.calls) == 3


def test_casting_and_meta_devices_leave_it_alone():
    holder = Holder(trained()).half()
    assert holder.regularizer.weight.value.dtype == torch.float32
    holder.to("meta")
    assert float(holder.regularizer.weight.value) > 0


@pytest.mark.parametrize("options", [{"weight": "auto"}, {"weight": 0.1, "warmup": 5}])
def test_a_validation_in_inference_mode_before_training_does_no_harm(options):
    """Lightning's sanity check. The meta device stands for an accelerator, to which the first call moves the state."""
    reg = specreg.SpectralRegularizer("haar", **options)
    x0, level = torch.randn(2, 1, 8, 8, device="meta"), specreg.NoiseLevel.flow(torch.rand(2, device="meta"))
    with torch.inference_mode():
        saved = {name: value + 1 for name, value in reg.state_dict().items()}
        reg.load_state_dict(saved)
        reg.eval()(torch.randn_like(x0), x0, level)
    output = torch.randn_like(x0, requires_grad=True)
    reg.train()(output, x0, level, base_loss=(output - x0).square().mean(), output=output)
    assert {value.device.type for value in reg.state_dict().values()} == {"meta"}


def test_its_state_is_float32_and_on_the_cpu_whatever_the_defaults_are():
    """As for a regularizer built in Lightning's configure_model under bf16-true, or on the meta device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            reg = specreg.SpectralRegularizer("haar", weight="auto", warmup=3)
    finally:
        torch.set_default_dtype(before)
    kinds = {(value.device.type, value.dtype) for value in reg.state_dict().values()}
    assert kinds == {("cpu", torch.float32), ("cpu", torch.int64)}


def test_a_prefix_is_that_of_all_keys():
    assert all(key.startswith("reg.") for key in trained().state_dict(prefix="reg."))
