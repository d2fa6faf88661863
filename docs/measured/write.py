"""Write the tables of the pages from the numbers in this folder: `python docs/measured/write.py`, or `--check` them.

A table stands between `<!-- measured: WHAT NAME … -->` and `<!-- end -->`. WHAT is "comparison" (NAME.json as
summarize.py keeps it), "arms" (the same with a column for each arm), "curves" (all of a study), "brief" (one length of
it, with three arms), "rows" (one length, a row for each arm), "gains" (denoisers by noise level and band), "seen" (what
each loss sees), "estimators" (how steady λ is), "networks" (the term's share), or "cases" (what to use where). The
sentences of said.json are not written, only checked: they must stand on their page as said.py fills them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import curves
import estimators
import gains
import networks
import said
import seen
import summarize

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKED = re.compile(
    r"(<!-- measured: (?P<what>\w+) (?P<name>[\w.-]+)(?: (?P<more>\w+))? -->\n).*?(<!-- end -->)", re.DOTALL
)


def table(what: str, name: str, more: str | None) -> str:
    """Return the Markdown that belongs between two markers."""
    measured = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    if what == "comparison":
        return summarize.block(measured)
    if what == "arms":
        return summarize.wide(measured)
    if what == "curves":
        return curves.block(measured)
    if what == "brief":
        return curves.brief(measured, more or "")
    if what == "rows":
        return curves.rows(measured, more or "")
    if what == "gains":
        return gains.block(measured)
    if what == "seen":
        return seen.block(measured)
    if what == "estimators":
        return estimators.block(measured)
    if what == "networks":
        return networks.block(measured)
    if what == "cases":
        return said.block(measured)
    raise ValueError(
        "expected comparison, arms, curves, brief, rows, gains, seen, estimators, networks or cases in a marker; got "
        f"{what!r}"
    )


def written(text: str) -> str:
    """Return a page with its tables as the numbers have them now."""
    return MARKED.sub(lambda m: f"{m[1]}{table(m['what'], m['name'], m['more'])}\n{m[5]}", text)


def main() -> int:
    """Write or check the tables; 1 where a check finds a difference or a sentence is not as measured."""
    stale, pages = [], {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8")
        pages[page.relative_to(ROOT).as_posix()] = new
    unsaid = said.missing(pages)
    print(f"{'other than measured' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    for text in unsaid:
        print(f"not on the page as measured: {text}")
    return int(bool(unsaid or (stale and "--check" in sys.argv)))


if __name__ == "__main__":
    sys.exit(main())
