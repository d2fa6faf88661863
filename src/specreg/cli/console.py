"""What all commands share: the consoles, errors as one sentence, stopping by the user, common options."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from specreg._signals import Stopped

if TYPE_CHECKING:
    from specreg.config import Config

P = ParamSpec("P")

# Names and titles are users' text: brackets in them are not markup.
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)


def home(path: Path | None) -> Path | None:
    """Return a path with ~ expanded: shells leave it in --out=~/runs."""
    return None if path is None else Path(os.path.expanduser(path))


def file_to_write(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """Return the path of an option with ~ expanded; refused before any work where no file can be written to it."""
    from specreg._files import refuse_no_file

    path = home(path)
    if path is not None:
        refuse_no_file(path, where=param.opts[0])
    return path


def folder_to_write(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """Return the path of an option with ~ expanded; refused before any work where it is no folder to write to."""
    from specreg._files import refuse_no_folder

    path = home(path)
    if path is not None:
        refuse_no_folder(path, where=param.opts[0])
    return path


def whole_number(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers of at least `least`, as people write large ones: 5e4, 50_000."""

    def read(text: str | int) -> int:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not value.is_integer() or value < least:
            raise typer.BadParameter(f"expected a whole number of at least {least}; got {text}")
        return int(value)

    return read


Source = Annotated[str, typer.Argument(help="A recipe (see `specreg recipes`) or a YAML file.", metavar="RECIPE|FILE")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to it, such as training.steps=500.", metavar="KEY=VALUE")
]
Out = Annotated[Path, typer.Option("--out", callback=home, help="Folder that holds the runs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and stop.")]


def escape_what_cannot_be_encoded() -> None:
    """Let output escape characters that its encoding lacks (λ in code page 1252), as Python's stderr does.

    By default such a character raises: on Windows, redirected output is rarely UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if stream.errors == "strict" or (stream.errors == "surrogateescape" and not _is_unicode(stream.encoding)):
            stream.reconfigure(errors="backslashreplace")


def _is_unicode(encoding: str) -> bool:
    return encoding.lower().startswith("utf")


def example(text: str) -> str:
    """Return the epilog of a command, which shows how it is used."""
    return f"[bold]Example[/]  {text}"


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn an exception into one sentence on stderr and an exit code; SPECREG_TRACEBACK=1 shows the traceback too.

    Bad input (ValueError, TypeError, OSError, ImportError, and what no memory is left for) is exit code 2, a run that
    failed (RuntimeError) is 1.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        _stop(error, str(error), 2)
    except MemoryError as error:
        _stop(error, _out_of_memory(error), 2)
    except RuntimeError as error:
        if _OUT_OF_MEMORY.search(str(error)):
            _stop(error, _out_of_memory(error), 2)
        _stop(error, str(error), 1)


_OUT_OF_MEMORY = re.compile(r"(?:tried to allocate|Unable to allocate) ([\d.]+ \w+)", re.IGNORECASE)
"""What torch says on a CPU and on a GPU, and what NumPy says."""


def _out_of_memory(error: Exception) -> str:
    found = _OUT_OF_MEMORY.search(str(error))
    wanted = f" for the next {found[1]}" if found else ""
    return (
        f"expected a run that fits into memory; there is not enough{wanted}. Smaller: training.batch_size, "
        "data.resolution, model.width, sampling.count"
    )


def shortened(sentence: str, most: int = 300) -> str:
    """Return a message for the user in which what is longer than `most` without a space is cut in its middle.

    Errors echo what came, and what came may be of any length; paths are shorter than that.
    """
    half = most // 2
    return re.sub(rf"\S{{{most + 1},}}", lambda word: f"{word[0][:half]}…{word[0][-half:]}", sentence)


def _stop(error: Exception, sentence: str, code: int) -> None:
    if os.environ.get("SPECREG_TRACEBACK"):
        raise error
    sentence = shortened(sentence) or type(error).__name__
    if not (_tell_launcher(sentence) and _rank() != 0):
        err.print(Text.assemble(("error: ", "bold red"), sentence), soft_wrap=True)
    sys.exit(code)


def _rank() -> int:
    """Return the number of this process among those of a launcher, 0 without one; torch need not be loaded."""
    return int(os.environ.get("RANK", "0"))


def _tell_launcher(sentence: str) -> bool:
    """Give an error to `torchrun` or `accelerate launch`, whose last lines then say it; returns whether one listens.

    The launcher prints what is in the file that it names, a traceback where there is one. It has no other way.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return False
    told = {"message": {"message": f"error: {sentence}", "extraInfo": {"timestamp": str(int(time.time()))}}}
    Path(path).write_text(json.dumps(told), encoding="utf-8")
    return True


@contextmanager
def resumable() -> Iterator[None]:
    """When a signal stops a command, say what is saved and how to resume."""
    try:
        yield
    except KeyboardInterrupt as stop:
        end(stop, "Stopped. Run the same command again to resume from the last checkpoint.")


