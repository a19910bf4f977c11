from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.digests import DigestMemory, canonical_json, file_sha256, json_sha256

LONG_AGO_NS = 1_600_000_000 * 10**9
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # UTF-8 has no form for lone surrogates, category Cs.
    | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes, *, mtime_ns: int) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def _reversed(value: object) -> object:
    """The same JSON value, with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [_reversed(item) for item in value]
    return value


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_file_digest_is_the_digest_of_all_its_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == _sha256(content)


@given(JSON)
@settings(deadline=None)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: object) -> None:
    assert canonical_json(_reversed(value)) == canonical_json(value)


@given(JSON)
@settings(deadline=None)
def test_canonical_json_reads_back_to_the_same_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(JSON, JSON)
@settings(deadline=None)
def test_canonical_json_of_other_values_is_other_bytes(one: object, other: object) -> None:
    if one != other:
        assert json_sha256(one) != json_sha256(other)


def test_canonical_json_is_utf8_with_sorted_keys_and_no_spaces() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == b'{"a":"\xc3\xa9","b":[1,2.5]}'
    assert json_sha256({}) == _sha256(b"{}")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_canonical_json_refuses_what_json_cannot_say(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([number])


def test_change_of_same_size_within_one_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    memory, path = DigestMemory(tmp_path / "memory.json"), tmp_path / "file"
    tick_ns = time.time_ns()
    _write(path, b"one", mtime_ns=tick_ns)
    assert memory.sha256(path) == _sha256(b"one")
    _write(path, b"two", mtime_ns=tick_ns)
    assert memory.sha256(path) == _sha256(b"two")


class _SlowPath(type(Path())):  # type: ignore[misc]  # the concrete class depends on the system
    """A file that takes five seconds of the fake clock to be read."""

    def open(self, *arguments: object, **options: object) -> object:
        _SlowPath.now_ns += 5 * 10**9
        return super().open(*arguments, **options)

    now_ns = LONG_AGO_NS


def test_change_of_same_size_while_a_large_file_is_read_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: _SlowPath.now_ns)
    memory, path = DigestMemory(tmp_path / "memory.json"), _SlowPath(tmp_path / "file")
    tick_ns = _SlowPath.now_ns
    _write(tmp_path / "file", b"one", mtime_ns=tick_ns)
    assert memory.sha256(path) == _sha256(b"one")
    _write(tmp_path / "file", b"two", mtime_ns=tick_ns)
    assert memory.sha256(path) == _sha256(b"two")


@pytest.mark.parametrize("changed", ["size", "mtime", "inode"])
def test_change_of_a_settled_file_is_seen_by_any_part_of_its_identity(
    tmp_path: Path, changed: str
) -> None:
    memory, path = DigestMemory(tmp_path / "memory.json"), tmp_path / "file"
    _write(path, b"one", mtime_ns=LONG_AGO_NS)
    memory.sha256(path)
    content = b"three" if changed == "size" else b"two"
    if changed == "inode":
        _write(tmp_path / "other", content, mtime_ns=LONG_AGO_NS)
        (tmp_path / "other").replace(path)
    else:
        _write(path, content, mtime_ns=LONG_AGO_NS + (changed == "mtime"))
    assert memory.sha256(path) == _sha256(content)


def test_memory_persists_and_spares_reading_a_settled_file_again(tmp_path: Path) -> None:
    file, path = tmp_path / "deep" / "memory.json", tmp_path / "file"
    _write(path, b"one", mtime_ns=LONG_AGO_NS)
    first = DigestMemory(file)
    first.sha256(path)
    first.save()
    # In place, same size, old time put back: invisible, so the answer shows that nobody read it.
    _write(path, b"two", mtime_ns=LONG_AGO_NS)
    assert DigestMemory(file).sha256(path) == _sha256(b"one")


def test_memory_that_learnt_nothing_is_not_written(tmp_path: Path) -> None:
    file, path = tmp_path / "memory.json", tmp_path / "file"
    _write(path, b"one", mtime_ns=time.time_ns())
    memory = DigestMemory(file)
    memory.sha256(path)
    memory.save()
    assert not file.exists()


def test_file_that_is_gone_is_an_error_even_if_it_is_remembered(tmp_path: Path) -> None:
    memory, path = DigestMemory(tmp_path / "memory.json"), tmp_path / "file"
    _write(path, b"one", mtime_ns=LONG_AGO_NS)
    memory.sha256(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        memory.sha256(path)


def _check_damaged_memory(directory: Path, damage: bytes) -> None:
    file, path = directory / "memory.json", directory / "file"
    file.write_bytes(damage)
    _write(path, b"one", mtime_ns=LONG_AGO_NS)
    memory = DigestMemory(file)
    assert memory.sha256(path) == _sha256(b"one")
    memory.save()
    assert json.loads(file.read_bytes())[str(path)][3] == _sha256(b"one")


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[1]", b"\xff\xfe", b"null", b'{"a": 1, "b": [1, 2]}', b"[" * 100_000],
    ids=["empty", "cut", "list", "not-utf8", "null", "other-rows", "nested"],
)
def test_damaged_memory_is_an_empty_one_that_heals(tmp_path: Path, damage: bytes) -> None:
    _check_damaged_memory(tmp_path, damage)


@given(JSON.map(canonical_json) | st.binary(max_size=20))
@settings(deadline=None, max_examples=50)
def test_any_damage_is_an_empty_memory(
    tmp_path_factory: pytest.TempPathFactory, damage: bytes
) -> None:
    _check_damaged_memory(tmp_path_factory.getbasetemp(), damage)
