"""The `specreg` command: a file for each topic. Heavy imports live inside the commands, so that help is instant."""

from specreg.cli.app import run

__all__ = ["run"]
