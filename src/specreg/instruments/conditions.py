"""Conditions that fail a run of the command: `high_band_db < -3`, `log_spectral_distance_db.low > 1`."""

from __future__ import annotations

import math
import operator
import re
from typing import NamedTuple

from specreg import _checks
from specreg.instruments.result import SetResult
from specreg.instruments.sums import Value

NAMES = (
    "log_spectral_distance_db", "high_band_db", "corners_db", "zero_db", "slope", "slope_difference",
    "effective_resolution", "artefact_z", "artefacts", "anisotropy_db", "least_coherence",
)  # fmt: skip
_FORM = re.compile(r"\s*(\w+)(?:\.(value|low|high))?\s*(<=|>=|<|>)\s*([-+−]?[\w.]+)\s*")
_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Condition(NamedTuple):
    """A number of a set, an order, a limit."""

    name: str
    part: str  # value, low or high
    order: str
    limit: float
    text: str

    def met(self, found: SetResult) -> bool:
        """Return whether a set meets the condition. Raises ValueError where it was not measured."""
        values = found.values()
        if self.name not in values:
            raise ValueError(f"--fail-if '{self.text}': {self.name} was not measured of {found.spectrum.name!r}")
        value = float(getattr(values[self.name], self.part))
        if math.isnan(value):
            raise ValueError(f"--fail-if '{self.text}': too few samples of {found.spectrum.name!r} for an interval")
        return bool(_OPERATORS[self.order](value, self.limit))


def parse(text: str) -> Condition:
    """Return the condition that a text says; a ValueError names what is wrong with it."""
    form = _FORM.fullmatch(text)
    limit = math.nan
    if form:
        try:
            limit = float(form[4].replace("−", "-"))
        except ValueError:
            form = None
    if not form or math.isnan(limit):
        raise ValueError(f"--fail-if takes NAME < NUMBER or NAME > NUMBER, such as 'high_band_db < -3'; got {text!r}")
    name = _checks.choice("the name in --fail-if", form[1], NAMES)
    return Condition(name, form[2] or Value._fields[0], form[3], limit, text.strip())
