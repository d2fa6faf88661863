"""A trained run → samples → metrics → `results.json`, shared over the processes of a launcher."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from specreg import _html, modalities, processes
from specreg._files import write_json, writing
from specreg.config import Config, ConfigError
from specreg.modalities.protocol import Description, Device, NotFinite, Truth
from specreg.training import checkpoint
from specreg.training.term import build_objective, restore_regularizer

RESULTS_VERSION = 5
"""Version of results.json; results of another version are measured again, without training."""


class Results(dict[str, Any]):
    """What results.json holds; a notebook shows its metrics."""

    def _repr_html_(self) -> str:
        described = self["described"]
        rows = [
            [described[name]["label"], f"{_html.number(value, described[name]['digits'])} {described[name]['unit']}"]
            for name, value in self["metrics"].items()
        ]
        title = f"{self['arm']}, seed {self['seed']}, step {self['step']}: {self['samples']} samples"
        return _html.table(title, ["metric", "value"], rows, note="One run: no spread over seeds is known.")


class Trained(NamedTuple):
    """The averaged network of a run, and what it was trained for."""

    config: Config
    network: nn.Module
    description: Description | None  # of the network, where the config does not say all of it
    shape: tuple[int, ...]  # of one x0, (C, *space)
    step: int
    seconds: float  # of training
    skipped: int  # optimizer steps that a gradient scaler skipped
    regularizer: dict[str, Any] | None  # state of λ at that step


def load_trained(folder: Path, device: Device = "cpu", *, warn: Callable[[str], None] | None = None) -> Trained:
    """Return the network of a run folder's last checkpoint; the training data need not be there.

    With `warn`, which is called with a sentence, it is the last one that is not damaged; without, a damaged one
    raises CheckpointError.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: expected a run folder with a config.yaml; there is none")
    config = modalities.load(folder / "config.yaml")
    checkpoints = folder / "checkpoints"
    if warn is not None:
        found = checkpoint.newest_averaged(checkpoints, warn)
    else:
        newest = checkpoint.latest(checkpoints)
        found = checkpoint.load_ema(newest) if newest else None
    if found is None:
        raise ConfigError(f"{checkpoints}: expected a checkpoint; there is none yet")
    weights, state = found
    shape = tuple(state["shape"])
    network, description = modalities.of(config).network(config, shape, state.get("network"))
    network.load_state_dict(weights)
    return Trained(
        config,
        network.to(device).eval(),
        description,
        shape,
        state["step"],
        state["seconds"],
        state.get("skipped", 0),
        state.get("regularizer"),
    )


def load_truth(config: Config, *, device: Device = "cpu", scored: bool = True) -> Truth:
    """Return the real data that samples of a run are measured against; ConfigError for a run that is too large."""
    modalities.refuse_too_large(config, processes=processes.state().num_processes)
    return modalities.of(config).truth(config, device=device, scored=scored)


def evaluate(
    folder: Path,
    truth: Truth,
    *,
    arm: str | None = None,
    command: str | None = None,
    device: Device = "cpu",
    calibrated_in: Path | None = None,
) -> Results | None:
    """Sample the run in `folder`, measure, and write `samples/` and `results.json`; return the results.

    With `calibrated_in` the network is calibrated first (see `specreg.calibrated`), and the files go into that folder.

    Under a launcher every process must call: samples are drawn and analysed in shares, one a process. The main process
    then writes, the others return None.
    """
    trained = load_trained(folder, device)
    config, network = trained.config, trained.network
    modality, target = modalities.of(config), calibrated_in or folder
    objective = build_objective(config, device, saved=trained.description)
    restore_regularizer(objective.regularizer, trained.regularizer, step=trained.step)
    if calibrated_in is not None:
        network = modality.calibrate(config, objective, network, device=device).eval()
    found = evaluate_network(config, network, trained.shape, truth, target, device=device)
    if found is None:
        return None
    if (denoised := modality.denoise(config, objective, network, truth, device=device)) is not None:
        found["metrics"] |= denoised.values
        found["denoising"] = denoised.map.record()
    if odd := sorted(name for name, value in found["metrics"].items() if not math.isfinite(value)):
        raise NotFinite(f"{folder}: metrics of its samples are not finite: {', '.join(odd)}")
    results = Results(
        {
            "version": RESULTS_VERSION,
            "title": config.title,
            "command": command,
            "arm": arm or (config.spectral.name if config.spectral else "none"),
            "seed": config.seed,
            "step": trained.step,
            "sampling": config.sampling.model_dump(mode="json"),
            **found,
            "described": {name: modality.metrics[name]._asdict() for name in found["metrics"]},
            "skipped_steps": trained.skipped,
            "timing": {}
            if calibrated_in
            else {
                **timing(folder / "metrics.jsonl"),
                "train_seconds": trained.seconds,
            },  # a calibration takes no training
            "truth": truth.record(),
            "truth_sha256": truth.fingerprint,
            "weights_sha256": weights_sha256(trained.network),
            "parameters": sum(p.numel() for p in trained.network.parameters()),
        }
    )
    write_json(target / "results.json", results)
    return results


def evaluate_network(
    config: Config, network: nn.Module, shape: Sequence[int], truth: Truth, folder: Path, *, device: Device = "cpu"
) -> dict[str, Any] | None:
    """Draw samples of a network into `folder`/samples and score them; return that part of results.json.

    Under a launcher every process must call; all but the main one return None.
    """
    modality = modalities.of(config)
    indices = processes.share(modality.count(config, truth.prompts))
    try:
        part, problem = modality.draw(config, network, shape, truth.prompts, indices, device=device), None
    except NotFinite as found:
        part, problem = None, found
    if problems := [one for one in processes.gather(problem) if one is not None]:
        raise problems[0]  # in all processes, or the others would wait for this one
    parts = processes.gather(modality.analyse(config, part, truth, device=device))
    if not processes.state().is_main_process:
        return None
    samples = modality.join(parts)
    with writing(folder / "samples"):
        modality.save(samples, folder / "samples")
    scores = modality.score(config, samples, truth)
    label = {name: metric.label for name, metric in modality.metrics.items()}
    return {
        "samples": modality.count(config, truth.prompts),
        "sampler": modality.describe_sampler(config, network),
        "metrics": dict(scores.values),
        "missing": {label[name]: why for name, why in scores.missing.items()},
        "failures": {label[name]: why for name, why in scores.failures.items()},
        **scores.record,
    }


def weights_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of a network's tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + str(tensor.dtype).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def timing(log: Path) -> dict[str, float]:
    """Return the median seconds per step over the logged steps of a run's metrics.jsonl; empty without whole lines."""
    seconds = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            seconds.append(float(json.loads(line)["seconds_per_step"]))
        except (ValueError, KeyError, TypeError):
            continue  # the torn last line of a run that was killed
    return {"seconds_per_step": statistics.median(seconds)} if seconds else {}
