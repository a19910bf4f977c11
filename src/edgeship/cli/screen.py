"""Shows a result: the table and its lines on stdout, problems on stderr."""

from __future__ import annotations

import json
import sys

from edgeship.cli.result import Result
from edgeship.errors import Problem

_COLOURS = {"pass": "green", "fail": "red", "unmeasured": "yellow", "refused": "red"}
_WIDE = 10_000
"""Columns where no terminal limits them: a file or a pipe gets whole lines."""


def show(result: Result, *, as_json: bool) -> None:
    """Print the result; NO_COLOR and the absence of a terminal are honoured by rich."""
    if as_json:
        sys.stdout.write(json.dumps(result.value, indent=1) + "\n")
    else:
        _show_table(result)
    for problem in result.problems:
        sys.stderr.write(text_from_problem(problem) + "\n")
    if result.exit_code:
        name = result.exit_code.name.lower().replace("_", " ")
        sys.stderr.write(f"exit {int(result.exit_code)}: {name}\n")


def text_from_problem(problem: Problem) -> str:
    """What, where, expected against found, what to do: a line each."""
    lines = [f"error: {problem.what}", f"  where:    {problem.where}"]
    if problem.expected is not None:
        lines.append(f"  expected: {problem.expected}")
    if problem.found is not None:
        lines.append(f"  found:    {problem.found}")
    lines.append(f"  do:       {problem.remedy}")
    return "\n".join(lines)


def _show_table(result: Result) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDE
    if result.rows:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for header in result.headers:
            table.add_column(header, overflow="fold")
        for row in result.rows:
            table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
        console.print(table)
    for line in result.lines:
        console.print(Text(line))
