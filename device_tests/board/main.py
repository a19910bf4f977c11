"""Main: one command of the archive; a supervisor, or the worker that one starts."""

import sys
from typing import List

from edgeship.device_tests.board.stopped import EXIT_STATUSES

_WORKER = "--worker"


def main(arguments: List[str]) -> int:
    """Run a command; its exit status is that of its outcome."""
    if arguments[:1] == [_WORKER]:
        from edgeship.device_tests.board.worker import work

        return work(int(arguments[1]), arguments[2:])
    from edgeship.device_tests.board.lines import take_stdout
    from edgeship.device_tests.board.supervisor import supervise

    outcome = supervise([sys.argv[0], _WORKER], arguments, take_stdout())
    return EXIT_STATUSES[outcome]
