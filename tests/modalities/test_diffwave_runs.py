"""Runs of DiffWave from configs: draws, pairing, resume, export, results; tiny networks on synthetic sound."""

import json
import math
import wave

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from specreg import config as configs
from specreg import evaluation, modalities
from specreg.compare import compare, resolve_arms
from specreg.config import ConfigError
from specreg.modalities import parse
from specreg.modalities.sound.network import build_diffwave, describe, diffwave_config, open_clips
from specreg.models.diffwave import DiffWave
from specreg.models.diffwave_checkpoint import load_diffwave, save_diffwave
from specreg.recipes import RECIPES
from specreg.training.term import build_objective
from specreg.training.trainer import Trainer

RATE = 8000
TINY = [
    "vocoder.residual_layers=2", "vocoder.residual_channels=8", "vocoder.dilation_cycle_length=2", "vocoder.n_mels=8",
    "vocoder.n_fft=128", "vocoder.hop_samples=32", "vocoder.crop_mel_frames=16", "training.steps=6",
    "training.batch_size=3", "training.log_every=1", "training.checkpoint_every=3", "training.decay=constant",
    "training.warmup=0", "sampling.count=3", "data.held_out=['held-*']",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("sound"), np.random.default_rng(0)
    for k in range(8):
        t = np.arange(RATE) / RATE
        sound = 0.4 * np.sin(2 * np.pi * (150 + 90 * k) * t) + 0.05 * rng.standard_normal(RATE)
        soundfile.write(path / f"{'held' if k < 3 else 'clip'}-{k}.wav", sound, RATE)
    return path


@pytest.fixture
def tiny(folder):
    def build(*overrides, recipe="diffwave-small"):
        return parse(RECIPES[recipe](), [*TINY, f"data.path={folder}", *overrides], where=recipe)

    return build


def weights(folder, name="model"):
    return load_file(sorted((folder / "checkpoints").iterdir())[-1] / f"{name}.safetensors")


def test_the_paper_s_recipe():
    config = parse(RECIPES["diffwave"]())
    training = config.training
    assert (training.steps, training.batch_size, training.lr, training.clip, training.ema) == (
        150_000,
        16,
        2e-4,
        None,
        0,
    )
    assert config.vocoder.crop_mel_frames == 62
    assert np.allclose(config.vocoder.noise_schedule, np.linspace(1e-4, 0.05, 50))
    assert config.vocoder.inference_noise_schedule == (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5)
    assert {arm for arm in config.arms if config.arms[arm].options.get("reduction") == "sum"} == {
        "amplitude", "amplitude_phase", "haar", "bior1.3",
    }  # fmt: skip
    assert resolve_arms(config, ["haar@1e-4"])["haar@1e-4"].weight == 1e-4


def test_saved_configs_read_back_the_same(tiny, tmp_path):
    config = tiny("data.held_out=0.25")
    (tmp_path / "config.yaml").write_text(configs.dump(config))
    assert modalities.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("sampling.sampler=heun", "sampling.sampler: input should be 'fast' or 'full'; got 'heun'"),
        ("model.kind=small_unet", "model.kind: input should be 'diffwave' or 'pretrained'; got 'small_unet'"),
        ("diffusion.objective=edm", "diffusion.objective: input should be 'diffwave'; got 'edm'"),
        ("vocoder.noise_schedule=[0.5, 2]", "noise_schedule must hold numbers between 0 and 1"),
        ("vocoder.hops=3", "no such key 'vocoder.hops'"),
        ("data.held_out=1.5", "held_out"),
    ],
)
def test_what_does_not_fit_is_a_sentence(tiny, override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        tiny(override)


def test_a_plain_folder_needs_to_say_what_is_held_out(tiny):
    config = tiny("data.held_out=null")
    with pytest.raises(ConfigError, match=r"data\.held_out: expected file-name patterns or a fraction"):
        open_clips(config, diffwave_config(config), "train")


def test_an_own_set_in_ljspeech_s_layout_needs_to_say_it_too(tmp_path, tiny):
    (tmp_path / "wavs").mkdir()
    soundfile.write(tmp_path / "wavs" / "a.wav", np.full(6000, 0.1), 8000)
    (tmp_path / "metadata.csv").write_text("a|text\n")
    config = tiny("data.held_out=null", f"data.path={tmp_path}")
    with pytest.raises(ConfigError, match=r"data\.held_out: expected .*no clips named as LJSpeech's"):
        open_clips(config, diffwave_config(config), "train")


def test_ljspeech_s_held_out_clips_are_never_trained_on(tmp_path, tiny):
    (tmp_path / "wavs").mkdir()
    names = ["LJ001-0001", "LJ002-0007", "LJ003-0001", "LJ050-0002"]
    for name in names:
        soundfile.write(tmp_path / "wavs" / f"{name}.wav", np.full(RATE, 0.1), RATE)
    (tmp_path / "metadata.csv").write_text("".join(f"{name}|a|a\n" for name in names))
    config = tiny("data.held_out=null", f"data.path={tmp_path}")
    parts = {part: open_clips(config, diffwave_config(config), part).names for part in ("train", "held_out")}
    assert parts["train"] == ("wavs/LJ003-0001.wav", "wavs/LJ050-0002.wav")
    assert parts["held_out"] == ("wavs/LJ001-0001.wav", "wavs/LJ002-0007.wav")


def test_sample_rate_is_the_data_s_own_and_the_checkpoint_s_where_there_is_one(tiny, tmp_path):
    assert diffwave_config(tiny()).sample_rate == RATE
    network = DiffWave(diffwave_config(tiny("vocoder.sample_rate=4000")))
    save_diffwave(tmp_path / "net.pt", network)
    tuned = tiny(f"model.checkpoint={tmp_path}/net.pt", "model.kind=pretrained", recipe="diffwave")
    assert diffwave_config(tuned) == network.config
    assert open_clips(tuned, network.config, "train").mel.sample_rate == 4000
    assert all(torch.equal(a, b) for a, b in zip(build_diffwave(tuned).parameters(), network.parameters(), strict=True))


def test_the_first_file_by_name_may_be_damaged(tiny, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    config = tiny(f"data.path={tmp_path}", "data.held_out=['c']")
    with pytest.raises(ValueError, match=r"cannot read the sound .*a\.wav"):
        diffwave_config(config)
    for name in ("b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(6000, 0.1), 6000)
    settings = diffwave_config(config)
    assert settings.sample_rate == 6000
    data = open_clips(config, settings, "train")
    assert data.names == ("b.wav",)
    assert set(data.report.damaged) == {"a.wav"}


def test_objective_takes_the_network_s_own_schedule(tiny):
    config = tiny("vocoder.noise_schedule=[0.1, 0.2]", "diffusion.updates=2", "vocoder.inference_noise_schedule=[0.1]")
    objective = build_objective(config, saved=describe(diffwave_config(config)))
    assert (objective.prediction, objective.norm) == ("epsilon", "mean_absolute")
    assert objective.updates == 2
    assert torch.allclose(objective.time.alphas_cumprod, torch.tensor([0.9, 0.72]))


def test_crops_are_functions_of_seed_step_and_index(tiny, tmp_path):
    first, second = (next(iter(Trainer(tiny(), tmp_path / name).batches())) for name in "ab")
    other = next(iter(Trainer(tiny("seed=1"), tmp_path / "c").batches()))
    for ours, theirs in (
        (first.x0, second.x0),
        (first.noise, second.noise),
        (first.condition["mel"], second.condition["mel"]),
    ):
        assert torch.equal(ours, theirs)
    assert not torch.equal(first.x0, other.x0)
    assert first.x0.shape == (3, 1, 16 * 32)
    assert first.condition["mel"].shape == (3, 8, 16)
    assert len({x.sum().item() for x in first.x0}) == 3


def test_resume_continues_the_same_bits_and_ema_is_off(tiny, tmp_path):
    options = ["spectral.name=haar", "spectral.weight=1e-5", "spectral.options.reduction=sum"]
    Trainer(tiny(*options), tmp_path / "whole").run()
    Trainer(tiny(*options, "training.steps=3"), tmp_path / "parts").run()
    Trainer(tiny(*options), tmp_path / "parts").run()
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    averaged = weights(tmp_path / "whole", "ema")
    assert all(torch.equal(whole[name], averaged[name]) for name in whole)


def test_lambda_zero_is_training_without(tiny, tmp_path):
    Trainer(tiny(), tmp_path / "none").run()
    Trainer(tiny("spectral.name=amplitude", "spectral.weight=0"), tmp_path / "zero").run()
    none, zero = weights(tmp_path / "none"), weights(tmp_path / "zero")
    assert all(torch.equal(none[name], zero[name]) for name in none)


def test_term_is_logged_with_a_gradient_ratio_and_auto_weight_meets_it(tiny, tmp_path):
    Trainer(tiny("spectral.name=amplitude", "spectral.weight=auto", "spectral.ratio=0.1"), tmp_path).run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    ratios = [line["gradient_ratio"] for line in lines]
    assert math.exp(np.mean(np.log(ratios))) == pytest.approx(0.1, rel=0.5)


def test_results_wavs_and_export(tiny, tmp_path):
    config, run = tiny(), tmp_path / "run"
    Trainer(config, run).run()
    truth = evaluation.load_truth(config)
    assert sorted(truth.recordings.clips) == ["held-0", "held-1", "held-2"]
    results = evaluation.evaluate(run, truth)
    found = sorted((run / "samples").glob("*.wav"))
    assert [path.stem for path in found] == ["held-0", "held-1", "held-2"]
    with wave.open(str(found[0])) as file:
        assert (file.getframerate(), file.getnframes(), file.getsampwidth()) == (RATE, RATE // 32 * 32, 2)
    assert results["samples"] == 3
    assert results["metrics"]["lsd_db"] > 1
    assert "FAD" in results["missing"]
    assert "UTMOS" in results["missing"]
    assert not {"fad", "utmos"} & set(results["metrics"])
    assert all(math.isfinite(value) for value in results["metrics"].values())
    again = evaluation.evaluate(run, truth)
    assert again["metrics"] == results["metrics"]  # one seed a clip

    trained = evaluation.load_trained(run)
    modality = modalities.of(config)
    said = modality.export_network(tmp_path / "out.pt", config, trained.network, trained.description, trained.step)
    assert said.startswith(f"DiffWave at {RATE} Hz")
    exported = load_diffwave(tmp_path / "out.pt")
    assert exported.step == 6
    assert exported.model.config == diffwave_config(config)
    saved = weights(run)
    assert all(torch.equal(saved[name], tensor) for name, tensor in exported.model.state_dict().items())


def test_comparison_pairs_arms_and_is_not_run_twice(tiny, tmp_path):
    config = tiny("training.steps=2")
    arms = resolve_arms(config, ["amplitude", "haar@1e-4"])
    found = compare(config, tmp_path, arms, [0, 1])
    rows = {(row["arm"], row["metric"]): row for row in found["table"]}
    row = rows["haar@1e-4", "lsd_db"]
    ours, theirs = (
        [json.loads((tmp_path / f"{arm}-seed{k}" / "results.json").read_text())["metrics"]["lsd_db"] for k in (0, 1)]
        for arm in ("haar@1e-4", "none")
    )
    assert row["difference"]["mean"] == pytest.approx(np.mean(np.subtract(ours, theirs)), abs=1e-12)
    assert row["n"] == 2
    assert "FAD" in found["missing"]
    first = (tmp_path / "none-seed0" / "results.json").stat().st_mtime_ns
    compare(config, tmp_path, arms, [0, 1])
    assert (tmp_path / "none-seed0" / "results.json").stat().st_mtime_ns == first
    assert (tmp_path / "truth" / "held-0.wav").is_file()
