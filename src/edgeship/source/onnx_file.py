"""ONNX file: a model that is given as `.onnx`, checked, and run as it is for reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from edgeship.contract import TensorSpec
from edgeship.errors import ConfigurationError, EdgeshipError, Problem
from edgeship.source.archive import damaged
from edgeship.source.onnx_data import external_files
from edgeship.source.tensor_name import shown_name

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import Tensor, nn

_SIZE_LIMIT_BYTES: Final = 2**31 - 1
"""protobuf's limit on one message."""
_QUANTIZED: Final = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger"),
        *("MatMulInteger", "QLinearConv", "QLinearMatMul", "QLinearAdd", "QGemm", "MatMulNBits"),
    }
)
_SHOWN: Final = 5


class OnnxSession(Protocol):
    """A loaded `.onnx` file; what `edgeship.runtimes` opens is one."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name, for inputs by name."""
        ...


OpenSession = Callable[[Path], OnnxSession]


def load_onnx(path: Path, inputs: Sequence[TensorSpec], open_session: OpenSession) -> nn.Module:
    """A module that runs the file itself, unchanged: tensors in the order of `inputs`, dict out.

    Raises:
        ConfigurationError: No valid ONNX, a quantized model, other inputs, or a session that cannot
            be opened.
        IntegrityRefused: See `external_files`.
    """
    from torch import from_numpy, nn

    proto = read_onnx(path)
    problems = [*_quantized_problems(path, proto), *_input_problems(path, proto, inputs)]
    if problems:
        raise ConfigurationError(*problems)
    try:
        session = open_session(path)
    except EdgeshipError as error:
        problem = Problem(
            where=str(path),
            what="ONNX Runtime cannot run the file as it is",
            found=error.problems[0].found,
            remedy="make it a file that ONNX Runtime loads: it is the reference of what is made",
        )
        raise ConfigurationError(problem) from error
    names = [spec.name for spec in inputs]

    class Original(nn.Module):
        """Lends the session the form of a module."""

        def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
            arrays = {name: item.numpy() for name, item in zip(names, tensors, strict=True)}
            return {name: from_numpy(item) for name, item in session.run(arrays).items()}

    return Original()


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model with its external tensors, checked in full.

    Raises:
        ConfigurationError: It is damaged, invalid, or too large.
        IntegrityRefused: See `external_files`.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # has no stubs

    files = [path, *external_files(path)]
    size_bytes = sum(file.stat().st_size for file in files)
    if size_bytes > _SIZE_LIMIT_BYTES:
        problem = Problem(
            where=str(path),
            what="the model is too large for one file",
            expected="at most 2 GiB",
            found=f"{size_bytes / 2**30:.1f} GiB",
            remedy="take a smaller model: external data is not written in this version",
        )
        raise ConfigurationError(problem)
    try:
        onnx.checker.check_model(str(path), full_check=True)  # by path: with its external data
        return onnx.load(path)
    except (
        DecodeError,
        OSError,
        ValueError,
        RuntimeError,
        TypeError,
        KeyError,
        MemoryError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise damaged(path, f"no valid ONNX: {line or type(error).__name__}") from error


def graph_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller gives; files before IR 4 list the weights among them."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def _quantized_problems(path: Path, proto: onnx.ModelProto) -> Iterator[Problem]:
    found = sorted({node.op_type for node in proto.graph.node} & _QUANTIZED)
    if found:
        yield Problem(
            where=str(path),
            what="the model is quantized already",
            expected="a float model",
            found=", ".join(found),
            remedy="name the float model that it was made from: edgeship quantizes itself",
        )


def _input_problems(
    path: Path, proto: onnx.ModelProto, specs: Sequence[TensorSpec]
) -> Iterator[Problem]:
    """Names, types and sizes; a symbolic dimension takes the size that the project names."""
    values = {value.name: value for value in graph_inputs(proto)}
    wanted = {spec.name: spec for spec in specs}
    if set(values) != set(wanted):
        yield Problem(
            where="edgeship.toml: model.inputs",
            what=f"{path.name} has other inputs",
            expected=", ".join(map(shown_name, list(values)[:_SHOWN])) or "none",
            found=", ".join(wanted),
            remedy="name the inputs as the file does",
        )
        return
    for name, spec in wanted.items():
        tensor = values[name].type.tensor_type
        dtype = _dtype_name(tensor.elem_type)
        dims = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in tensor.shape.dim
        ]
        fits = not tensor.HasField("shape") or (
            len(dims) == len(spec.shape)
            and all(
                isinstance(dim, str) or dim == size
                for dim, size in zip(dims, spec.shape, strict=True)
            )
        )
        if not fits or dtype != spec.dtype:
            yield Problem(
                where=f"edgeship.toml: model.inputs.{name}",
                what=f"{path.name} takes another input",
                expected=f"{dtype}[{', '.join(map(str, dims))}]",
                found=f"{spec.dtype}{list(spec.shape)}",
                remedy="correct the shape, or export the model for it",
            )


def _dtype_name(element_type: int) -> str:
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(element_type))
    except KeyError:
        return "no tensor"