def stoppable(command: Callable[P, None]) -> Callable[P, None]:
    """Return a command that a signal stops in a sentence, also where nothing is to be resumed."""

    @functools.wraps(command)
    def stopped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            end(stop, "Stopped.")

    return stopped


def end(stop: KeyboardInterrupt, otherwise: str) -> NoReturn:
    """End the command after a signal with what the exception says, or else with `otherwise`; one process speaks."""
    if _rank() == 0:
        err.print(Text(str(stop) or otherwise), soft_wrap=True)
    raise typer.Exit(stop.exit_code if isinstance(stop, Stopped) else 130) from None


def read_config(source: str, overrides: list[str] | None) -> Config:
    """Return the config of a recipe or YAML file with overrides; ConfigError names what is wrong."""
    from specreg import _checks, modalities
    from specreg.config import ConfigError
    from specreg.recipes import RECIPES

    if source in RECIPES:
        return modalities.parse(RECIPES[source](), overrides or [], where=f"recipe {source}")
    if Path(source).suffix in (".yaml", ".yml"):
        return modalities.load(Path(source), overrides or [])
    raise ConfigError(
        f"expected a recipe (`specreg recipes` lists them) or a .yaml file; "
        f"got {source!r}{_checks.nearest(source, RECIPES)}"
    )


def run_folder(parent: Path, config: Config, *, unlike: str, kind: str) -> Path:
    """Return the folder of a run; refused where it holds the file `unlike`, that of another kind of run."""
    from specreg._files import refuse_no_folder

    folder = parent / config.name
    refuse_no_folder(folder, where="--out")
    if (folder / unlike).exists():
        raise ValueError(f"{folder}: holds {kind}; choose another name, such as name={config.name}-2")
    return folder


def print_yaml(config: Config) -> None:
    """Print a config as YAML, in colours on a terminal; YAML's own escapes where the output is not Unicode."""
    from specreg.config import dump

    text = dump(config, ascii_only=not _is_unicode(out.encoding))
    out.print(Syntax(text, "yaml", background_color="default") if out.is_terminal else text, soft_wrap=True)


def print_path(what: str, path: Any) -> None:
    """Print what was written and where."""
    out.print(Text.assemble(f"{what}: ", (str(path), "bold")), soft_wrap=True)


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1, lines: bool = False
) -> None:
    """Print a table whose first `names` columns say what a row is.

    Columns that do not fit beside these follow in further tables below; what still does not fit is folded, between
    words where there is room, and never cut.
    """
    columns = list(zip(header, *rows, strict=True))
    longest = [max((len(word) for text in column for word in text.split()), default=0) for column in columns]
    whole = [max(len(line) for text in column for line in text.splitlines() or [""]) for column in columns]
    # Half of the width is for the names, unless they need less; a value of many characters is folded.
    share = max(1, (out.width // 2 - 1) // names - _MARGIN)
    least = [max(1, min(width, share if i < names else 16)) for i, width in enumerate(longest)]
    for part in _columns_that_fit(least, names, out.width):
        shown = [*range(names), *part]
        room = out.width - 1 - len(shown) * _MARGIN
        # rich would make room by narrowing the widest columns, which are the names
        widths = _widened([least[i] for i in shown], [whole[i] for i in shown], room)
        table = Table(title=title if part[:1] in ([], [names]) else None, title_justify="left", show_lines=lines)
        for i, width in zip(shown, widths, strict=True):
            table.add_column(header[i], overflow="fold", width=width)
        for row in rows:
            table.add_row(*(row[i] for i in shown))
        out.print(table)


def _widened(least: Sequence[int], whole: Sequence[int], room: int) -> list[int]:
    """Return widths from `least` up to `whole`, the narrowest first, that fit into `room`."""
    widths = list(least)
    while (short := [i for i in range(len(widths)) if widths[i] < whole[i]]) and sum(widths) < room:
        widths[min(short, key=widths.__getitem__)] += 1
    return widths


_MARGIN = 3
"""Characters that a table needs beside the text of a column."""


def _columns_that_fit(widths: Sequence[int], names: int, width: int) -> list[list[int]]:
    """Return the columns after the first `names`, in parts that fit beside these into `width` characters."""
    parts: list[list[int]] = [[]]
    free = room = width - 1 - sum(widths[:names]) - names * _MARGIN
    for i in range(names, len(widths)):
        needed = widths[i] + _MARGIN
        if needed > free and parts[-1]:
            parts.append([])
            free = room
        parts[-1].append(i)
        free -= needed
    return parts


def print_warning(text: str) -> None:
    """Print what does not end a command and may surprise."""
    err.print(f"warning: {text}", soft_wrap=True)


def print_left_out(results: Mapping[str, Any]) -> None:
    """Say which metrics were not measured and why, and how many samples have no value."""
    for metric, why in (results.get("missing") or {}).items():
        err.print(f"not measured: {metric}. {why}", soft_wrap=True)
    for metric, samples in (results.get("failures") or {}).items():
        number = samples if isinstance(samples, int) else len(samples)
        err.print(f"samples without a value: {number} in {metric}", soft_wrap=True)
