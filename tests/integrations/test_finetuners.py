"""The seams of fine-tuners, in stand-ins with the signatures of the commits that each module names."""

import copy
import sys
import types
from types import SimpleNamespace as Space

import pytest
import torch
from torch import nn
from torch.nn import functional

import specreg
from specreg.integrations import ai_toolkit, diffusion_pipe, kohya, musubi, onetrainer, simpletuner, stable_audio

SIGN = {"flow": 1, "velocity": -1}


def batch(seed=0, size=3):
    g = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, size, 4, 8, 8, generator=g)
    return latents, noise, torch.tensor([0.1, 0.5, 0.9])[:size]


def auto(loss="amplitude"):
    return specreg.SpectralRegularizer(loss, weight="auto")


def fixed(loss="amplitude"):
    return specreg.SpectralRegularizer(loss, weight=0.3)


def expected(output, latents, noise, level, prediction, **options):
    """The term from x_t, independently of the pair that the integrations form."""
    x0_hat = specreg.recover_x0(output, level.diffuse(latents, noise), level, prediction=prediction)
    return fixed(options.pop("loss", "amplitude"))(x0_hat, latents, level, prediction=prediction, **options).loss


# musubi-tuner


class MusubiTrainer:
    def __init__(self, kind="flow"):
        self.kind, self.network = kind, nn.Conv2d(4, 4, 3, padding=1)

    def call_dit(self, args, accelerator, transformer_arg, latents, batch, noise, noisy_model_input, timesteps,
                 network_dtype, **kwargs):  # fmt: skip
        self.seen = self.network(noisy_model_input)
        return Space(pred=self.seen, target=SIGN[self.kind] * (noise - latents), extra={})

    def compute_loss(self, args, output, timesteps, noise_scheduler, dit_dtype, network_dtype, global_step):
        return functional.mse_loss(output.pred.to(network_dtype), output.target), {}

    def process_batch(self, latents, noise, t):
        noisy, timesteps = (1 - t.view(-1, 1, 1, 1)) * latents + t.view(-1, 1, 1, 1) * noise, t * 1000 + 1
        output = self.call_dit(None, None, None, latents, {}, noise, noisy, timesteps, torch.float32)
        return self.compute_loss(None, output, timesteps, None, torch.float32, torch.float32, 0)


@pytest.mark.parametrize("kind", ["flow", "velocity"])
def test_musubi_trainers_of_either_sign(kind):
    latents, noise, t = batch()
    trainer = musubi.with_term(MusubiTrainer, fixed())(kind)
    loss, metrics = trainer.process_batch(latents, noise, t)
    base = functional.mse_loss(trainer.seen, SIGN[kind] * (noise - latents))
    level = specreg.NoiseLevel.flow(t)  # not (timesteps)/1000, which is one step off
    torch.testing.assert_close(loss - base, expected(trainer.seen, latents, noise, level, kind), rtol=1e-3, atol=1e-5)
    assert metrics["loss/base"] == pytest.approx(float(base.detach()))


def test_musubi_targets_of_another_kind_are_refused():
    latents, noise, t = batch()

    class Other(MusubiTrainer):
        def call_dit(self, *args, **kwargs):
            found = super().call_dit(*args, **kwargs)
            found.target = noise
            return found

    with pytest.raises(ValueError, match="'epsilon' would fit"):
        musubi.with_term(Other, fixed())().process_batch(latents, noise, t)


def test_musubi_targets_of_another_shape_are_refused():
    class Tokens(MusubiTrainer):
        def call_dit(self, *args, **kwargs):
            found = super().call_dit(*args, **kwargs)
            return Space(pred=found.pred.flatten(2), target=found.target.flatten(2), extra={})

    with pytest.raises(ValueError, match=r"latents' shape \[3, 4, 8, 8\]; Tokens has \[3, 4, 64\]"):
        musubi.with_term(Tokens, fixed())().process_batch(*batch())


def test_musubi_s_fine_tuners_which_have_a_loss_of_their_own_are_refused():
    class ZImageTrainer(MusubiTrainer):
        def compute_loss(self, *args):
            return functional.mse_loss(self.seen, torch.zeros(())), {}

        def train(self, latents, noise, t):
            self.call_dit(None, None, None, latents, {}, noise, latents, t, torch.float32)

    trainer = musubi.with_term(ZImageTrainer, fixed())()
    trainer.train(*batch())
    with pytest.raises(RuntimeError, match="expected ZImageTrainer to call compute_loss"):
        trainer.train(*batch())


