"""The local transport: this machine as if it were a board."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO, Final

from edgeship.device_tests.transports.leash import leashed_command
from edgeship.device_tests.transports.output import Lines, Tail
from edgeship.device_tests.transports.protocol import NO_ENVIRONMENT, Ended
from edgeship.device_tests.transports.troubles import deadline_passed, refused
from edgeship.device_tests.transports.upload import (
    PART_SUFFIX,
    Upload,
    directories_of,
    planned_uploads,
)

_HERE: Final = "this machine"
_PIECE_BYTES: Final = 1 << 16  # what a pipe holds, pipe(7)


class LocalTransport:
    """Runs everything on this machine; `connect` always succeeds."""

    where: str = _HERE

    @contextmanager
    def connect(self, *, deadline_s: float = 30.0) -> Iterator[LocalConnection]:
        """See `Transport.connect`."""
        del deadline_s  # nothing to wait for
        yield LocalConnection()


class LocalConnection:
    """See `Connection`; commands are process groups of their own."""

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
        on_line: Callable[[str], None] | None = None,
    ) -> Ended:
        """See `Connection.run`."""
        out, err = Lines(on_line) if on_line else Tail(), Tail()
        end_s = time.monotonic() + deadline_s
        with _started(leashed_command(command, deadline_s=deadline_s), environment) as process:
            try:
                _follow(process, out, err, end_s)
                code = process.wait(max(end_s - time.monotonic(), 0))
            except (TimeoutError, subprocess.TimeoutExpired):
                raise deadline_passed(
                    _HERE, command[0], deadline_s=deadline_s, heard=err.close()
                ) from None
        return Ended(
            command=tuple(command),
            status=code if code >= 0 else None,
            signal=None if code >= 0 else _signal_name(-code),
            stdout=out.close(),
            stderr=err.close(),
        )

    def put(self, files: Mapping[str, Path | bytes], directory: str, *, deadline_s: float) -> None:
        """See `Connection.put`."""
        end_s = time.monotonic() + deadline_s
        uploads = planned_uploads(files, directory)
        try:
            for path in directories_of(uploads, directory):
                Path(path).mkdir(exist_ok=True)
            for upload in uploads:
                _copy(upload, end_s)
        except TimeoutError:
            raise deadline_passed(_HERE, "copying", deadline_s=deadline_s) from None
        except OSError as error:
            raise refused(_HERE, f"files below {directory}", str(error)) from error

    def read(self, path: str, *, deadline_s: float) -> bytes:
        """See `Connection.read`."""
        del deadline_s  # a disk has no deadline
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise refused(_HERE, path, str(error)) from error


@contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    # What the command left behind in its group holds its stdout; the end of stdin ends it.
    waiter = Thread(target=_close_stdin_at_end, args=(process,), daemon=True)
    waiter.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        waiter.join()
        for stream in (process.stdout, process.stderr):
            _pipe(stream).close()


def _close_stdin_at_end(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    _pipe(process.stdin).close()


def _follow(process: subprocess.Popen[bytes], out: Lines | Tail, err: Tail, end_s: float) -> None:
    """Feed what the command writes until it has closed both streams."""
    with selectors.DefaultSelector() as selector:
        selector.register(_pipe(process.stdout), selectors.EVENT_READ, out)
        selector.register(_pipe(process.stderr), selectors.EVENT_READ, err)
        while selector.get_map():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            for key, _ in selector.select(left_s):
                if piece := os.read(key.fd, _PIECE_BYTES):
                    key.data.feed(piece)
                else:
                    selector.unregister(key.fileobj)


def _copy(upload: Upload, end_s: float) -> None:
    path = Path(upload.path)
    part = path.with_name(path.name + PART_SUFFIX)
    with part.open("wb") as file:
        for piece in upload.pieces():
            if time.monotonic() > end_s:
                raise TimeoutError
            file.write(piece)
    part.chmod(upload.mode)
    part.replace(path)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:  # real-time signals have no names
        return str(number)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # each of the three is a pipe
    return stream
