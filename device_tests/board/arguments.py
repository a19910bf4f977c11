"""Arguments of the archive's commands."""

import argparse
from typing import List, NoReturn

from edgeship.device_tests.board.stopped import Stopped

RUNTIMES = ("litert", "tflite_runtime", "onnxruntime", "llama.cpp", "tensorrt")
"""As manifests call them."""


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would leave: a job that ends says so."""

    def error(self, message: str) -> NoReturn:
        raise Stopped("failed", "usage: " + message)


def parse(arguments: List[str]) -> argparse.Namespace:
    """The command and its options; raises Stopped."""
    parser = _Parser(prog="edgeship-board.pyz", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    describe = commands.add_parser("describe", help="Python, numpy and the runtimes here")
    describe.add_argument("--program", help="a llama-server to ask too")
    describe.add_argument("--only", help=argparse.SUPPRESS)
    smoke = commands.add_parser("smoke", help="the golden pack of an artifact, then a sample")
    _add_job(smoke)
    smoke.add_argument("--runtime", required=True, choices=RUNTIMES)
    smoke.add_argument("--least", help="version below which the runtime counts as none")
    smoke.add_argument("--sample", help="directory of sample.json and its tensors")
    smoke.add_argument("--outputs", help="directory for the outputs of the sample")
    bench = commands.add_parser("bench", help="latencies of an artifact")
    _add_job(bench)
    bench.add_argument("--runtime", required=True, choices=RUNTIMES)
    bench.add_argument("--plan", required=True, help="JSON, or a file of it")
    bench.add_argument("--outputs", help="directory for the latencies")
    _add_job(commands.add_parser("self-test", help="the golden pack, with a runtime of this board"))
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.error("a command is missing: describe, smoke, bench or self-test")
    return options


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", help="directory with a manifest.json")
    parser.add_argument("--threads", type=int, default=1, help="of the runtime; 1 unless given")
    parser.add_argument("--program", help="llama-server, where llama.cpp is a program")
    parser.add_argument("--deadline", type=float, help="seconds until it is ended")