@pytest.mark.parametrize("sampling", ["sigma", "shift"])
@pytest.mark.parametrize("kind", ["flow", "velocity"])
def test_musubi_s_loss_fn_form(kind, sampling, monkeypatch):
    home = types.ModuleType("musubi_tuner.training.timesteps")
    home.compute_loss_weighting_for_sd3 = lambda weighting_scheme, noise_scheduler, timesteps, device, dtype: None
    for name in ("musubi_tuner", "musubi_tuner.training"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "musubi_tuner.training.timesteps", home)
    latents, noise, t = batch()
    target = SIGN[kind] * (noise - latents)
    output = (target + 0.3 * torch.randn_like(target)).requires_grad_()
    ctx = Space(
        args=Space(weighting_scheme="none", timestep_sampling=sampling), output=Space(pred=output, target=target),
        timesteps=t * 1000 + (sampling != "sigma"),
        noise_scheduler=None, dit_dtype=torch.bfloat16, network_dtype=torch.float32, global_step=0,
    )  # fmt: skip
    loss, metrics = musubi.SpectralLoss(loss="haar", weight=0.3, prediction=kind)(ctx)
    term = expected(output, latents, noise, specreg.NoiseLevel.flow(t), kind, loss="haar")
    torch.testing.assert_close(loss, functional.mse_loss(output, target) + term, rtol=1e-4, atol=1e-6)
    assert set(metrics) == {"loss/base", "loss/spectral", "lambda"}
    with pytest.raises(TypeError, match="only wavelet losses need neither"):
        musubi.SpectralLoss(loss="amplitude")(ctx)
    assert musubi.SpectralLoss(weight="auto:0.5").regularizer.weight.ratio == 0.5


# kohya's sd-scripts


class NetworkTrainer:
    flow = False
    sign = 1

    def get_noise_pred_and_target(self, args, accelerator, noise_scheduler, latents, batch, text_encoder_conds, unet,
                                  network, weight_dtype, train_unet, is_train=True):  # fmt: skip
        noise, t = batch["noise"], batch["t"]
        if self.flow:
            level, target = specreg.NoiseLevel.flow(t), self.sign * (noise - latents)
            timesteps = t * 1000
        else:
            timesteps = (t * 1000).long()
            level, target = specreg.NoiseLevel.ddpm(noise_scheduler.alphas_cumprod[timesteps]), noise
        with torch.set_grad_enabled(is_train):
            self.seen = unet(level.diffuse(latents, noise))
        self.level = level
        return self.seen, target, timesteps, None

    def process_batch(self, batch, unet, noise_scheduler, args, is_train=True):
        output, target, _, _ = self.get_noise_pred_and_target(
            args, None, noise_scheduler, batch["latents"], batch, None, unet, None, torch.float32, True, is_train
        )
        loss = (output.float() - target.float()).square()
        if batch.get("alpha_masks") is not None:
            mask = functional.interpolate(batch["alpha_masks"].unsqueeze(1), size=loss.shape[2:], mode="area")
            loss = loss * mask
        return (loss.mean((1, 2, 3)) * batch["loss_weights"]).mean()


class FluxNetworkTrainer(NetworkTrainer):
    flow = True


class LuminaNetworkTrainer(NetworkTrainer):
    flow, sign = True, -1


class Sd3NetworkTrainer(NetworkTrainer):
    """Its output is x0 before the loss, and its target the latents."""

    flow = True

    def get_noise_pred_and_target(self, args, accelerator, noise_scheduler, latents, *rest, **kwargs):
        output, _, timesteps, weighting = super().get_noise_pred_and_target(
            args, accelerator, noise_scheduler, latents, *rest, **kwargs
        )
        self.seen = self.level.diffuse(latents, rest[0]["noise"]) - self.level.sigma.view(-1, 1, 1, 1) * output
        return self.seen, latents, timesteps, weighting


