import hashlib
import io
import json
import math
import pickle
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.calibration.statistics import (
    BINS,
    POSITIONS_LIMIT,
    TensorStatistics,
    empty_statistics,
)
from edgeship.calibration.table import (
    ARRAYS_NAME,
    HEADER_NAME,
    Table,
    read_table,
    write_table,
)
from edgeship.digests import canonical_json
from edgeship.errors import ExitCode, IntegrityRefused

LOWERED = "ab" * 32
MASK = float(np.float32(-3.4e38))


def observed(*rows: list[float]) -> TensorStatistics:
    statistics = empty_statistics(len(rows[0]))
    for row in rows:
        statistics.add(np.array([row], np.float32), 1)
    return statistics


def table_of(statistics: dict[str, TensorStatistics]) -> Table:
    return Table(
        observed_sha256=LOWERED,
        sample_digests=["cd" * 32, "01" * 32],
        preprocessing={"image": {"size": [8, 8], "mean": [0.485, 0.1], "order": "RGB"}},
        tools={"numpy": "2.0", "onnxruntime": "1.0"},
        statistics=statistics,
    )


@pytest.fixture
def table() -> Table:
    """Of every kind: plain, dead, never measured, masked, merged, with tokens, oddly named."""
    tokens = empty_statistics(2, 3)
    tokens.add(np.array([[[0.5, -2.0], [0.0, 0.0], [1e-3, 7.0]]], np.float32), 2, 1)
    plain, other = observed([0.1, -7.25]), observed([1e29, -1e-45])
    return table_of(
        {
            "layer1.0/conv ünïcode [x]": plain,
            "merged": plain.merged(other),
            "dead": observed([0.0, -0.0]),
            "mask": observed([MASK, MASK]),
            "unseen": empty_statistics(3),
            "a": other,
            "tokens": tokens,
        }
    )


def require_same_statistics(
    found: dict[str, TensorStatistics], expected: dict[str, TensorStatistics]
) -> None:
    """Equal to the last bit and type."""
    assert set(found) == set(expected)
    for name, item in expected.items():
        for field, value in vars(item).items():
            other = getattr(found[name], field)
            if isinstance(value, np.ndarray):
                assert other.dtype == value.dtype, (name, field)
                assert other.tobytes() == value.tobytes(), (name, field)
            else:
                assert repr(other) == repr(value), (name, field)


def rewrite(directory: Path, **changes: object) -> None:
    """Change the header with every digest made to fit: only its content is wrong."""
    path = directory / HEADER_NAME
    header = json.loads(path.read_bytes()) | changes
    header.pop("header_sha256", None)
    header["header_sha256"] = hashlib.sha256(canonical_json(header)).hexdigest()
    path.write_bytes(canonical_json(header))


def rewrite_arrays(directory: Path, content: bytes) -> None:
    (directory / ARRAYS_NAME).write_bytes(content)
    rewrite(directory, arrays_sha256=hashlib.sha256(content).hexdigest())


# Round trip


def test_a_table_comes_back_as_it_was(tmp_path: Path, table: Table) -> None:
    write_table(tmp_path, table)
    found = read_table(tmp_path, observed_sha256=LOWERED)
    require_same_statistics(found.statistics, table.statistics)
    assert replace(found, statistics={}) == replace(table, statistics={})


def test_infinities_and_nan_come_back(tmp_path: Path, table: Table) -> None:
    write_table(tmp_path, table)
    found = read_table(tmp_path, observed_sha256=LOWERED).statistics
    assert (found["unseen"].minimum, found["unseen"].maximum) == (math.inf, -math.inf)
    assert found["mask"].is_empty
    assert math.isnan(found["merged"].ema_minimum)
    assert math.isnan(found["merged"].ema_maximum)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    rows=st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=4),
    name=st.text(st.characters(codec="utf-8"), max_size=8),
)
def test_whatever_was_observed_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]], name: str
) -> None:
    directory = tmp_path_factory.mktemp("table")
    statistics = {name: observed(*rows)}
    write_table(directory, table_of(statistics))
    found = read_table(directory, observed_sha256=LOWERED).statistics
    require_same_statistics(found, statistics)


def test_statistics_that_were_read_can_be_merged_on(tmp_path: Path) -> None:
    one, other = observed([0.5, -1.0]), observed([40.0, 2.0])
    write_table(tmp_path, table_of({"x": one}))
    read = read_table(tmp_path, observed_sha256=LOWERED).statistics["x"]
    require_same_statistics({"x": read.merged(other)}, {"x": one.merged(other)})


