"""Writes the tables of documents anew, from the stored results.

    python benchmarks/fill_tables.py              # of the notebook and of docs/results.md
    python benchmarks/fill_tables.py --check      # only say whether they are up to date
    python benchmarks/fill_tables.py docs/results.md

A comment above a table, <!-- benchmarks/SCRIPT.py ARGUMENTS -->, holds the command; the last table that it prints is the one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)
DOCUMENTS = [*sorted((ROOT / "benchmarks" / "notebook").glob("*.md")), ROOT / "docs" / "results.md"]
FILLED = re.compile(rf"^(<!-- (benchmarks/.*) -->\n\n)({TABLE.pattern})", re.MULTILINE)


def last_table(command: str) -> str:
    """Returns the last table that a benchmark prints, run in the project's folder, and in this process: imports take seconds."""
    printed = io.StringIO()
    before = sys.argv, sys.path[:], Path.cwd()
    sys.argv = shlex.split(command)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    os.chdir(ROOT)
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.argv, sys.path[:], folder = before
        os.chdir(folder)
    return TABLE.findall(printed.getvalue())[-1]


def filled(text: str) -> str:
    """Returns the document with its tables made anew."""
    return FILLED.sub(lambda found: found[1] + last_table(found[2]), text)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path, nargs="*", default=DOCUMENTS)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table differs")
    args = parser.parse_args()
    for file in args.document:
        old = file.read_text(encoding="utf-8")
        new = filled(old)
        if new == old:
            continue
        if args.check:
            raise SystemExit(f"A table in {file} is not what its command prints. Run: python {sys.argv[0]} {file}")
        file.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
