"""The instructions of a pickle, looked at without running them, and how a file is refused."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any

from specreg._files import said

MAX_OPERATIONS = 5_000_000


class CheckpointRefused(ValueError):
    """A checkpoint file is damaged or holds something forbidden; the message names the file and the fault."""


class NoPickle(CheckpointRefused):
    """The file does not consist of a pickle's instructions."""


def operations(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield the instructions and their arguments; raises CheckpointRefused for a damaged pickle."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count >= MAX_OPERATIONS:
                raise CheckpointRefused(f"expected at most {MAX_OPERATIONS} instructions; got more")
            yield opcode.name, argument
    except CheckpointRefused:
        raise
    except Exception as error:  # genops reports damage as ValueError, UnicodeError, struct.error, OverflowError, ...
        raise NoPickle(f"is not a whole pickle ({said(error)})") from None
