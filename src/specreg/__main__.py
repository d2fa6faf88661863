"""Entry point of the `specreg` command: says what to install when its extra is missing; stops without a traceback."""

from __future__ import annotations

import sys

from specreg._signals import Stopped, at_once


def main() -> None:
    """Run the command line."""
    try:
        with at_once(leave_imports=True):
            _run()
    except KeyboardInterrupt as stop:  # before a command has begun
        print("Stopped.", file=sys.stderr)
        sys.exit(stop.exit_code if isinstance(stop, Stopped) else 130)


def _run() -> None:
    try:
        from specreg.cli import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("specreg"):
            raise
        sys.exit(f'specreg: the command needs {error.name}; install it with: pip install "specreg[train]"')
    run()


if __name__ == "__main__":
    main()
