"""SIGKILL at random moments of training: `python -m benchmarks.reliability.kill --kills 200 --seed 0`.

Kinds of work are `train` (one run), `compare` (two arms, two seeds) and `two` (one run on two processes of a launcher,
of which one or both are killed). Each is done once undisturbed; then the same command is started, killed after a random
time, and started again until it ends. The rule: at the end all files of its folder are those of the undisturbed work,
byte for byte, or number for number in JSON, times left out. A process whose peer was killed, and that is then told to
stop as a launcher does, ends within 10 s. No report is built: it shows times, and would take most of the time.

Commands run in forks of one process that has imported everything, so that a kill costs a second.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import mmap
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "data": {"resolution": 16, "squares": [2, 4], "count": 20},
    "model": {"width": 8, "multipliers": [1, 2], "attention": [1], "patch_size": 2},
    "diffusion": {"timesteps": 50, "prediction": "x0"},
    "spectral": {"name": "amplitude_phase", "weight": "auto"},
    "training": {"steps": 48, "batch_size": 8, "warmup": 2, "log_every": 1, "checkpoint_every": 3},
    "sampling": {"count": 4, "steps": 3},
}
COMMANDS = {
    "train": ["train", "tiny.yaml"],
    "compare": ["compare", "tiny.yaml", "training.steps=6", "--arms", "none,amplitude@auto", "--seeds", "2"],
    "two": ["train", "tiny.yaml"],
}
PLACES = ("start", "data", "step", "checkpoint", "log", "evaluation", "between")
FUNCTIONS = {
    "specreg.training.trainer:Trainer._set_up": "start",
    "specreg.evaluation:load_truth": "data",
    "specreg.training.trainer:Trainer.train_step": "step",
    "specreg.training.checkpoint:save": "checkpoint",
    "specreg.training.runlog:RunLog.write": "log",
    "specreg.evaluation:evaluate": "evaluation",
}
TIMES = {"seconds", "seconds_per_step", "train_seconds", "timing", "step_seconds", "created"}
DEAD_RANK = 10.0
"""Seconds within which a process ends whose peer was killed."""


class Found(NamedTuple):
    """What killing came to."""

    kills: Counter[tuple[str, str]]  # by kind of work and place
    ended: Counter[str]  # works that were brought to their end and compared, by kind
    differences: list[str]
    slowest: float  # seconds until a process ended whose peer was killed


class _Work:
    """One command in forked processes, one a rank."""

    def __init__(self, kind: str, folder: Path, place: mmap.mmap):
        self.began = time.monotonic()
        port = _free_port()
        ranks = 2 if kind == "two" else 1
        self.pids = [_fork(kind, folder, place, rank, ranks, port) for rank in range(ranks)]
        self.codes: dict[int, int] = {}

    def wait(self, seconds: float) -> bool:
        """Wait for all processes, and return whether they ended."""
        end = time.monotonic() + seconds
        while True:
            for pid in self.pids:
                if pid not in self.codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    self.codes[pid] = os.waitstatus_to_exitcode(ended[1])
            if len(self.codes) == len(self.pids) or time.monotonic() > end:
                return len(self.codes) == len(self.pids)
            time.sleep(0.002)

    def kill(self, which: Sequence[int]) -> float | None:
        """Kill processes, and ask the others to stop, as a launcher does.

        Returns after how many seconds the last one ended, None where one did not.
        """
        for pid in which:
            if pid not in self.codes:
                os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        self.wait(0.1)
        for pid in self.pids:
            if pid not in self.codes:
                os.kill(pid, signal.SIGTERM)
        if self.wait(DEAD_RANK):
            return time.monotonic() - began
        for pid in self.pids:
            if pid not in self.codes:
                os.kill(pid, signal.SIGUSR1)  # says where it hangs
        self.wait(0.5)
        self.kill(self.pids)
        return None


def kill(kinds: Sequence[str], *, kills: int, seed: int, folder: Path) -> Found:
    """Do works of each kind in turn, killing them at random moments, until there were so many kills."""
    found, rng, place = Found(Counter(), Counter(), [], 0.0), random.Random(seed), mmap.mmap(-1, 1)
    _import(["specreg.cli", "specreg.training.trainer", "specreg.report"])
    folder.mkdir(parents=True, exist_ok=True)
    whole, seconds, slowest = {}, {}, 0.0
    for kind in kinds:
        work = _Work(kind, _fresh(folder / kind), place)
        if not work.wait(600) or any(work.codes.values()):
            raise RuntimeError(f"{kind}: ends with {work.codes} undisturbed; see {folder / kind / 'said'}")
        _import((folder / kind / "modules").read_text().split())
        work = _Work(kind, _fresh(folder / kind), place)
        work.wait(600)
        seconds[kind], whole[kind] = time.monotonic() - work.began, contents(folder / kind / "runs")
    while found.kills.total() < kills:
        for kind in kinds:
            _fresh(folder / kind)
            while True:
                work = _Work(kind, folder / kind, place)
                last = found.kills.total() >= kills
                if work.wait(600 if last else rng.uniform(0, seconds[kind] / 2)):
                    break
                where = PLACES[place[0]]
                which = work.pids if rng.random() < 0.5 else [rng.choice(work.pids)]
                took = work.kill(which)
                found.kills[kind, where] += 1
                if took is None:
                    said = (folder / kind / "said").read_text()[-1500:]
                    stays = f"{kind}: a process stays {DEAD_RANK:.0f} s after its peer ({where})"
                    found.differences.append(f"{stays}: {said}")
                elif len(which) < len(work.pids):
                    slowest = max(slowest, took)
            if any(work.codes.values()):
                said = (folder / kind / "said").read_text()[-300:]
                found.differences.append(f"{kind}: ended with {sorted(work.codes.values())}: {said}")
                continue
            found.ended[kind] += 1
            found.differences.extend(
                f"{kind}: {line}" for line in differences(whole[kind], contents(folder / kind / "runs"))
            )
            if found.kills.total() >= kills:
                break
    return found._replace(slowest=slowest)


def contents(folder: Path) -> dict[str, Any]:
    """Return what each file under a folder holds: numbers of JSON without times, bytes of others."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or ".locks" in path.parts or path.name == "step-seconds.json":
            continue
        if path.suffix == ".jsonl":
            found[name] = [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text()))
            if path.name == "checksums.json":
                del found[name]["state.json"]  # it has the seconds of training
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _timeless(value) for key, value in tree.items() if key not in TIMES}
    return [_timeless(value) for value in tree] if isinstance(tree, list) else tree


