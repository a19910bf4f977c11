"""The command line: parse, call the library, show the result, map errors to exit codes."""

from edgeship.cli.command import main

__all__ = ["main"]