# Bytes


def test_the_same_table_gives_the_same_bytes_whatever_the_order(
    tmp_path: Path, table: Table
) -> None:
    turned = replace(
        table,
        statistics=dict(reversed(list(table.statistics.items()))),
        tools=dict(reversed(list(table.tools.items()))),
    )
    digests = {write_table(tmp_path / "one", table), write_table(tmp_path / "two", turned)}
    assert len(digests) == 1
    for name in (HEADER_NAME, ARRAYS_NAME):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_clock_is_in_the_bytes(tmp_path: Path, table: Table) -> None:
    write_table(tmp_path, table)
    with zipfile.ZipFile(tmp_path / ARRAYS_NAME) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_identity_of_a_table_is_that_of_its_header_and_covers_its_arrays(
    tmp_path: Path, table: Table
) -> None:
    identity = write_table(tmp_path / "one", table)
    header = (tmp_path / "one" / HEADER_NAME).read_bytes()
    assert identity == hashlib.sha256(header).hexdigest()
    changed = observed([0.1, -7.25])
    changed.counts[1024] += 1
    statistics = {**table.statistics, "layer1.0/conv ünïcode [x]": changed}
    assert write_table(tmp_path / "two", replace(table, statistics=statistics)) != identity


def test_the_order_of_the_samples_is_kept(tmp_path: Path, table: Table) -> None:
    turned = replace(table, sample_digests=list(reversed(table.sample_digests)))
    assert write_table(tmp_path, turned) != write_table(tmp_path / "other", table)
    found = read_table(tmp_path, observed_sha256=LOWERED)
    assert found.sample_digests == turned.sample_digests


def test_no_scale_is_in_a_table(tmp_path: Path, table: Table) -> None:
    write_table(tmp_path, table)
    header = (tmp_path / HEADER_NAME).read_text(encoding="utf-8")
    assert "scale" not in header
    assert "zero_point" not in header


# Refused


def test_a_table_of_another_file_is_refused(tmp_path: Path, table: Table) -> None:
    write_table(tmp_path, table)
    with pytest.raises(IntegrityRefused, match="of another file") as caught:
        read_table(tmp_path, observed_sha256="ef" * 32)
    (problem,) = caught.value.problems
    assert caught.value.exit_code is ExitCode.INTEGRITY
    assert (problem.expected, problem.found) == ("ef" * 32, LOWERED)


@pytest.mark.parametrize("name", [HEADER_NAME, ARRAYS_NAME])
def test_a_missing_file_is_refused(tmp_path: Path, table: Table, name: str) -> None:
    write_table(tmp_path, table)
    (tmp_path / name).unlink()
    with pytest.raises(IntegrityRefused):
        read_table(tmp_path, observed_sha256=LOWERED)


@pytest.mark.parametrize("name", [HEADER_NAME, ARRAYS_NAME])
def test_every_flipped_byte_is_refused_or_harmless(tmp_path: Path, table: Table, name: str) -> None:
    small = replace(table, statistics={"merged": table.statistics["merged"]})
    write_table(tmp_path, small)
    path = tmp_path / name
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            found = read_table(tmp_path, observed_sha256=LOWERED)
        except IntegrityRefused:
            continue
        require_same_statistics(found.statistics, small.statistics)
        assert replace(found, statistics={}) == replace(small, statistics={}), position


@pytest.mark.parametrize("name", [HEADER_NAME, ARRAYS_NAME])
def test_every_truncation_is_refused(tmp_path: Path, table: Table, name: str) -> None:
    write_table(tmp_path, replace(table, statistics={"mask": table.statistics["mask"]}))
    path = tmp_path / name
    content = path.read_bytes()
    accepted = []
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with suppress(IntegrityRefused):
            read_table(tmp_path, observed_sha256=LOWERED)
            accepted.append(size)
    assert accepted == []