class AnimaNetworkTrainer(NetworkTrainer):
    """Its times run from 0 to 1, and its cached latents may have an axis of one frame."""

    flow = True

    def get_noise_pred_and_target(self, args, accelerator, noise_scheduler, latents, *rest, **kwargs):
        output, target, timesteps, weighting = super().get_noise_pred_and_target(
            args, accelerator, noise_scheduler, latents.squeeze(2), *rest, **kwargs
        )
        return output, target, timesteps / 1000, weighting


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [
        (NetworkTrainer, "epsilon"),
        (FluxNetworkTrainer, "flow"),
        (LuminaNetworkTrainer, "velocity"),
        (Sd3NetworkTrainer, "x0"),
        (AnimaNetworkTrainer, "flow"),
    ],
)
def test_kohya_trainers(kind, prediction):
    latents, noise, t = batch()
    alphas = specreg.diffusion.alphas_cumprod("scaled_linear", beta_start=0.00085, beta_end=0.012).float()
    scheduler = Space(config=Space(num_train_timesteps=1000), **({} if kind.flow else {"alphas_cumprod": alphas}))
    args = Space(v_parameterization=False, masked_loss=False, model_prediction_type="raw")
    weights, mask = torch.tensor([1.0, 0.5, 2.0]), torch.ones(3, 64, 64)
    mask[:, :, 32:] = 0
    given = {"latents": latents, "noise": noise, "t": t, "loss_weights": weights, "alpha_masks": mask}
    if kind is AnimaNetworkTrainer:
        given["latents"] = latents.unsqueeze(2)
    unet = nn.Conv2d(4, 4, 3, padding=1)
    trainer, plain = kohya.with_term(kind, fixed())(), kind()
    loss, base = (one.process_batch(given, unet, scheduler, args) for one in (trainer, plain))
    level = trainer.level
    term = expected(
        trainer.seen, latents, noise, level, prediction, sample_weight=weights,
        mask=functional.interpolate(mask.unsqueeze(1), size=(8, 8), mode="area"),
    )  # fmt: skip
    torch.testing.assert_close(loss - base, term, rtol=1e-3, atol=1e-4)
    with torch.no_grad():  # its validation
        assert torch.equal(trainer.process_batch(given, unet, scheduler, args, is_train=False), base.detach())
    measured = auto()
    kohya.with_term(kind, measured)().process_batch(given, unet, scheduler, args)
    assert float(measured.weight.value) > 0
    if kind.flow:
        args.model_prediction_type = "sigma_scaled"
        with pytest.raises(ValueError, match="expects raw"):
            trainer.process_batch(given, unet, scheduler, args)


def kohya_call(kind=FluxNetworkTrainer, change=lambda found: found, args=None, more=None, **options):
    """A step of a trainer whose `get_noise_pred_and_target` returns what `change` makes of it."""
    latents, noise, t = batch()

    class Changed(kind):
        def get_noise_pred_and_target(self, *given, **kwargs):
            return change(super().get_noise_pred_and_target(*given, **kwargs))

    given = {"latents": latents, "noise": noise, "t": t, "loss_weights": torch.ones(3), **(more or {})}
    args = Space(v_parameterization=False, masked_loss=False, model_prediction_type="raw", **(args or {}))
    scheduler, unet = Space(config=Space(num_train_timesteps=1000)), nn.Conv2d(4, 4, 3, padding=1)
    trainer = kohya.with_term(Changed, fixed(), **options)()
    return [trainer.process_batch(given, unet, scheduler, args) for _ in range(2)]


def test_kohya_s_first_call_is_checked_where_x_t_is_seen():
    other = lambda found: (found[0], -found[1], *found[2:])  # noqa: E731
    late = lambda found: (*found[:2], found[2] + 50, found[3])  # noqa: E731
    for change, said in ((other, "'velocity' would fit"), (late, "another timestep")):
        with pytest.raises(ValueError, match=said):
            kohya_call(change=change)
        kohya_call(change=change, check=False)
        kohya_call(change=change, args={"ip_noise_gamma": 0.1})  # x_t is of other noise there
        kohya_call(change=change, more={"custom_attributes": [{}, {"diff_output_preservation": True}, {}]})
    kohya_call(change=lambda found: (*found[:2], found[2].long(), found[3]))  # HunyuanImage's times


