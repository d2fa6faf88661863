"""A bad input, and the command run on it in this process."""

import contextlib
import io
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SECONDS = 10


class TooSlow(BaseException):
    """The command ran on, as if its input were good."""


def _stop(number, frame):
    raise TooSlow


class Case(NamedTuple):
    """A bad input: `make` writes what it needs into an empty folder and returns the arguments of the command."""

    name: str
    make: Callable[[Path], list[str]]
    words: str  # a pattern of the sentence: where, what was expected, what came


class Shown(NamedTuple):
    """What the command did."""

    code: int
    out: str
    err: str  # on one line, without the frame that typer draws
    seconds: float


TINY = """\
name: tiny
data: {resolution: 16, squares: [2, 4], count: 20}
model: {width: 8, multipliers: [1, 2], attention: [1], patch_size: 2}
diffusion: {timesteps: 50, prediction: x0}
training: {steps: 1, batch_size: 4, warmup: 2}
sampling: {count: 2, steps: 3}
"""


def train(folder: Path, *overrides: str) -> list[str]:
    """Write a tiny run and return the arguments that train it: one step, should the input be taken."""
    (folder / "tiny.yaml").write_text(TINY)
    return ["train", "tiny.yaml", *overrides]


def run(arguments: list[str], *, seconds: int = SECONDS) -> Shown:
    """Run `specreg ARGUMENTS` in this process, as its entry point does; TooSlow where it takes longer."""
    from specreg.cli import run as command

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code, before, start = 0, sys.argv, time.perf_counter()
    handler = signal.signal(signal.SIGALRM, _stop)
    signal.alarm(seconds)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["specreg", *arguments]
        try:
            command()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
            sys.argv = before
            out.flush()
            err.flush()
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return Shown(code, texts[0], re.sub(r"[\s│╭╮╰╯─]+", " ", texts[1]), time.perf_counter() - start)


def listed(folder: Path) -> list[str]:
    """Return all that is in a folder, without reading it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
