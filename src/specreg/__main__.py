"""Entry point of the `specreg` command; says what to install when its extra is missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from specreg.cli import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("specreg"):
            raise
        sys.exit(f'specreg: the command needs {error.name}; install it with: pip install "specreg[train]"')
    run()


if __name__ == "__main__":
    main()