def test_kohya_s_masks_are_those_of_its_loss():
    call = kohya._Call(*[torch.zeros(2, 4, 8, 8)] * 2, torch.zeros(2), torch.zeros(2, 4, 8, 8), Space(), None, None)
    call.args.masked_loss = True
    alpha, image = torch.rand(2, 64, 64), torch.rand(2, 3, 64, 64)
    resized = lambda mask: functional.interpolate(mask, size=(8, 8), mode="area")  # noqa: E731
    assert kohya._mask({"alpha_masks": None}, call) is None  # its loss is then the whole one
    assert torch.equal(kohya._mask({"alpha_masks": alpha}, call), resized(alpha.unsqueeze(1)))
    both = kohya._mask({"alpha_masks": alpha, "conditioning_images": image}, call)
    assert torch.equal(both, resized(image[:, :1] / 2 + 0.5))
    call.args.masked_loss = False
    assert kohya._mask({"conditioning_images": image}, call) is None


def test_kohya_s_tokens_are_checked_as_latents():
    latents, _, _ = batch()
    tokens = latents.reshape(3, 4, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(3, 16, 16)
    assert torch.equal(kohya._as_latents(tokens, latents), latents)
    assert kohya._as_latents(torch.zeros(3, 5, 8, 8), latents) is None


# OneTrainer


def setup_class(name="BaseFluxSetup"):
    def calculate_loss(self, model, batch, data, config):
        return functional.mse_loss(data["predicted"], data["target"])

    return type(name, (), {"calculate_loss": calculate_loss})


def onetrainer_config(masked=False, inpainting=False):
    kind = Space(has_conditioning_image_input=lambda: inpainting)
    return Space(masked_training=masked, unmasked_weight=0.0, model_type=kind)


def onetrainer_call(latents, noise, batch, model, name="BaseFluxSetup", kind="flow", config=None):
    """The term of a step of OneTrainer's flow setups, and the one expected from x_t."""
    timestep = torch.tensor([0, 5, 9])
    target = SIGN[kind] * (noise - latents)
    output = (target + 0.2 * torch.randn_like(target)).requires_grad_()
    setup = setup_class(name)
    onetrainer.add_term(setup, fixed())
    model.noise_scheduler = Space(config={"num_train_timesteps": 10})
    data = {"predicted": output, "target": target, "timestep": timestep}
    loss = setup().calculate_loss(model, batch, data, config or onetrainer_config())
    term = expected(output, latents, noise, specreg.NoiseLevel.flow((timestep + 1) / 10), kind)
    return loss - functional.mse_loss(output, target), term


@pytest.mark.parametrize("kind", ["flow", "epsilon"])
def test_onetrainer_setups(kind):
    latents, noise, _ = batch()
    timestep = torch.tensor([0, 5, 9])  # of 10: one step off is far off
    if kind == "flow":
        level, target, more = specreg.NoiseLevel.flow((timestep + 1) / 10), noise - latents, {}
        scheduler = Space(config={"num_train_timesteps": 10})
    else:
        alphas = specreg.diffusion.alphas_cumprod("linear").float()
        level, target, more = specreg.NoiseLevel.ddpm(alphas[timestep]), noise, {"prediction_type": "epsilon"}
        scheduler = Space(alphas_cumprod=alphas)
    output = (target + 0.2 * torch.randn_like(target)).requires_grad_()
    model = Space(noise_scheduler=scheduler, scale_latents=lambda x: 2 * x)
    data = {"predicted": output, "target": target, "timestep": timestep, **more}
    config, setup = onetrainer_config(), setup_class()
    onetrainer.add_term(setup, fixed())
    loss = setup().calculate_loss(model, {"latent_image": latents / 2, "loss_weight": torch.ones(3)}, data, config)
    term = expected(output, latents, noise, level, kind)
    torch.testing.assert_close(loss, functional.mse_loss(output, target) + term, rtol=1e-3, atol=1e-4)
    with pytest.raises(TypeError, match="a term already"):
        onetrainer.add_term(setup, fixed())
    with torch.no_grad():
        plain = setup().calculate_loss(model, {"latent_image": latents / 2}, data, config)
    assert torch.equal(plain, functional.mse_loss(output, target).detach())


class Flux2Model:
    """Scales latents of 2×2 patches, as channels or, in Ideogram's model, as tokens."""

    def __init__(self, tokens):
        self.tokens, self.mean, self.std = tokens, torch.linspace(-1, 1, 16), torch.linspace(0.5, 2, 16)

    def patchify_latents(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // 2, 2, w // 2, 2)
        if self.tokens:
            return x.permute(0, 2, 4, 3, 5, 1).reshape(b, h * w // 4, 4 * c)
        return x.permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)

    def unpatchify_latents(self, x, *grid):
        if self.tokens:
            b, h, w = len(x), *grid
            return x.reshape(b, h, w, 2, 2, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, 2 * h, 2 * w)
        b, c, h, w = x.shape
        return x.reshape(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)

    def scale_latents(self, x):
        shape = (1, 1, -1) if self.tokens else (1, -1, 1, 1)
        return (x - self.mean.view(shape)) / self.std.view(shape)


@pytest.mark.parametrize("tokens", [False, True])
def test_onetrainer_s_latents_scaled_in_patches(tokens):
    latents, noise, _ = batch()
    model = Flux2Model(tokens)
    clean = model.unpatchify_latents(model.scale_latents(model.patchify_latents(latents)), 4, 4)
    name, kind = ("BaseIdeogramSetup", "velocity") if tokens else ("BaseFlux2Setup", "flow")  # x0 − ε in Ideogram's
    term, wanted = onetrainer_call(clean, noise, {"latent_image": latents}, model, name, kind)
    torch.testing.assert_close(term, wanted, rtol=1e-3, atol=1e-4)


def test_onetrainer_s_shifted_latents_and_images_among_videos():
    latents, noise, _ = batch()
    model = Space(vae=Space(config=Space(scaling_factor=0.5, shift_factor=1.5)))
    term, wanted = onetrainer_call(latents, noise, {"latent_image": 2 * latents + 1.5}, model)
    torch.testing.assert_close(term, wanted, rtol=1e-3, atol=1e-4)
    model = Space(vae=Space(config=Space(scaling_factor=0.5)))
    term, wanted = onetrainer_call(latents.unsqueeze(2), noise.unsqueeze(2), {"latent_image": 2 * latents}, model)
    torch.testing.assert_close(term, wanted, rtol=1e-3, atol=1e-4)


def test_onetrainer_s_masks_count_where_they_count_in_its_loss():
    latents, noise, _ = batch()
    model, given = Space(scale_latents=lambda x: x), {"latent_image": latents, "latent_mask": torch.zeros(3, 1, 8, 8)}
    masked, whole = (
        onetrainer_call(latents, noise, given, model, config=onetrainer_config(masked=True, inpainting=inpainting))[0]
        for inpainting in (False, True)
    )
    assert float(masked) == 0
    assert float(whole) > 0  # its inpainting models are trained without the mask


def test_onetrainer_s_schedulers_without_a_table_are_refused():
    setup, latents = setup_class(), batch()[0]
    onetrainer.add_term(setup, fixed())
    data = {"predicted": latents.requires_grad_(), "target": latents.detach(), "timestep": torch.rand(3)}
    model = Space(noise_scheduler=Space())
    with pytest.raises(ValueError, match="scheduler with alphas_cumprod; SimpleNamespace has none"):
        setup().calculate_loss(model, {}, {**data, "prediction_type": "epsilon"}, onetrainer_config())


# SimpleTuner


class Foundation:
    PREDICTION_TYPE = Space(value="flow_matching")

    def get_prediction_target(self, prepared_batch):
        return prepared_batch["noise"] - prepared_batch["latents"]

    def auxiliary_loss(self, model_output, prepared_batch, loss, *, apply_layersync=True,
                       clear_hidden_state_buffer=True):  # fmt: skip
        return loss, None


@pytest.mark.parametrize("on_class", [True, False])
def test_simpletuner_models(on_class):
    latents, noise, t = batch()
    kind = type("Flux", (Foundation,), {})
    model = kind()
    simpletuner.add_term(kind if on_class else model, fixed())
    level = specreg.NoiseLevel.flow(t)
    given = {"latents": latents, "noise": noise, "sigmas": t.view(-1, 1, 1, 1)}
    given["noisy_latents"] = level.diffuse(latents, noise)
    output = (noise - latents + 0.2 * torch.randn_like(noise)).requires_grad_()
    base = functional.mse_loss(output, noise - latents)
    loss, logs = model.auxiliary_loss(prepared_batch=given, model_output={"model_prediction": output}, loss=base)
    torch.testing.assert_close(loss - base, expected(output, latents, noise, level, "flow"), rtol=1e-3, atol=1e-5)
    assert logs["spectral_lambda"] == pytest.approx(0.3)
    wrong = type("ZImage", (Foundation,), {"get_prediction_target": lambda self, b: b["latents"] - b["noise"]})()
    simpletuner.add_term(wrong, fixed())
    with pytest.raises(ValueError, match="'velocity' would fit"):
        wrong.auxiliary_loss(prepared_batch=given, model_output={"model_prediction": output}, loss=base)


@pytest.mark.parametrize("change", ["target", "input_noise"])
def test_simpletuner_s_targets_and_inputs_of_other_noise_are_not_checked(change):
    latents, noise, t = batch()

    class Parented(Foundation):
        def get_prediction_target(self, prepared_batch):
            return prepared_batch.get("target", noise - latents)

    model = Parented()
    simpletuner.add_term(model, fixed())
    level = specreg.NoiseLevel.flow(t)
    given = {"latents": latents, "noise": noise, "input_noise": noise, "sigmas": t.view(-1, 1, 1, 1)}
    given[change] = noise + 0.3 * torch.randn_like(noise)
    given["noisy_latents"] = level.diffuse(latents, given["input_noise"])
    output = torch.zeros_like(noise).requires_grad_()
    call = lambda: model.auxiliary_loss(  # noqa: E731
        prepared_batch=given, model_output={"model_prediction": output}, loss=output.square().mean()
    )
    loss, _ = call()
    assert float((loss - output.square().mean()).detach()) > 0
    given["noise"], given["sigmas"] = given["input_noise"], t.view(-1, 1, 1, 1) / 2  # the first one to check
    given.pop("target", None)
    with pytest.raises(ValueError, match="another timestep"):
        call()


# ai-toolkit


class SDTrainer:
    def calculate_loss(self, noise_pred, noise, noisy_latents, timesteps, batch, mask_multiplier=1.0, prior_pred=None,
                       **kwargs):  # fmt: skip
        return functional.mse_loss(noise_pred.float(), (noise - batch.latents).float())


def test_ai_toolkit_s_trainer():
    latents, noise, t = batch()
    trainer = ai_toolkit.with_term(SDTrainer, auto())()
    target = lambda noise, batch, timesteps: noise - batch.latents  # noqa: E731
    trainer.sd = Space(is_flow_matching=True, x0_pred=False, get_loss_target=target)
    level = specreg.NoiseLevel.flow(t)
    output = (noise - latents + 0.2 * torch.randn_like(noise)).requires_grad_()
    call = {
        "noise_pred": output, "noise": noise, "noisy_latents": level.diffuse(latents, noise), "timesteps": t * 1000,
        "batch": Space(latents=latents),
    }  # fmt: skip
    loss = trainer.calculate_loss(**call, mask_multiplier=1.0, prior_pred=None)
    (gradient,) = torch.autograd.grad(loss - functional.mse_loss(output, noise - latents), output)
    (base,) = torch.autograd.grad(functional.mse_loss(output, noise - latents), output)
    assert float(gradient.norm() / base.norm()) == pytest.approx(1, rel=1e-3)
    wrong = ai_toolkit.with_term(SDTrainer, auto())()
    wrong.sd = trainer.sd
    with pytest.raises(ValueError, match="check_wiring"):
        wrong.calculate_loss(**{**call, "timesteps": t * 1000 + 50})


def test_ai_toolkit_s_models_whose_target_is_of_the_other_sign():
    latents, noise, t = batch()
    level = specreg.NoiseLevel.flow(t)
    target = lambda noise, batch, timesteps: batch.latents - noise  # noqa: E731
    output = (latents - noise + 0.2 * torch.randn_like(noise)).requires_grad_()
    call = {
        "noise_pred": output, "noise": noise, "noisy_latents": level.diffuse(latents, noise), "timesteps": t * 1000,
        "batch": Space(latents=latents),
    }  # fmt: skip

    def term(**options):
        trainer = ai_toolkit.with_term(SDTrainer, fixed(), **options)()
        trainer.sd = Space(is_flow_matching=True, x0_pred=False, get_loss_target=target)
        return trainer.calculate_loss(**call) - functional.mse_loss(output, noise - latents)

    with pytest.raises(ValueError, match="'velocity' would fit"):
        term()
    found = term(prediction="velocity")
    torch.testing.assert_close(found, expected(output, latents, noise, level, "velocity"), rtol=1e-3, atol=1e-5)


# diffusion-pipe


class Pipe:
    def prepare_inputs(self, inputs, timestep_quantile=None):
        x_1, x_0, t = inputs["latents"], inputs["noise"], inputs["t"]
        x_t = (1 - t.view(-1, 1, 1, 1)) * x_1 + t.view(-1, 1, 1, 1) * x_0
        pack = lambda x: x.reshape(len(x), 4, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 16, 16)  # noqa: E731
        mask = inputs["mask"]
        return (pack(x_t), None, None, t), (pack(x_0 - x_1), None if mask is None else pack(mask.expand_as(x_1)))

    def get_loss_fn(self):
        def loss_fn(output, label):
            target, mask = label
            loss = functional.mse_loss(output, target, reduction="none")
            return (loss * mask if mask.numel() > 0 else loss).mean()

        return loss_fn


@pytest.mark.parametrize("masked", [False, True])
def test_diffusion_pipe_s_packed_tokens(masked):
    latents, noise, t = batch()
    mask = (torch.arange(8) < 4).float().expand(3, 1, 8, 8) if masked else None
    model = Pipe()
    diffusion_pipe.add_term(model, fixed(), time=lambda features: features[3], patch=2)
    _, label = model.prepare_inputs({"latents": latents, "noise": noise, "t": t, "mask": mask})
    label = tuple(torch.tensor([]) if part is None else part for part in label)  # as its split_batch does
    output = (label[0] + 0.2 * torch.randn_like(label[0])).requires_grad_()
    loss = model.get_loss_fn()(output, label)
    base = Pipe().get_loss_fn()(output, (label[0], label[-1]))
    unpacked = specreg.unpack_tokens(output, 8, 8)
    term = expected(unpacked, latents, noise, specreg.NoiseLevel.flow(t), "flow", **({"mask": mask} if masked else {}))
    torch.testing.assert_close(loss - base, term, rtol=1e-3, atol=1e-5)
    model = Pipe()
    regularizer = auto()
    diffusion_pipe.add_term(model, regularizer, time=lambda features: features[3], patch=2)
    model.get_loss_fn()(output, label)
    assert float(regularizer.weight.value) > 0


def test_diffusion_pipe_s_first_batch_is_checked():
    latents, noise, t = batch()
    given = {"latents": latents, "noise": noise, "t": t, "mask": None}
    for options in ({"prediction": "velocity"}, {"level": lambda t: specreg.NoiseLevel.flow(t / 2)}):
        model = Pipe()
        diffusion_pipe.add_term(model, fixed(), time=lambda features: features[3], patch=2, **options)
        with pytest.raises(ValueError, match="check_wiring"):
            model.prepare_inputs(given)
        model = Pipe()
        diffusion_pipe.add_term(model, fixed(), time=lambda features: features[3], patch=2, check=False, **options)
        model.prepare_inputs(given)


def test_diffusion_pipe_s_stages_take_no_automatic_weight():
    model = Pipe()
    model.config = {"pipeline_stages": 2}
    with pytest.raises(ValueError, match="needs pipeline_stages = 1"):
        diffusion_pipe.add_term(model, auto(), time=lambda features: features[3], patch=2)
    diffusion_pipe.add_term(model, fixed(), time=lambda features: features[3], patch=2)


# --- stable-audio-tools, what needs none of it -----------------------------------------------------------------------


def test_pure_noise_has_a_level():
    """Its wrappers draw t = 1 where p_one_shot is positive, whose cosine is −4e-8 in float32."""
    level = stable_audio.level(torch.tensor([1.0, 0.5]), "v")
    assert level.alpha.tolist() == pytest.approx([0, 0.7071], abs=1e-4)
    assert float(level.alpha[0]) == 0


def test_a_network_whose_calls_the_loss_remembers_can_be_copied_after_a_step():
    found = stable_audio.SpectralLoss(specreg.SpectralRegularizer("haar", weight=0.5), "v")
    network = torch.nn.Bilinear(4, 4, 4)
    network.register_forward_pre_hook(found.remember)
    x, clean = torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    output = network(x, torch.rand(2, 1, 4))
    found._given = (x, torch.rand(2))
    found({"output": output, "targets": clean}).backward()
    network(output, output)
    assert copy.deepcopy(found).term is None
    assert copy.deepcopy(network).weight.shape == network.weight.shape
