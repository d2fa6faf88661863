"""Measure sets of samples beside a reference, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from specreg.instruments.differences import same_samples
from specreg.instruments.measuring import Settings, as_source, measure
from specreg.instruments.page import fragment
from specreg.instruments.paired import agreement
from specreg.instruments.properties import error_against_number, split_half
from specreg.instruments.result import Result, SetResult, describe
from specreg.instruments.sources import Source
from specreg.instruments.sources.fields import xarray_module

Data = Source | Tensor | np.ndarray | str | Path | Any


class Spectra(Result):
    """A reference and the sets measured beside it; notebooks show it in words, with its figures."""

    def _repr_html_(self) -> str:
        return fragment(self)

    def to_xarray(self) -> Any:
        """Return the spectra of all sets as one xarray Dataset over `set`, the reference first, and `frequency`.

        See `Spectrum.to_xarray`; the frequencies are those of the reference.
        """
        spectra = [each.spectrum for each in (self.reference, *self.sets)]
        found = [spectrum.to_xarray() for spectrum in spectra]
        shared = [each.assign_coords(frequency=found[0].frequency, channel=found[0].channel) for each in found]
        names = xarray_module().Variable("set", [spectrum.name for spectrum in spectra])
        return xarray_module().concat(shared, names, combine_attrs="drop")


def spectra(
    reference: Data,
    *others: Data,
    settings: Settings | None = None,
    names: Sequence[str] | None = None,
    paired: bool = False,
    fitted: tuple[float, float] | None = None,
    share: float = 0.5,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Spectra:
    """Return the spectra of sets of samples beside that of a reference.

    Args:
        reference: a path, an xarray object, samples `[N, C, *space]`, or a source: what the others should be like.
        others: the sets in question, of samples of the same size.
        settings: window, detrending, transform, number of bootstrap replicates.
        names: names of all sets, the reference first.
        paired: the samples of each set correspond to the reference's by name, as reconstructions do. Adds coherence,
            and intervals of differences account for the pairing.
        fitted: frequencies, cycles per sample, between which slopes are fitted.
        share: share of the reference's power that effective resolution asks for.
        workers: threads; results do not depend on their number.
        progress: called with the name of a set, the samples done, and all of them.

    Raises:
        ValueError: sets that cannot be compared, or that cannot be read.
    """
    settings = settings or Settings()
    sources = [as_source(data) for data in (reference, *others)]
    labels = list(names) if names else unique([source.name for source in sources])
    if len(labels) != len(sources):
        raise ValueError(f"names must be one for each of {len(sources)} sets; got {len(labels)}")
    for source, label in zip(sources[1:], labels[1:], strict=True):  # before sets are read that may be large
        same_samples(source, sources[0], f"{label!r} and {labels[0]!r}")
    found: list[SetResult] = []
    for seed, (source, label) in enumerate(zip(sources, labels, strict=True)):

        def told(done: int, total: int, label: str = label) -> None:
            if progress:
                progress(label, done, total)

        spectrum = measure(source, settings, name=label, seed=0 if paired else seed, workers=workers, progress=told)
        first = found[0] if found else None
        result = describe(spectrum, first, fitted=fitted, share=share)
        if first and paired:
            agrees = agreement(source, sources[0], settings, workers=workers or 1)
            result = replace(result, agreement=agrees)
        found.append(result)
    spectrum = found[0].spectrum
    return Spectra(found[0], found[1:], split_half(spectrum), error_against_number(spectrum))


def unique(names: Sequence[str]) -> list[str]:
    """Return names that differ: the second of two equal ones gets "(2)"."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
