from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeship.pipeline.cache import StageCache, stage_key


def write(directory: Path) -> None:
    (directory / "result").write_text("done")


def test_a_result_is_made_once(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    key = stage_key("observe", data="a")
    calls = []

    def work(directory: Path) -> None:
        calls.append(directory)
        write(directory)

    assert cache.run(key, work) == cache.run(key, work)
    assert len(calls) == 1


def test_keys_differ_with_every_fact_and_not_with_their_order() -> None:
    assert stage_key("emit", a=1, b=2) == stage_key("emit", b=2, a=1)
    assert stage_key("emit", a=1) != stage_key("emit", a=2)
    assert stage_key("emit", a=1).digest != stage_key("lower", a=1).digest


def test_a_failed_stage_leaves_no_result(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    key = stage_key("observe")

    def fail(directory: Path) -> None:
        write(directory)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.run(key, fail)
    assert cache.find(key) is None
    assert not list((tmp_path / "observe").iterdir())


def test_recover_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    left = tmp_path / "observe/.new-abc"
    left.mkdir(parents=True)
    write(left)
    StageCache(tmp_path).recover()
    assert not left.exists()


def test_prune_keeps_what_is_used_and_the_latest(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    keys = [stage_key("emit", number=number) for number in range(12)]
    for age, key in enumerate(keys):
        path = cache.run(key, write)
        os.utime(path, ns=(age, age))
    cache.prune([keys[0]])
    assert [cache.has(key) for key in keys] == [True, *[False] * 3, *[True] * 8]
