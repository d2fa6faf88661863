"""`specreg sample`: draw from a trained run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from specreg._files import first_entry, is_run_folder, write_text
from specreg.cli.console import err, folder_to_write, print_path, print_warning, whole_number

NOTE = "sampled-from.yaml"
"""File beside the samples that says what they were drawn from."""


def sample(
    run_folder: Annotated[Path, typer.Argument(help="A run folder with checkpoints.", metavar="RUN")],
    out_folder: Annotated[
        Path,
        typer.Option("--out", callback=folder_to_write, help="Folder for the files, empty or of the same samples."),
    ] = Path("samples"),
    count: Annotated[int, typer.Option(parser=whole_number(1), metavar="INTEGER", help="How many.")] = 16,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the first; sample i has seed + i.")] = 0,
    sampler: Annotated[str | None, typer.Option(help="Another sampler of the run's objective.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the sampler, where it has a number of steps.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, max=1, help="Of DDIM.")] = None,
) -> None:
    """Draw from a trained run, one seed and one file for each sample (PNG, or wav for a vocoder).

    Options that are not given are as in the run.
    """
    import torch

    from specreg import evaluation, modalities
    from specreg.config import yaml_text

    if is_run_folder(out_folder):
        raise ValueError(f"--out: expected a folder for samples alone; {out_folder} is a run's folder")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = evaluation.load_trained(run_folder, device, warn=print_warning)
    settings = {"count": count, "seed": seed, "sampler": sampler, "steps": steps, "eta": eta}
    given = {name: value for name, value in settings.items() if value is not None}
    tree = trained.config.model_dump(mode="json", exclude={"metrics"})  # nothing is scored, so no rule of scores holds
    config = modalities.parse({**tree, "sampling": {**tree["sampling"], **given}}, where="options")
    made_of = {
        "run": str(run_folder),
        "step": trained.step,
        "weights": evaluation.weights_sha256(trained.network),
        "config": config.model_dump(mode="json"),
    }
    _refuse_others(out_folder, made_of)
    modalities.refuse_too_large(config)
    modality = modalities.of(config)
    prompts = modality.prompts(config, trained.description)
    indices = range(modality.count(config, prompts))
    with err.status(f"sampling {len(indices)} at step {trained.step}"):
        samples = modality.draw(config, trained.network, trained.shape, prompts, indices, device=device)
    out_folder.mkdir(parents=True, exist_ok=True)
    write_text(out_folder / NOTE, yaml_text.dump(made_of))  # first: an interrupted command may then be repeated
    written = modality.export_samples(samples, out_folder, first=seed)
    print_path(written, out_folder)


def _refuse_others(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Raise ValueError where a folder holds anything but samples of these weights and settings."""
    first = first_entry(folder)
    if first is None:
        return
    held = _read_note(folder / NOTE)
    if held is None:
        found = f"files without a {NOTE}, such as {first.name}"
    elif held["weights"] != made_of["weights"]:
        found = f"samples of {held.get('run')} at step {held.get('step')}"
    elif changed := _changed(held["config"], made_of["config"]):
        found = f"samples with {changed}"
    else:
        return
    raise ValueError(
        f"--out: expected an empty folder, or no more samples of the same weights and settings; {folder} holds {found}"
    )


def _read_note(path: Path) -> dict[str, Any] | None:
    """Return what samples were drawn from; None where no note says it."""
    import yaml

    from specreg.config import yaml_text

    try:
        note = yaml_text.load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return note if isinstance(note, dict) and {"weights", "config"} <= note.keys() else None


def _changed(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Return the first setting that samples depend on and that is another in `wanted`, in words; None where none is.

    More samples of the same seed are no change: sample i depends on seed + i alone.
    """
    for section, aside in (("sampling", {"batch_size"}), ("data", {"cache"})):
        ours, theirs = held.get(section, {}), wanted[section]
        for key in theirs.keys() & ours.keys() - aside:
            fits = ours[key] <= theirs[key] if (section, key) == ("sampling", "count") else ours[key] == theirs[key]
            if not fits:
                return f"{section}.{key} = {ours[key]}, not {theirs[key]}"
    return None
