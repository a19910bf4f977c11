"""ONNX wire: which operators a .onnx file has, without onnx.

Field numbers are those of onnx.proto (onnx 1.x, IR version 3 and newer); the encoding is protobuf's
("Protocol Buffers: Encoding").
"""

import collections
import mmap
import os
from typing import Counter, Iterator, NamedTuple, Optional, Tuple, Union

from edgeship.exporters.tensorrt.kit.stopped import Stopped

_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE = 1
_NODE_OP_TYPE, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Span = Tuple[int, int]
Field = Tuple[int, Union[int, Span]]


class GraphFacts(NamedTuple):
    """How often each operator occurs, subgraphs included, and the opset of the main domain."""

    operators: Counter[str]
    opset: Optional[int]

    @property
    def has_quantization(self) -> bool:
        """Whether the graph says itself what is INT8."""
        return self.operators["QuantizeLinear"] > 0 and self.operators["DequantizeLinear"] > 0


def read_graph(path: str) -> GraphFacts:
    """Read a file without loading its weights.

    Raises:
        Stopped: "damaged": it is no ONNX model.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _Reader(view).model()
    except (OSError, ValueError, IndexError) as error:
        message = f"{os.path.basename(path)} is no ONNX model: {error}"
        raise Stopped("damaged", message) from error


class _Reader:
    def __init__(self, view: mmap.mmap) -> None:
        self._view = view

    def model(self) -> GraphFacts:
        operators: Counter[str] = collections.Counter()
        opset = None
        for number, value in self._fields((0, len(self._view))):
            if number == _MODEL_GRAPH and isinstance(value, tuple):
                self._graph(value, operators)
            elif number == _MODEL_OPSET and isinstance(value, tuple):
                domain, version = self._opset(value)
                opset = version if domain in ("", "ai.onnx") else opset
        if not operators:
            raise ValueError("it has no nodes")
        return GraphFacts(operators, opset)

    def _opset(self, span: Span) -> Tuple[str, int]:
        domain, version = "", 0
        for number, value in self._fields(span):
            if number == _OPSET_DOMAIN and isinstance(value, tuple):
                domain = self._text(value)
            elif number == _OPSET_VERSION and isinstance(value, int):
                version = value
        return domain, version

    def _graph(self, span: Span, operators: Counter[str]) -> None:
        for number, value in self._fields(span):
            if number == _GRAPH_NODE and isinstance(value, tuple):
                self._node(value, operators)

    def _node(self, span: Span, operators: Counter[str]) -> None:
        for number, value in self._fields(span):
            if number == _NODE_OP_TYPE and isinstance(value, tuple):
                operators[self._text(value)] += 1
            elif number == _NODE_ATTRIBUTE and isinstance(value, tuple):
                for inner, graph in self._fields(value):
                    if inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS) and isinstance(graph, tuple):
                        self._graph(graph, operators)

    def _text(self, span: Span) -> str:
        return self._view[span[0] : span[1]].decode("utf-8")

    def _fields(self, span: Span) -> Iterator[Field]:
        """Number and value of each field: an int, or where its bytes are."""
        at, end = span
        while at < end:
            key, at = self._varint(at)
            kind, value = key & 7, (at, at)  # type: int, Union[int, Span]
            if kind == _VARINT:
                value, at = self._varint(at)
            elif kind == _BYTES:
                size, at = self._varint(at)
                value = (at, at + size)
                at += size
            elif kind in (_FIXED64, _FIXED32):
                at += 8 if kind == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {kind}")
            if at > end:
                raise ValueError("it ends in the middle of a field")
            yield key >> 3, value

    def _varint(self, at: int) -> Tuple[int, int]:
        value, shift = 0, 0
        while True:
            byte = self._view[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
