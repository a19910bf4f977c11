"""LiteRT on this host's CPU: run a .tflite file, or observe the tensors inside of it."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.errors import ExportFailed, Problem
from edgeship.runtimes.protocol import installed_version, runtime_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np

_NO_OPERATOR: Final = re.compile(
    r"Didn't find op for builtin opcode '(?P<operator>\w+)' version '(?P<version>\d+)'"
)
_NO_CUSTOM_OPERATOR: Final = re.compile(r"unresolved custom op: (?P<operator>\S+?)\.?\s")


@dataclass(frozen=True, kw_only=True)
class FileTensor:
    """A tensor of a loaded file: its name, its place in the file, and what it holds."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str


class LiteRtSession:
    """One loaded file, by default with XNNPACK, as an application gets it.

    Tensors are set and read by their index: a signature runner costs the same (0.94 ms for
    ResNet-20 both ways, measured), and gives the outputs in the order of their names.
    """

    def __init__(
        self, file: Path, *, threads: int = 1, observed: Sequence[str] | None = None
    ) -> None:
        self._file = file
        self._interpreter = _load(file, threads, is_observed=observed is not None)
        inputs, outputs = _signature(self._interpreter)
        self._inputs = named_tensors(_tensors(self._interpreter.get_input_details()), inputs)
        if observed is None:
            tensors = _tensors(self._interpreter.get_output_details())
            self._outputs = named_tensors(tensors, outputs)
        else:
            self._outputs = self._inner(observed)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Session.run`; the arrays are copies.

        Raises:
            ExportFailed: Inputs of another name, shape or dtype, or an operator that fails.
        """
        require_fit(self._file, self._inputs, inputs)
        for tensor in self._inputs:
            self._interpreter.set_tensor(tensor.index, inputs[tensor.name])
        try:
            self._interpreter.invoke()
            return {
                tensor.name: self._interpreter.get_tensor(tensor.index) for tensor in self._outputs
            }
        except (RuntimeError, ValueError) as error:
            raise refused(self._file, _title(), str(error)) from error

    def _inner(self, names: Sequence[str]) -> list[FileTensor]:
        """The tensors of these names but inputs, in this order."""
        known = {tensor.name: tensor for tensor in _tensors(self._interpreter.get_tensor_details())}
        unknown = [name for name in names if name not in known]
        if unknown:
            problem = Problem(
                where=str(self._file),
                what=f"the file has no tensor {unknown[0]!r}",
                remedy="report this as a defect of edgeship",
            )
            raise ExportFailed(problem)
        inputs = {tensor.index for tensor in self._inputs}
        return [known[name] for name in names if known[name].index not in inputs]


class LiteRtRuntime:
    """The package `ai-edge-litert`."""

    def version(self) -> str | None:
        """See `Runtime.version`."""
        return installed_version(runtime_package("litert"))

    def open(self, file: Path, *, threads: int = 1) -> LiteRtSession:
        """See `Runtime.open`."""
        return LiteRtSession(file, threads=threads)

    @contextmanager
    def observe(self, file: Path, names: Sequence[str]) -> Iterator[LiteRtSession]:
        """See `Observer.observe`.

        XNNPACK computes them: 1.2 ms for the 38 tensors of ResNet-20, where the built-in kernels
        take 4.3 ms and plain inference 1.0 ms (measured; both give the same to 1e-6 of the largest
        value).
        """
        yield LiteRtSession(file, observed=names)


def named_tensors(tensors: Iterable[FileTensor], signature: Mapping[str, int]) -> list[FileTensor]:
    """The tensors in their order, under the signature's names where it has one for their index."""
    names = {index: name for name, index in signature.items()}
    return [
        FileTensor(
            name=names.get(tensor.index, tensor.name),
            index=tensor.index,
            shape=tensor.shape,
            dtype=tensor.dtype,
        )
        for tensor in tensors
    ]


def require_fit(
    file: Path, tensors: Sequence[FileTensor], inputs: Mapping[str, np.ndarray]
) -> None:
    """Compare inputs with a file's own.

    Raises:
        ExportFailed: Another set of names, another shape or another dtype.
    """
    wanted = {tensor.name: f"{tensor.dtype}{list(tensor.shape)}" for tensor in tensors}
    given = {name: f"{value.dtype.name}{list(value.shape)}" for name, value in inputs.items()}
    if wanted != given:
        problem = Problem(
            where=str(file),
            what="the inputs are not those of the file",
            expected=_listed(wanted),
            found=_listed(given),
            remedy="report this as a defect of edgeship",
        )
        raise ExportFailed(problem)


def refused(file: Path, runtime: str, message: str) -> ExportFailed:
    """What a TFLite interpreter's own message means, for the runtime "<name> <version>"."""
    remedy = "leave that runtime off the target's list, or change the model to do without"
    if match := _NO_OPERATOR.search(message):
        operator, version = match["operator"], match["version"]
        what = f"{runtime} has no version {version} of the operator {operator}"
        return ExportFailed(Problem(where=str(file), what=what, remedy=remedy))
    if match := _NO_CUSTOM_OPERATOR.search(f"{message} "):
        what = f"{runtime} has no operator {match['operator']}"
        return ExportFailed(Problem(where=str(file), what=what, remedy=remedy))
    problem = Problem(
        where=str(file),
        what=f"{runtime} cannot run the file",
        found=" ".join(message.split())[:300] or "no message",
        remedy="this is a defect of the export: report the model's operators",
    )
    return ExportFailed(problem)


def _load(file: Path, threads: int, *, is_observed: bool) -> Any:  # noqa: ANN401 - the vendor has no types
    """An interpreter with its memory allocated.

    Preserved tensors share no memory, and XNNPACK gives out each one; without that, what is read
    of an inner tensor are another one's numbers (measured).
    """
    from ai_edge_litert.interpreter import Interpreter

    with without_banner(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Enabling `experimental_preserve_all_tensors` ..."
        try:
            interpreter = Interpreter(
                model_path=str(file),
                num_threads=threads,
                experimental_preserve_all_tensors=is_observed,
            )
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise refused(file, _title(), str(error)) from error
    return interpreter


@contextmanager
def without_banner() -> Iterator[None]:
    """Keep the vendor's INFO lines off stderr; what else is written meanwhile comes afterwards.

    The first XNNPACK delegate of a process prints "INFO: Created TensorFlow Lite XNNPACK delegate
    for CPU." straight to the file descriptor. Version 2.3.0 reads no environment variable for its
    log level, and exports nothing that sets it.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # a daemon without one
        yield
        return
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            sink.seek(0)
            os.write(2, b"".join(line for line in sink if not line.startswith(b"INFO: ")))


def _signature(interpreter: Any) -> tuple[dict[str, int], dict[str, int]]:  # noqa: ANN401 - as above
    """Index by name of inputs and outputs; empty where the file has no signature."""
    if not interpreter.get_signature_list():
        return {}, {}
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details(), runner.get_output_details()
    inputs, outputs = ({name: item["index"] for name, item in part.items()} for part in details)
    return inputs, outputs


def _tensors(details: Iterable[Mapping[str, Any]]) -> Iterator[FileTensor]:
    import numpy as np

    for item in details:
        yield FileTensor(
            name=item["name"],
            index=item["index"],
            shape=tuple(int(size) for size in item["shape"]),
            dtype=np.dtype(item["dtype"]).name,
        )


def _listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in sorted(tensors.items())) or "none"


def _title() -> str:
    return f"LiteRT {LiteRtRuntime().version()}"