def test_arrays_of_another_table_are_refused(tmp_path: Path, table: Table) -> None:
    write_table(tmp_path / "one", table)
    write_table(tmp_path / "two", replace(table, statistics={"x": observed([1.0])}))
    (tmp_path / "two" / ARRAYS_NAME).replace(tmp_path / "one" / ARRAYS_NAME)
    with pytest.raises(IntegrityRefused, match="not those of the header"):
        read_table(tmp_path / "one", observed_sha256=LOWERED)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"header_sha256": 3}',
        b'{"header_sha256": NaN}',
        b'{"observed_sha256": "' + LOWERED.encode() + b'"}',
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_header_of_other_content_is_refused(tmp_path: Path, table: Table, content: bytes) -> None:
    write_table(tmp_path, table)
    (tmp_path / HEADER_NAME).write_bytes(content)
    with pytest.raises(IntegrityRefused):
        read_table(tmp_path, observed_sha256=LOWERED)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 1},
        {"schema": 3},
        {"schema": None},
        {"tensors": []},
        {"tensors": {"a": {}}},
        {"tensors": {"a": None}},
        {"tensors": None},
    ],
    ids=str,
)
def test_a_header_of_another_form_is_refused(
    tmp_path: Path, table: Table, changes: dict[str, object]
) -> None:
    write_table(tmp_path, table)
    rewrite(tmp_path, **changes)
    with pytest.raises(IntegrityRefused):
        read_table(tmp_path, observed_sha256=LOWERED)


@pytest.mark.parametrize("key", ["tensors", "sample_digests", "preprocessing", "tools"])
def test_a_header_without_a_key_is_refused(tmp_path: Path, table: Table, key: str) -> None:
    write_table(tmp_path, table)
    header = json.loads((tmp_path / HEADER_NAME).read_bytes())
    del header[key]
    (tmp_path / HEADER_NAME).write_bytes(canonical_json(header))
    rewrite(tmp_path)
    with pytest.raises(IntegrityRefused):
        read_table(tmp_path, observed_sha256=LOWERED)


def test_counts_of_another_number_of_bins_are_refused(tmp_path: Path, table: Table) -> None:
    write_table(tmp_path, table)
    buffer = io.BytesIO()
    names = [f"{index}.{kind}" for index in range(6) for kind in ("counts", "channel_absmax")]
    np.savez(buffer, allow_pickle=False, **{name: np.zeros(BINS // 2) for name in names})
    rewrite_arrays(tmp_path, buffer.getvalue())
    with pytest.raises(IntegrityRefused):
        read_table(tmp_path, observed_sha256=LOWERED)


def with_positions(directory: Path, positions: np.ndarray | None) -> None:
    """Another array of positions in a table of one tensor; or none, as in schema 1."""
    with np.load(directory / ARRAYS_NAME) as archive:
        arrays = dict(archive)
    del arrays["0.position_absmax"]
    if positions is not None:
        arrays["0.position_absmax"] = positions
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    rewrite_arrays(directory, buffer.getvalue())


@pytest.mark.parametrize("size", [None, (2, 3), (POSITIONS_LIMIT + 1,)])
def test_positions_of_another_form_are_refused(
    tmp_path: Path, table: Table, size: tuple[int, ...] | None
) -> None:
    write_table(tmp_path, replace(table, statistics={"a": table.statistics["tokens"]}))
    with_positions(tmp_path, None if size is None else np.zeros(size, np.float32))
    with pytest.raises(IntegrityRefused, match="cannot be read"):
        read_table(tmp_path, observed_sha256=LOWERED)


def test_positions_come_back(tmp_path: Path, table: Table) -> None:
    write_table(tmp_path, table)
    found = read_table(tmp_path, observed_sha256=LOWERED).statistics
    assert found["tokens"].position_absmax.tolist() == [2.0, 0.0, 7.0]
    assert found["a"].position_absmax.shape == (0,)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("form", ["object array", "bare pickle", "pickled member"])
def test_no_pickle_is_ever_loaded(tmp_path: Path, table: Table, form: str) -> None:
    mark = tmp_path / "mark"
    write_table(tmp_path, replace(table, statistics={"a": table.statistics["a"]}))
    buffer = io.BytesIO()
    if form == "bare pickle":
        pickle.dump(Trap(mark), buffer)
    elif form == "object array":
        objects = np.array([Trap(mark)], object)
        arrays = {"0.counts": objects, "0.channel_absmax": objects}
        np.savez(buffer, allow_pickle=True, **arrays)
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("0.counts.npy", pickle.dumps(Trap(mark)))
            archive.writestr("0.channel_absmax.npy", pickle.dumps(Trap(mark)))
    rewrite_arrays(tmp_path, buffer.getvalue())
    with pytest.raises(IntegrityRefused):
        read_table(tmp_path, observed_sha256=LOWERED)
    assert not mark.exists()