def differences(whole: dict[str, Any], killed: dict[str, Any]) -> list[str]:
    """Return what the files of work that was killed have otherwise, one line a file."""
    missing = [f"{name}: is missing" for name in whole.keys() - killed.keys()]
    more = [f"{name}: is left over" for name in killed.keys() - whole.keys()]
    changed = [f"{name}: differs" for name in whole.keys() & killed.keys() if whole[name] != killed[name]]
    return sorted(missing + more + changed)


def _import(names: Sequence[str]) -> None:
    """Import what a command imported, so that its next fork need not."""
    for name in names:
        with suppress(ImportError):  # some are made, not imported
            importlib.import_module(name)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _fork(kind: str, folder: Path, place: mmap.mmap, rank: int, ranks: int, port: int) -> int:
    """Run a command in a fork of this process, which goes on; return the fork's id."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.chdir(folder)
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        faulthandler.register(signal.SIGUSR1)
        os.environ["ACCELERATE_USE_CPU"] = "1"
        if ranks > 1:  # what torchrun sets
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        importlib.import_module("specreg.report").build_report = lambda folder: folder  # type: ignore[attr-defined]
        if rank == 0:
            _mark_places(place)
        sys.argv = ["specreg", *COMMANDS[kind]]
        main = importlib.import_module("specreg.__main__").main
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if rank == 0:
            Path("modules").write_text("\n".join(sys.modules))
        sys.stdout.flush()
    finally:
        os._exit(code)


def _mark_places(place: mmap.mmap) -> None:
    """Have this process say in shared memory where it is."""
    place[0] = PLACES.index("between")
    for function, name in FUNCTIONS.items():
        module, _, path = function.partition(":")
        owner: Any = importlib.import_module(module)
        *classes, attribute = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        setattr(owner, attribute, _marked(getattr(owner, attribute), place, PLACES.index(name)))


def _marked(function: Callable[..., Any], place: mmap.mmap, number: int) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        with _at(place, number):
            return function(*args, **options)

    return run


@contextmanager
def _at(place: mmap.mmap, number: int) -> Iterator[None]:
    before, place[0] = place[0], number
    try:
        yield
    finally:
        place[0] = before


def main() -> None:
    """Kill from the command line; exit code 1 where a killed run ended otherwise than the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(COMMANDS), help="some of train, compare and two")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        found = kill(given.kinds.split(","), kills=given.kills, seed=given.seed, folder=Path(name))
    for kind in given.kinds.split(","):
        places = {place: found.kills[kind, place] for place in PLACES if found.kills[kind, place]}
        at = ", ".join(f"{place} {count}" for place, count in places.items())
        print(f"{kind}: {sum(places.values())} kills ({at}), {found.ended[kind]} ended")
    for line in found.differences:
        print(line)
    print(
        f"{found.kills.total()} kills, {len(found.differences)} differences, a process ended at most "
        f"{found.slowest:.1f} s after its peer, {time.monotonic() - began:.0f} s from seed {given.seed}"
    )
    sys.exit(bool(found.differences))


if __name__ == "__main__":
    main()
