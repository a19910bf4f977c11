"""Arguments of build_engine.py."""

import argparse
from typing import List, NoReturn

from edgeship.exporters.tensorrt.kit.engines import default_cache
from edgeship.exporters.tensorrt.kit.stopped import Stopped

_DESCRIPTION = """\
Builds TensorRT engines on this machine from the kit in DIR, holds each against the kit's golden
pack, measures them and says which to use. Engines go to a cache; nothing in DIR is changed."""


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would leave: work that ends says so."""

    def error(self, message: str) -> NoReturn:
        raise Stopped("usage", message)


def parse(arguments: List[str]) -> argparse.Namespace:
    """The options; raises Stopped, "usage"."""
    parser = _Parser(prog="build_engine.py", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("directory", metavar="DIR", help="of manifest.json and kit.json")
    parser.add_argument("--cache", default=default_cache(), help="of engines (%(default)s)")
    parser.add_argument("--only", choices=("fp16", "int8"), help="one graph alone")
    parser.add_argument("--workspace", type=_positive, metavar="MIB", help="at most, of TensorRT's")
    parser.add_argument("--trtexec", metavar="PATH", help="build and measure with this program")
    parser.add_argument("--rebuild", action="store_true", help="also what the cache has")
    parser.add_argument("--check", action="store_true", help="look at all, build nothing")
    parser.add_argument(
        "--reuse", action="store_true", help="keep the last choice where its engine still matches"
    )
    parser.add_argument("--no-bench", action="store_true", help="compare, and do not measure")
    parser.add_argument(
        "--duration", type=_positive, default=10, metavar="S", help="of each round (%(default)s)"
    )
    parser.add_argument(
        "--repeats", type=_positive, default=3, metavar="N", help="rounds (%(default)s)"
    )
    parser.add_argument(
        "--deadline", type=_positive, default=7200, metavar="S", help="of one build (%(default)s)"
    )
    parser.add_argument(
        "--end-with-parent", action="store_true", help="stop where the program that runs this ends"
    )
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)  # where /proc is
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return value
