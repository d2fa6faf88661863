"""`specreg sample`: draw from a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreg._files import write_text
from specreg.cli.console import err, home, print_path, print_warning, whole_number


def sample(
    run_folder: Annotated[Path, typer.Argument(help="A run folder with checkpoints.", metavar="RUN")],
    out_folder: Annotated[Path, typer.Option("--out", callback=home, help="Folder for the files.")] = Path("samples"),
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
    from specreg.config import dump

    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = evaluation.load_trained(run_folder, device, warn=print_warning)
    settings = {"count": count, "seed": seed, "sampler": sampler, "steps": steps, "eta": eta}
    given = {name: value for name, value in settings.items() if value is not None}
    tree = trained.config.model_dump(mode="json", exclude={"metrics"})  # nothing is scored, so no rule of scores holds
    config = modalities.parse({**tree, "sampling": {**tree["sampling"], **given}}, where="options")
    modalities.refuse_too_large(config)
    modality = modalities.of(config)
    prompts = modality.prompts(config, trained.description)
    indices = range(modality.count(config, prompts))
    with err.status(f"sampling {len(indices)} at step {trained.step}"):
        samples = modality.draw(config, trained.network, trained.shape, prompts, indices, device=device)
    out_folder.mkdir(parents=True, exist_ok=True)
    written = modality.export_samples(samples, out_folder, first=seed)
    write_text(out_folder / "config.yaml", dump(config))
    print_path(written, out_folder)
