"""Files with moves in them, put together by hand, and what taking TRANSPOSEs out leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from edgeship.exporters.tflite.flatbuffer import read_model, tensor_name, write_model
from edgeship.exporters.tflite.transposes import remove_transposes
from edgeship.exporters.tflite.versions import set_versions

HERE = Path(__file__).parent
tiny = SimpleNamespace(**run_path(str(HERE / "tiny.py")))
run_file = run_path(str(HERE / "conftest.py"))["run_file"]
kinds = tiny.kinds

TO_FIRST = (0, 3, 1, 2)
TO_LAST = (0, 2, 3, 1)
Values = dict[str, np.ndarray]


class Moves:
    """A file that computes `source` = 1.5 image, then what a test puts behind it."""

    def __init__(self, *shape: int) -> None:
        self.file = tiny.Tiny()
        self.file.activation("image", *shape)
        self.source = self.give("MUL", ["image", self.value(1.5)], shape, "MulOptions")

    def value(self, values: object, dtype: Any = np.float32) -> str:  # noqa: ANN401 - numpy takes many
        name: str = self.file.constant(f"m/constant;{len(self.file.tensors)}", values, dtype)
        return name

    def give(
        self,
        kind: str,
        inputs: Sequence[str],
        shape: Sequence[int],
        options: str | None = None,
        **values: Any,  # noqa: ANN401 - fields of the schema's tables
    ) -> str:
        name = f"m/{kind.lower()};{len(self.file.tensors)}"
        self.file.activation(name, *shape, dtype=np.int32 if kind == "ARG_MAX" else np.float32)
        self.file.operator(kind, inputs, [name], options, **values)
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        names = [tensor_name(tensor) for tensor in self.file.tensors]
        return tuple(self.file.tensors[names.index(name)].shape)

    def write(self, *outputs: str) -> bytes:
        content: bytes = self.file.write(["image"], outputs)
        return content

    def unread(self) -> list[str]:
        """Everything that no operator reads: outputs, where nothing else is one."""
        read = {index for item in self.file.operators for index in item.inputs}
        given = {index for item in self.file.operators for index in item.outputs}
        return [tensor_name(self.file.tensors[index]) for index in sorted(given - read)]

    def turn(self, name: str, permutation: Sequence[int]) -> str:
        shape = [self.shape(name)[axis] for axis in permutation]
        order = self.value(permutation, np.int32)
        return self.give("TRANSPOSE", [name, order], shape, "TransposeOptions")

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        size = self.value(shape, np.int32)
        return self.give("RESHAPE", [name, size], shape, "ReshapeOptions", newShape=list(shape))

    def reduce(self, kind: str, name: str, axes: Sequence[int], *, keeps: bool) -> str:
        shape = np.empty(self.shape(name)).sum(tuple(axes), keepdims=keeps).shape
        over = self.value(axes, np.int32)
        return self.give(kind, [name, over], shape, "ReducerOptions", keepDims=keeps)

    def layer(self, name: str, weight: str) -> str:
        shape = (1, self.shape(weight)[0])
        return self.give(
            "FULLY_CONNECTED", [name, weight, ""], shape, "FullyConnectedOptions", keepNumDims=True
        )

    def first(self) -> str:
        return self.turn(self.source, TO_FIRST)

    def shuffled(self, groups: int) -> str:
        """Channels in another order, as torch views and transposes them."""
        size, rows, columns, channels = self.shape(self.source)
        split = (size, groups, channels // groups, rows, columns)
        grouped = self.turn(self.reshape(self.first(), split), (0, 2, 1, 3, 4))
        return self.turn(self.reshape(grouped, (size, channels, rows, columns)), TO_LAST)

    def weight(self, rows: int, columns: int) -> str:
        return self.value(np.random.default_rng(rows).standard_normal((rows, columns)))


def removed(file: Moves, *outputs: str) -> tuple[int, list[str]]:
    """Operators that went, and those that are left; the values are compared, and the names."""
    before = file.write(*outputs)
    tables = read_model(before)
    count = remove_transposes(tables)
    set_versions(tables)
    after = write_model(tables)
    shape = file.shape("image")
    inputs = {"image": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    require_equal(run_file(before, inputs), run_file(after, inputs))
    graph = tables.subgraphs[0]
    names = [tensor_name(tensor) for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    used = {int(i) for item in graph.operators for i in (*item.inputs, *item.outputs)} - {-1}
    assert not count or used == set(range(len(names)))
    assert kinds(before).count("TRANSPOSE") - kinds(after).count("TRANSPOSE") == count
    return count, kinds(after)[1:]


def require_equal(before: Values, after: Values) -> None:
    """But for the order of sums: of the few hundred terms here, in float32."""
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert values.shape == after[name].shape
        scale = max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(after[name], values, rtol=0, atol=3e-6 * scale, err_msg=name)


@st.composite
def files(draw: st.DrawFn) -> tuple[Moves, list[str]]:
    """Moves, reductions and element-wise operators on each other's results, and outputs."""
    file = Moves(1, *draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=3, max_size=3)))
    names = [file.source]
    for _ in range(draw(st.integers(1, 8))):
        name = names[-1] if draw(st.booleans()) else draw(st.sampled_from(names))
        names.append(draw_step(draw, file, name, names))
    extra = draw(st.sets(st.sampled_from(names[1:]), max_size=1))
    return file, sorted({*file.unread(), *extra})


def draw_step(draw: st.DrawFn, file: Moves, name: str, names: list[str]) -> str:
    shape = file.shape(name)
    kind = draw(st.sampled_from(["turn", "turn", "reshape", "unary", "binary", "join", "reduce"]))
    if kind == "turn":
        return file.turn(name, draw(st.permutations(range(len(shape)))))
    if kind == "reshape":
        return file.reshape(name, draw(shapes_of(math.prod(shape))) or (1,))
    if kind == "unary":
        return file.give(draw(st.sampled_from(["RELU", "TANH", "ABS"])), [name], shape)
    if kind == "binary":
        sizes = [draw(st.sampled_from([1, size])) for size in shape]
        values = np.random.default_rng(len(names)).standard_normal(sizes)
        return file.give("SUB", [file.value(values), name], shape, "SubOptions")
    if kind == "join":
        others = [item for item in names if file.shape(item) == shape]
        return file.give("ADD", [name, draw(st.sampled_from(others))], shape, "AddOptions")
    axes = sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    keeps = draw(st.booleans()) or len(axes) == len(shape)
    return file.reduce(draw(st.sampled_from(["MEAN", "REDUCE_MAX"])), name, axes, keeps=keeps)


@st.composite
def shapes_of(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    shape = []
    while size > 1:
        axis = draw(st.sampled_from([n for n in range(2, size + 1) if size % n == 0]))
        shape += [1] * draw(st.integers(0, 1)) + [axis]
        size //= axis
    if math.prod((1, *shape)[:5]) == math.prod(shape):
        return (1, *shape)[:5]
    # a RESHAPE to more than 8 axes does not run (LiteRT 2.3, measured); 216 is six primes
    return tuple(shape) if len(shape) <= 6 else tuple(axis for axis in shape if axis > 1)
