"""What a run would need of memory, said before anything is built, and what this machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Need(NamedTuple):
    """What some fields of a config ask for, counted low: nothing that fits is refused for it."""

    fields: str  # whose values decide it, such as "data.resolution, training.batch_size"
    what: str  # such as "a batch of images"
    bytes: int


class TooLarge(ValueError):
    """Something needs more memory than this machine has: which fields, what, how much."""


def refuse_beyond(needs: Iterable[Need]) -> None:
    """Raise TooLarge for the first of some needs that is beyond the memory of this machine."""
    there = available()
    for need in needs:
        if there is not None and need.bytes > there:
            raise TooLarge(
                f"{need.fields}: expected values for which {need.what} fits into the {readable(there)} of this "
                f"machine; got values for which it takes at least {readable(need.bytes)}"
            )


def available() -> int | None:
    """Return the bytes that this process may use at most, whatever is in use now; None where nothing tells."""
    found = [_physical(), *map(_limit_in, _GROUPS), _address_space()]
    return min((value for value in found if value is not None), default=None)


def readable(count: int) -> str:
    """Return a number of bytes in words, such as "1.5 GB"."""
    digits = int(math.log10(max(1, count)))
    if digits > 24:
        return f"10^{digits} bytes"
    exponent = min(len(_UNITS) - 1, digits // 3)
    value = count / 1000**exponent
    return f"{value:,.3g} {_UNITS[exponent]}" if value < 1000 else f"{value:,.0f} {_UNITS[exponent]}"


_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
_GROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells the limit of a container."""


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def _limit_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _address_space() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
