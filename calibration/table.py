"""The table file: Statistics on disk, bound to the file on which they were observed."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeship.calibration.observe import Statistics
from edgeship.calibration.statistics import BINS, EXTREMES_LIMIT, POSITIONS_LIMIT, TensorStatistics
from edgeship.digests import canonical_json, json_sha256
from edgeship.errors import IntegrityRefused, Problem
from edgeship.exchange import write_file

SCHEMA: Final = 2
"""2 tells the positions of a sequence apart; a table of schema 1 is refused."""
HEADER_NAME: Final = "header.json"
ARRAYS_NAME: Final = "statistics.npz"
_OWN_DIGEST: Final = "header_sha256"
"""Key of the digest of everything else in the header: its scalars are statistics too."""
_ARRAYS: Final = ("counts", "channel_absmax", "position_absmax", "sample_extremes")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip entry can hold: the bytes do not depend on the clock."""
_UNREADABLE: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    zipfile.BadZipFile,
)
_SCALARS: Final = (
    "count",
    "nonfinite",
    "sentinels",
    "minimum",
    "maximum",
    "ema_minimum",
    "ema_maximum",
    "samples",
    "exponent",
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Statistics by tensor name, and what they are of.

    Attributes:
        observed_sha256: Of the Lowered file.
        sample_digests: In the order in which they were observed.
        preprocessing: Of each image input, as in the manifest.
        tools: Package versions.
        statistics: By tensor name.
    """

    observed_sha256: str
    sample_digests: Sequence[str]
    preprocessing: Mapping[str, object]
    tools: Mapping[str, str]
    statistics: Statistics


def write_table(directory: Path, table: Table) -> str:
    """Write `header.json` and `statistics.npz`; returns the SHA-256 of both, the header's first.

    The same table gives the same bytes.
    """
    arrays = _arrays_bytes(table.statistics)
    header = {
        "schema": SCHEMA,
        "observed_sha256": table.observed_sha256,
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        "sample_digests": list(table.sample_digests),
        "preprocessing": dict(table.preprocessing),
        "tools": dict(table.tools),
        "tensors": {
            name: {scalar: _json_number(getattr(item, scalar)) for scalar in _SCALARS}
            for name, item in table.statistics.items()
        },
    }
    content = canonical_json({**header, _OWN_DIGEST: json_sha256(header)})
    write_file(directory / ARRAYS_NAME, arrays)
    write_file(directory / HEADER_NAME, content)
    return hashlib.sha256(content).hexdigest()


def read_table(directory: Path, *, observed_sha256: str) -> Table:
    """Read a table back.

    Args:
        directory: Where `write_table` wrote it.
        observed_sha256: Of the file that the statistics will be used for.

    Raises:
        IntegrityRefused: The table is of another file, or damaged.
    """
    path = directory / HEADER_NAME
    try:
        header = json.loads(path.read_bytes())
        claimed, actual = header.pop(_OWN_DIGEST), json_sha256(header)
        if claimed != actual:
            raise _refused(path, "the header was changed", expected=claimed, found=actual)
        if header["schema"] != SCHEMA:
            raise ValueError(header["schema"])
        found = header["observed_sha256"]
        if found != observed_sha256:
            raise _refused(
                path, "the statistics are of another file", expected=observed_sha256, found=found
            )
        arrays = (directory / ARRAYS_NAME).read_bytes()
        digest = hashlib.sha256(arrays).hexdigest()
        if header["arrays_sha256"] != digest:
            raise _refused(
                path,
                "the arrays are not those of the header",
                expected=header["arrays_sha256"],
                found=digest,
            )
        return Table(
            observed_sha256=found,
            sample_digests=header["sample_digests"],
            preprocessing=header["preprocessing"],
            tools=header["tools"],
            statistics=_read_statistics(header["tensors"], arrays),
        )
    except _UNREADABLE as error:
        raise _refused(
            path, "the table cannot be read", expected=f"schema {SCHEMA}", found=str(error)
        ) from error


def _arrays_bytes(statistics: Statistics) -> bytes:
    """A compressed npz: per tensor its arrays, in name order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, name in enumerate(sorted(statistics)):
            for kind in _ARRAYS:
                content = io.BytesIO()
                np.save(content, getattr(statistics[name], kind), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{index}.{kind}.npy", date_time=_EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content.getvalue())
    return buffer.getvalue()


def _read_statistics(
    tensors: Mapping[str, Mapping[str, float | int | None]], content: bytes
) -> Statistics:
    statistics = {}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for index, (name, scalars) in enumerate(sorted(tensors.items())):
            counts, channels, positions, extremes = (arrays[f"{index}.{kind}"] for kind in _ARRAYS)
            has_rows = channels.ndim == positions.ndim == 1 and _is_extremes(extremes)
            if counts.shape != (BINS,) or not has_rows or len(positions) > POSITIONS_LIMIT:
                raise ValueError(name)
            values = {key: _number(scalars[key], key) for key in _SCALARS}
            statistics[name] = TensorStatistics(
                **values,  # type: ignore[arg-type]  # the scalars' kinds are those of the header
                counts=counts,
                channel_absmax=channels,
                position_absmax=positions,
                sample_extremes=extremes,
            )
    return statistics


def _is_extremes(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.shape[1] == 2 and len(array) <= EXTREMES_LIMIT


def _json_number(value: float) -> float | None:
    """JSON has no NaN and no infinity; both stand for "nothing was seen"."""
    return value if math.isfinite(value) else None


def _number(value: float | None, key: str) -> float:
    if value is not None:
        return value
    return {"minimum": math.inf, "maximum": -math.inf}.get(key, math.nan)


def _refused(path: Path, what: str, *, expected: str, found: str) -> IntegrityRefused:
    problem = Problem(
        where=str(path),
        what=what,
        expected=expected,
        found=found,
        remedy="remove it and run `edgeship build`: it is observed again",
    )
    return IntegrityRefused(problem)
