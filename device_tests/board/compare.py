"""Compare: an output against an expected one, as the golden pack's writer means it.

Kinds, each with a limit: "exact" (every value, bit for bit), "lsb" (largest difference of stored
integers), "close" (largest difference of real values), "argmax" (share of rows with another one),
"tokens" (least share of equal tokens up to the first that differs, over all cases together), "kld"
(divergence from the expected distribution, KL(expected || found) in nats, of log-probabilities).
"""

from typing import Any, Dict, Optional

import numpy as np

from edgeship.device_tests.board.tensors import real, spelled


def compare(
    found: Optional[np.ndarray], expected: Dict[str, Any], spec: Dict[str, Any]
) -> Dict[str, object]:
    """Kind, difference, largest one allowed, is_ok and message (None where all is said).

    "tokens" is_ok is None: a case alone is not held against the limit.

    Args:
        found: What came; None where nothing of that name did.
        expected: Entry of the pack with "values" and "compare".
        spec: The output in the contract; {} where it is not in there.
    """
    kind, limit = expected["compare"]["kind"], expected["compare"]["limit"]
    if kind == "tokens":  # the pack says a share of equal ones
        limit = 1.0 - limit
    event: Dict[str, object] = {"kind": kind, "difference": None, "limit": limit}
    wanted: np.ndarray = expected["values"]
    message = _unlike(found, wanted, kind)
    if message is None:
        assert found is not None  # _unlike has looked
        difference = _DIFFERENCES[kind](found, wanted, spec)
        if np.isfinite(difference):
            is_ok = None if kind == "tokens" else bool(difference <= limit)
            return dict(event, difference=float(difference), is_ok=is_ok, message=None)
        message = "NaN or infinite values"
    return dict(event, is_ok=False, message=message)


def _unlike(found: Optional[np.ndarray], wanted: np.ndarray, kind: str) -> Optional[str]:
    """Why two arrays cannot be compared."""
    if kind not in _DIFFERENCES:
        return f"this archive does not know the comparison {kind!r}"
    if found is None:
        return "the runtime gives no output of that name"
    is_stored = kind in ("exact", "lsb")
    if found.shape != wanted.shape or (is_stored and found.dtype != wanted.dtype):
        return f"{spelled(found)} instead of {spelled(wanted)}"
    return None


def _exact(found: np.ndarray, wanted: np.ndarray, _spec: Dict[str, Any]) -> float:
    """Number of values that differ; NaNs of the same bits are equal."""
    pair = np.frombuffer(found.tobytes(), np.uint8), np.frombuffer(wanted.tobytes(), np.uint8)
    different = (pair[0] != pair[1]).reshape(-1, found.dtype.itemsize)
    return float(different.any(axis=1).sum())


def _lsb(found: np.ndarray, wanted: np.ndarray, _spec: Dict[str, Any]) -> float:
    return _largest(found.astype(np.int64) - wanted.astype(np.int64))


def _close(found: np.ndarray, wanted: np.ndarray, spec: Dict[str, Any]) -> float:
    """Of real values: an integer output is compared with a float model's by what it means."""
    pair = real(found, spec), real(wanted, spec)
    return _largest(pair[0].astype(np.float64) - pair[1].astype(np.float64))


def _argmax(found: np.ndarray, wanted: np.ndarray, _spec: Dict[str, Any]) -> float:
    rows = found.reshape(-1, found.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        return float("nan")
    return float((rows[0].argmax(axis=1) != rows[1].argmax(axis=1)).mean())


def _tokens(found: np.ndarray, wanted: np.ndarray, _spec: Dict[str, Any]) -> float:
    """Share of tokens from the first on that differs."""
    same = (found == wanted).reshape(-1)
    return 0.0 if same.all() else 1.0 - float(same.argmin()) / same.size


def _kld(found: np.ndarray, wanted: np.ndarray, _spec: Dict[str, Any]) -> float:
    """The largest of the rows; 0 log 0 is 0."""
    log_p, log_q = _normalised(wanted), _normalised(found)
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - log_q), 0.0)
    return float(np.abs(terms.sum(axis=1)).max())


def _normalised(values: np.ndarray) -> np.ndarray:
    """float64[rows, vocabulary] log-probabilities, whose rounding to float32 is taken back."""
    rows: np.ndarray = values.reshape(-1, values.shape[-1]).astype(np.float64)
    rows = rows - rows.max(axis=1, keepdims=True)
    result: np.ndarray = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return result


def _largest(differences: np.ndarray) -> float:
    return float(np.abs(differences).max()) if differences.size else 0.0


_DIFFERENCES: Dict[str, Any] = {
    "exact": _exact,
    "lsb": _lsb,
    "close": _close,
    "argmax": _argmax,
    "tokens": _tokens,
    "kld": _kld,
}
