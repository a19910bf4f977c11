from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgeship.calibration.equalize.hard_swish import hard_swish_sites
from edgeship.calibration.equalize.program import float_program
from edgeship.contract import Contract, TensorSpec
from edgeship.project_file import read_project
from edgeship.source.model import Model
from edgeship.vocabulary import Metric, RewriteName

if importlib.util.find_spec("edgeship.tools.bench") is None:
    pytest.skip("tools/bench is not in the wheel", allow_module_level=True)

pytestmark = pytest.mark.checkout

bench = import_module("edgeship.tools.bench.hard_swish")
swish = import_module("edgeship.tools.bench.swish")
rig = import_module("edgeship.tools.bench.rig")
SHAPE = (1, 3, bench.SIZE, bench.SIZE)


def measured(*, partitions: int, ratio: float, top1: float) -> Any:  # noqa: ANN401 - stands for a Variant
    evidence = SimpleNamespace(metrics={Metric.TOP1: top1, Metric.REFERENCE_TOP1: 0.5})
    return SimpleNamespace(
        net=SimpleNamespace(speed=SimpleNamespace(ratio=ratio), evidence={"litert": evidence}),
        check=SimpleNamespace(delegation=SimpleNamespace(partitions=partitions)),
    )


@pytest.mark.slow
def test_the_net_has_the_hard_swishes_of_the_paper() -> None:
    image = TensorSpec(name="image", shape=SHAPE, dtype="float32")
    logits = TensorSpec(name="logits", shape=(1, 10), dtype="float32")
    net = swish.build().eval()
    with torch.no_grad():
        assert net(torch.zeros(SHAPE)).shape == (1, 10)
    program = float_program(
        Model(module=net, contract=Contract(inputs=(image,), outputs=(logits,)))
    )
    # table 2: the first and the last convolution, and two in each of eight blocks
    assert len(list(hard_swish_sites(program))) == 2 + 2 * 8


def test_the_projects_differ_by_the_rewrite(tmp_path: Path) -> None:
    (tmp_path / "swish.py").write_text("")
    (tmp_path / "swish.pth").write_bytes(b"weights")
    for name in ("calib", "test"):
        (tmp_path / name / "cat").mkdir(parents=True)
        (tmp_path / name / "cat" / "0.jpg").write_bytes(b"")
    chosen = []
    for equalize in bench.PASSES.values():
        project = read_project(bench.write_project(tmp_path, equalize))
        ((section,),) = (target.formats for target in project.targets.values())
        chosen.append(section.equalize.names)
    assert chosen == [(), (RewriteName.HARD_SWISH,)]


def test_missing_data_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(rig.CannotMeasure, match="calib is missing"):
        bench.make_data(tmp_path / "made", tmp_path, epochs=1)


@pytest.mark.parametrize(
    ("partitions", "ratio", "top1", "met"),
    [
        (1, 0.6, 0.495, [True, True, True]),
        (2, 0.8, 0.485, [False, False, False]),
        (1, 1 / 1.3, 0.49, [True, True, True]),
    ],
)
def test_goals_hold_what_was_written_out(
    partitions: int, ratio: float, top1: float, met: list[bool]
) -> None:
    variants = {"written out": measured(partitions=partitions, ratio=ratio, top1=top1)}
    assert [goal.is_met for goal in bench.goals(variants)] == met
