"""Progress of a run: `metrics.jsonl`, one JSON object for each logged step, and a progress bar in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from specreg._files import WriteError, write_text, writing


class RunLog:
    """Append-only log of a run; a resumed run first drops the steps that were logged after its checkpoint."""

    def __init__(self, path: Path, *, from_step: int = 0):
        self.path = path
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if (step := _step(line)) is not None and step <= from_step]
            write_text(path, "".join(line + "\n" for line in kept))
        with writing(path):
            self._file = path.open("ab", buffering=0)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, past the buffers of this process. Raises WriteError, also for a file that was deleted."""
        if not self.path.exists():
            raise WriteError(f"{self.path}: is gone: the run's folder was deleted or moved while training")
        line = (json.dumps(record) + "\n").encode()
        with writing(self.path):
            while line:  # a disk that fills up takes a part first
                line = line[self._file.write(line) :]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step(line: str) -> int | None:
    """Return the step of a record; None for the torn last line of a run that was killed."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


class Bar:
    """A progress bar with base loss, spectral term, λ and time left; silent when the console is not a terminal."""

    def __init__(self, console: Console, title: str, steps: int, done: int):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeRemainingColumn(compact=True),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.progress.add_task(title, total=steps, completed=done, terms="")
        self.progress.start()

    def advance(self, terms: dict[str, float | None] | None) -> None:
        """Advance by one step, and show `terms` where they are given."""
        if terms is None:
            self.progress.advance(self.task)
            return
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items() if value is not None)
        self.progress.update(self.task, advance=1, terms=shown)

    def close(self) -> None:
        """Stop drawing."""
        self.progress.stop()
