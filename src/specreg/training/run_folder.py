"""The folder of a run: one process at a time, and its newest whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from specreg import processes
from specreg._files import writing
from specreg.config import ConfigError
from specreg.training import checkpoint
from specreg.training.checkpoint import Checkpoint


class Claim:
    """The right to write to a run's folder: one process has it, or all processes of one launcher.

    It is a lock on a file in `.locks` beside the folder, which the system releases when the process dies. Within one
    process it may be had several times. Under a launcher every process must call each method.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        path = self.folder.parent / ".locks" / self.folder.name
        self._lock = FileLock(path, is_singleton=True, thread_local=False)
        self.held = False

    def acquire(self) -> bool:
        """Take the claim; returns whether this process has it now."""
        if not self.held:
            self.held = processes.gather(self._lock_now() if processes.state().is_main_process else True)[0]
        return self.held

    def acquire_if_begun(self) -> bool:
        """Take the claim if the folder exists; returns False only where another process has it."""
        return self.acquire() if processes.gather(self.folder.exists())[0] else True

    def release(self) -> None:
        """Give the claim back, if it is held."""
        if self.held and processes.state().is_main_process:
            self._lock.release()
        self.held = False

    def _lock_now(self) -> bool:
        path = Path(self._lock.lock_file)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                return False
        return True


def refuse_second(folder: Path) -> ConfigError:
    """Return the error for a folder in which another process trains."""
    return ConfigError(
        f"{folder}: another process trains this run; wait for it or stop it, or choose another name, such as "
        f"name={folder.name}-2"
    )


def resume_from(folder: Path, warn: Callable[[str], None]) -> tuple[Path, Checkpoint] | None:
    """Return the newest whole checkpoint of a claimed run; damaged ones are set aside, left-over files removed."""
    found, checkpoints = None, folder / "checkpoints"
    if processes.state().is_main_process:
        for leftover in folder.glob(".*.partial"):
            leftover.unlink(missing_ok=True)
        found = checkpoint.newest_whole(checkpoints, warn)
    path = processes.gather(found and found[0])[0]
    if path is None or found is not None:
        return found
    return path, checkpoint.load(path)
