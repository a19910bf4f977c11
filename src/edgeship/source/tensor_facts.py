"""Tensor facts: what one streaming pass over a tensor's elements finds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeship.source.element import (
    Bits,
    ElementType,
    first_non_finite,
    magnitudes,
    value_of,
    widen,
)
from edgeship.source.tensor_source import (
    Span,
    TensorEntry,
    TensorSource,
    row_elements,
    spans,
    unit_elements,
)

NEAR_ZERO: Final = 1e-3
"""|gamma| below which a BatchNorm channel is told as dead: a choice. Trained gammas are about
0.1 to 2; channels that an L1 penalty switched off (arXiv:1708.06519) are orders below."""
_CHANNEL_LIMIT: Final = 1 << 22
"""Channels that are told apart at most: more are data, not channels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFacts:
    """A tensor and its contents.

    Attributes:
        zeros: Elements that are exactly zero, of either sign.
        non_finite: NaN and infinite elements.
        absmax: Largest finite absolute value; None where there is none.
        near_zero: Of a vector of floats, the elements of at most `NEAR_ZERO`; else None.
        zero_outputs: Indices of the first axis below which all is zero; None below two axes.
        zero_inputs: The same of the second axis.
        sha256: Of the elements as stored, little-endian.
    """

    entry: TensorEntry
    zeros: int
    non_finite: int
    absmax: float | None
    near_zero: int | None
    zero_outputs: int | None
    zero_inputs: int | None
    sha256: str

    @property
    def zero_share(self) -> float:
        """Share of exact zeros; 0 of an empty tensor."""
        return self.zeros / self.entry.elements if self.entry.elements else 0.0

    def to_json(self) -> dict[str, object]:
        """Every fact, flat."""
        return {
            "name": self.entry.name,
            "dtype": str(self.entry.element),
            "shape": list(self.entry.shape),
            "bytes": self.entry.size_bytes,
            "zeros": self.zeros,
            "zero_share": self.zero_share,
            "non_finite": self.non_finite,
            "absmax": self.absmax,
            "near_zero": self.near_zero,
            "zero_output_channels": self.zero_outputs,
            "zero_input_channels": self.zero_inputs,
            "sha256": self.sha256,
        }


def scan_tensor(source: TensorSource, name: str) -> TensorFacts:
    """Read the tensor once, a block at a time.

    The first axis counts as output channels and the second as input channels, which is the layout
    of torch's Linear and Conv weights; a ConvTranspose has them the other way round.
    """
    entry = source.entries[name]
    scan = _Scan(entry)
    for span in spans(entry):
        scan.add(span, source.read(name, span))
    return scan.facts()


class _Scan:
    def __init__(self, entry: TensorEntry) -> None:
        self._entry = entry
        self._digest = hashlib.sha256()
        self._zeros = self._non_finite = self._near_zero = 0
        self._absmax: int | None = None
        shape = entry.shape
        has_channels = entry.elements > 0 and len(shape) > 1 and max(shape[:2]) <= _CHANNEL_LIMIT
        self._channels = _Channels(shape) if has_channels else None

    def add(self, span: Span, bits: Bits) -> None:
        element = self._entry.element
        self._digest.update(bits.data)
        found = magnitudes(bits, element)
        zeros = found.size - int(np.count_nonzero(found))
        self._zeros += zeros
        self._add_extremes(found, element)
        if len(self._entry.shape) == 1 and element.is_float:
            small = np.abs(widen(bits, element).astype(np.float64)) <= NEAR_ZERO
            self._near_zero += int(np.count_nonzero(small))
        if self._channels is not None:
            self._channels.add(span, found, is_dense=zeros == 0)

    def facts(self) -> TensorFacts:
        entry, channels = self._entry, self._channels
        is_float_vector = len(entry.shape) == 1 and entry.element.is_float
        return TensorFacts(
            entry=entry,
            zeros=self._zeros,
            non_finite=self._non_finite,
            absmax=None if self._absmax is None else value_of(self._absmax, entry.element),
            near_zero=self._near_zero if is_float_vector else None,
            zero_outputs=None if channels is None else int(np.count_nonzero(~channels.outputs)),
            zero_inputs=None if channels is None else int(np.count_nonzero(~channels.inputs)),
            sha256=self._digest.hexdigest(),
        )

    def _add_extremes(self, found: Bits, element: ElementType) -> None:
        limit = first_non_finite(element)
        largest = int(found.max())
        if limit is not None and largest >= limit:
            finite = found[found < limit]
            self._non_finite += found.size - finite.size
            if not finite.size:
                return
            largest = int(finite.max())
        self._absmax = largest if self._absmax is None else max(self._absmax, largest)


class _Channels:
    """Which indices of the first two axes have an element that is not zero."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.outputs = np.zeros(shape[0], bool)
        self.inputs = np.zeros(shape[1], bool)
        self._row = row_elements(shape)
        self._unit = unit_elements(shape)

    def add(self, span: Span, found: Bits, *, is_dense: bool) -> None:
        row, inside = divmod(span.start, self._row)
        if span.count % self._row == 0:  # whole rows, see `spans`
            rows = slice(row, row + span.count // self._row)
            if is_dense:
                self.outputs[rows] = True
                self.inputs[:] = True
                return
            units = (found != 0).reshape(-1, self.inputs.size, self._unit).any(axis=2)
            self.outputs[rows] = units.any(axis=1)
            self.inputs |= units.any(axis=0)
            return
        unit = inside // self._unit
        if span.count % self._unit == 0:
            seen = (found != 0).reshape(-1, self._unit).any(axis=1)
            self.inputs[unit : unit + seen.size] |= seen
            self.outputs[row] |= seen.any()
        elif found.any():
            self.inputs[unit] = self.outputs[row] = True
