"""Values that several sections of a project file share: existing paths, tables by name."""

from __future__ import annotations

from pathlib import Path

from edgeship.tables import Table


def existing_path(
    table: Table,
    key: str,
    directory: Path,
    *,
    required: bool = False,
    kind: str = "file or directory",
) -> Path | None:
    """An existing path of this kind, relative to the project file."""
    text = table.text(key, required=required)
    return None if text is None else checked_path(table, key, directory / text, kind)


def checked_path(table: Table, key: str, path: Path, kind: str) -> Path | None:
    """`path`, if it is one of this kind; else None, and a problem with `key`."""
    try:
        is_there = ("file" in kind and path.is_file()) or ("directory" in kind and path.is_dir())
    except OSError:  # a name that is too long, or below a directory that may not be read
        is_there = False
    if is_there:
        return path
    table.problem(
        key,
        f"no such {kind}",
        found=str(path),
        remedy="name one that exists, relative to the project file",
    )
    return None


def named_tables(table: Table, key: str, what_if_none: str) -> list[tuple[str, Table]]:
    """The named tables below `key`, of which there must be one."""
    problems_before = len(table.problems)
    sections = list(table.tables(key))
    if not sections and len(table.problems) == problems_before:
        path = table.where(key).rpartition(" ")[2]
        table.problem(key, what_if_none, remedy=f"add a table [{path}.<name>]")
    return sections
