"""Signals that ask a process to stop (SIGINT, SIGTERM, SIGHUP): at once, or where the work can be saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

SAME = 1.0
"""Seconds within which a second signal is the first one again: a terminal and a launcher both pass Ctrl-C on."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop: which one, and what was done."""

    def __init__(self, number: int, said: str = ""):
        super().__init__(said)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that this signal ended."""
        return 128 + self.number


class StopRequest:
    """The first signal to stop that came so far; the next one raises Stopped at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._at = 0.0

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """Note a signal."""
        if self.number is None:
            self.number, self._at = number, time.monotonic()
        elif time.monotonic() - self._at > SAME:
            raise Stopped(number)


@contextmanager
def noted() -> Iterator[StopRequest]:
    """Note signals to stop instead of stopping. Raises Stopped at the end where one came and nothing else is raised."""
    request = StopRequest()
    with _handled(request.hear):
        yield request
    if request.number is not None:
        raise Stopped(request.number)


@contextmanager
def at_once(*, leave_imports: bool = False) -> Iterator[None]:
    """Raise Stopped where a signal to stop comes, so that no signal ends the process without a word.

    With `leave_imports` a signal in the middle of an import ends the process instead, as in `quietly_if_command`.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if leave_imports and _imports(frame):
            _leave(number)
        raise Stopped(number)

    with _handled(stop):
        yield


@contextmanager
def quietly_if_command() -> Iterator[None]:
    """Let a signal to stop end the process with one word, if it is the `specreg` command; for imports, before any work.

    An exception would not do there: an import may swallow it, or turn it into another one. In other programs that
    import specreg nothing changes.
    """
    if not _is_command():
        yield
        return
    with _handled(_leave):
        yield


def _is_command() -> bool:
    """Return whether this process is `specreg` or `python -m specreg`."""
    given, started = sys.orig_argv, sys.argv[0] if sys.argv else ""
    if started == "-m":  # so it is called until the module is found
        return given[given.index("-m") + 1] == __package__ if "-m" in given else False
    return Path(started).stem.removesuffix("-script") == __package__


def _imports(frame: FrameType | None) -> bool:
    """Return whether code of a frame is run by an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the process here and now; of several processes of a launcher one speaks."""
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"Stopped.\n")
    os._exit(128 + number)


@contextmanager
def deadly() -> Iterator[None]:
    """Let the system end a process of a launcher where a signal to stop comes, for calls that wait for other processes.

    Python's own handlers run only after such a call. A process without a launcher waits for no other.
    """
    if "RANK" not in os.environ:
        yield
        return
    with _handled(signal.SIG_DFL):
        yield


@contextmanager
def interrupt_held_back() -> Iterator[None]:
    """Hold Ctrl-C back, from processes that are started in the block too, until they call `let_interrupt_through`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_interrupt_through() -> None:
    """Let Ctrl-C come that the parent process held back."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def ignore(worker: int) -> None:
    """Ignore signals to stop in a worker of a data loader: the training process ends it after its last batch."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    """Handle signals to stop, except those that are ignored on purpose, as by nohup; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        # A forked worker of a data loader has this handler too: its parent decides.
        if callable(handler) and os.getpid() == owner:
            handler(number, frame)

    before = {number: signal.getsignal(number) for number in STOPPING}
    heard = [number for number in STOPPING if before[number] not in (signal.SIG_IGN, None)]
    for number in heard:
        signal.signal(number, handle if callable(handler) else handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
