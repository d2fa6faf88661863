"""The folder of a run: one process at a time, and one config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from specreg import modalities, processes
from specreg._files import writing
from specreg.config import Config, ConfigError
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


def refuse_other_run(folder: Path, config: Config) -> None:
    """Raise ConfigError if a folder has a run that differs from `config` in anything that training depends on."""
    path = folder / "config.yaml"
    if not path.exists():
        return
    saved = modalities.load(path)
    aside: Any = {
        "name": True,
        "title": True,
        "arms": True,
        "sampling": True,
        "metrics": True,
        "data": {"test_path", "cache"},
        "training": {"keep", "log_every", "checkpoint_every", "workers", "compile"},
    }
    if config.training.decay == "constant" and not (config.spectral and config.spectral.cooldown):
        aside["training"] = {"steps", "keep", "log_every", "checkpoint_every", "workers", "compile"}
    old, new = (_flat(c.model_dump(mode="json", exclude=aside)) for c in (saved, config))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{path}: this folder holds a run with {key} = {old.get(key)!r}; got {new.get(key)!r}. "
            f"Choose another name, such as name={folder.name}-2, or delete the folder"
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


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
