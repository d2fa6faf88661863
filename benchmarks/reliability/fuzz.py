"""Random damage to what specreg reads: `python -m benchmarks.reliability.fuzz KIND --seconds 600 --seed 0`.

Kinds are `pickle`, `dataset`, `array` and `config`. The rule: what is read is taken, or refused by specreg's own
ValueError, TypeError or OSError; no other exception, none that another library raised, no code run, no file written,
no process started, 10 s and 2 GB at most. Inputs that break it are kept in a folder, and named.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import specreg
from benchmarks.reliability import seeds

SECONDS, BYTES = 10, 2 * 10**9
OURS = str(Path(specreg.__file__).parent)
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "webbrowser.open",
)


class TooSlow(BaseException):
    """An input took longer than `SECONDS`."""


class Found(NamedTuple):
    """What fuzzing found."""

    outcomes: Counter[str]  # "taken", "refused", or what broke the rule
    broken: list[tuple[str, bytes]]  # the first input of each way to break it


class _Watch:
    """Notes what an input must not do: Python's audit events cannot be unhooked, so one watch serves a process."""

    def __init__(self) -> None:
        self.allowed: str | None = None  # folder that may be written to; None while nothing is watched
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event.startswith(FORBIDDEN):
            self.seen.append(event)
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            self.seen.append(f"open {arguments[0]}")


def fuzz(kind: str, *, seed: int, seconds: float, most: int | None = None) -> Found:
    """Damage inputs of a kind for some seconds, or `most` times, and return what came of it."""
    target = seeds.KINDS[kind]
    rng, found, watch = random.Random(seed), Found(Counter(), []), _watch()
    end = time.monotonic() + seconds
    handler = signal.signal(signal.SIGALRM, _stop)
    try:
        with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = Path(name)
            known = target.seeds(folder)
            for path, content in known.items():
                (folder / path).write_bytes(content)
                target.read(folder / path)  # undamaged, and what is imported at first use is imported
            while time.monotonic() < end and (most is None or found.outcomes.total() < most):
                path = rng.choice(list(known))
                content = target.damage(rng, known[path], list(known.values()))
                (folder / path).write_bytes(content)
                outcome = _outcome(target.read, folder / path, watch)
                if outcome not in ("taken", "refused") and outcome not in found.outcomes:
                    found.broken.append((f"{path}: {outcome}", content))
                found.outcomes[outcome] += 1
    finally:
        signal.signal(signal.SIGALRM, handler)
    return found


_WATCHES: list[_Watch] = []


def _watch() -> _Watch:
    if not _WATCHES:
        _WATCHES.append(_Watch())
    return _WATCHES[0]


def _stop(number: int, frame: Any) -> None:
    raise TooSlow


def _outcome(read: Callable[[Path], Any], path: Path, watch: _Watch) -> str:
    """Return what reading a file came to, in words that are equal for equal faults."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch.seen.clear()
    watch.allowed = str(path.parent)
    signal.alarm(SECONDS)
    try:
        read(path)
        outcome = "taken"
    except (ValueError, TypeError, OSError) as error:
        outcome = _refusal(error)
    except TooSlow:
        outcome = f"longer than {SECONDS} s"
    except BaseException as error:
        outcome = f"{type(error).__name__} at {_where(error)}"
    finally:
        signal.alarm(0)
        watch.allowed = None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak > before and peak * 1024 > BYTES:
        outcome = f"{peak / 1e6:.1f} GB"
    return f"ran {watch.seen[0]}" if watch.seen else outcome


def _refusal(error: Exception) -> str:
    if not traceback.extract_tb(error.__traceback__)[-1].filename.startswith(OURS):
        return f"{type(error).__name__} of a library at {_where(error)}"
    if " object at 0x" in str(error) or len(str(error)) > 5000 or not str(error):
        return f"a sentence of {len(str(error))} characters at {_where(error)}: {str(error)[:80]}"
    return "refused"


def _where(error: BaseException) -> str:
    """Return the last place in specreg, and the last one of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OURS)] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"


def main() -> None:
    """Fuzz from the command line; exit code 1 where an input broke the rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(seeds.KINDS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"), help="folder for inputs that break the rule")
    given = parser.parse_args()
    found = fuzz(given.kind, seed=given.seed, seconds=given.seconds)
    for outcome, count in found.outcomes.most_common():
        print(f"{count:9,} {outcome}")
    for number, (what, content) in enumerate(found.broken):
        given.keep.mkdir(parents=True, exist_ok=True)
        path = given.keep / f"{given.kind}-{given.seed}-{number}"
        path.write_bytes(content)
        print(f"{path}: {what}")
    print(f"{given.kind}: {found.outcomes.total():,} inputs in {given.seconds:.0f} s from seed {given.seed}")
    sys.exit(bool(found.broken))


if __name__ == "__main__":
    main()
