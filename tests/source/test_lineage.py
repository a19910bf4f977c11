from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgeship.source.lineage import Lineage
from edgeship.source.looks import Certainty, Look, Trait
from edgeship.source.survey import survey_checkpoint


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blocks(
    layers: int, *, hidden: int = 16, ffn: int = 32, seed: int = 0, prefix: str = "layers."
) -> dict[str, Tensor]:
    tensors = {"embed.weight": random(40, hidden, seed=seed)}
    for layer in range(layers):
        own = 1000 * seed + 10 * layer
        tensors[f"{prefix}{layer}.mlp.up.weight"] = random(ffn, hidden, seed=own + 1)
        tensors[f"{prefix}{layer}.mlp.down.weight"] = random(hidden, ffn, seed=own + 2)
    return tensors


def compare(
    tmp_path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]
) -> tuple[Lineage, Look]:
    paths = [tmp_path / "student.safetensors", tmp_path / "teacher.safetensors"]
    for path, tensors in zip(paths, (student, teacher), strict=True):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    found = survey_checkpoint(paths[0], teacher=paths[1])
    assert found.lineage is not None
    look = next(item for item in found.looks if item.trait is Trait.DISTILLED)
    return found.lineage, look


def test_reduction_is_of_parameters_and_bytes(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in blocks(3).items()}
    lineage, _ = compare(tmp_path, half, blocks(6))
    value = lineage.to_json()
    assert value["parameters"] == {"student": 640 + 3 * 1024, "teacher": 640 + 6 * 1024}
    assert value["bytes_ratio"] == pytest.approx((640 + 3 * 1024) / (640 + 6 * 1024) / 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(6, 12, [0, 2, 4, 7, 9, 11]), (3, 5, [0, 2, 4]), (1, 4, [0]), (2, 2, [0, 1])],
)
def test_position_is_evenly_spaced(
    tmp_path: Path, ours: int, theirs: int, expected: list[int]
) -> None:
    """Of 6 from 12 these are the layers that DistilBERT took (its scripts/extract.py)."""
    lineage, _ = compare(tmp_path, blocks(ours, seed=1), blocks(theirs, seed=2))
    assert [match.position for match in lineage.layers] == [f"layers.{i}" for i in expected]


def test_copied_blocks_are_found_by_their_weights_wherever_they_are(tmp_path: Path) -> None:
    teacher = blocks(6)
    student = blocks(2, seed=5)
    for name in ("mlp.up.weight", "mlp.down.weight"):
        noise = 0.2 * random(*student[f"layers.1.{name}"].shape, seed=77)
        student[f"layers.1.{name}"] = teacher[f"layers.3.{name}"] + noise
    lineage, look = compare(tmp_path, student, teacher)
    first, second = lineage.layers
    assert first.alike is None
    assert first.cosine is not None
    assert first.cosine < 0.2
    assert (second.alike, second.position) == ("layers.3", "layers.5")
    assert second.cosine == pytest.approx(1 / (1 + 0.2**2) ** 0.5, abs=0.02)
    assert look.certainty is Certainty.LOOKS
    assert "1 of 2 blocks have weights like the teacher's" in look.evidence[0]


def test_unlike_blocks_of_a_smaller_net_are_no_proof_of_distillation(tmp_path: Path) -> None:
    _, look = compare(tmp_path, blocks(2, seed=1), blocks(4, seed=2))
    assert look.certainty is Certainty.MAY_BE
    assert look.evidence[1] == "none of its blocks is like one of the teacher's"


def test_what_is_not_smaller_is_no_student(tmp_path: Path) -> None:
    _, look = compare(tmp_path, blocks(2), blocks(2))
    assert look.certainty is Certainty.NO_SIGN
    assert "not smaller" in look.evidence[0]


def test_other_widths_are_told_and_not_compared(tmp_path: Path) -> None:
    lineage, look = compare(tmp_path, blocks(2, hidden=8, ffn=24), blocks(2))
    assert [match.cosine for match in lineage.layers] == [None, None]
    found = {match.role: (match.student, match.teacher) for match in lineage.widths}
    assert found["layers.*.mlp.up.weight"] == ((24, 8), (32, 16))
    assert lineage.shared_roles == 3
    assert look.evidence[1] == "no block compares"


def test_groups_of_other_names_are_compared_in_order(tmp_path: Path) -> None:
    teacher = {f"net.{name}": tensor for name, tensor in blocks(4).items()}
    lineage, _ = compare(tmp_path, blocks(2), teacher)
    assert [match.alike for match in lineage.layers] == ["net.layers.0", "net.layers.1"]
    assert [match.position for match in lineage.layers] == ["net.layers.0", "net.layers.3"]


def test_vocabulary_of_both_is_told(tmp_path: Path) -> None:
    student = blocks(2) | {"embed.weight": random(24, 16, seed=0)}
    lineage, _ = compare(tmp_path, student, blocks(2))
    assert lineage.vocabulary == (24, 40)


def test_nan_and_zeros_are_like_nothing(tmp_path: Path) -> None:
    student = blocks(2)
    student["layers.0.mlp.up.weight"][:] = torch.nan
    student["layers.1.mlp.up.weight"][:] = 0
    student["layers.1.mlp.down.weight"][:] = 0
    lineage, _ = compare(tmp_path, student, blocks(4))
    assert [match.alike for match in lineage.layers] == [None, None]


def test_a_teacher_without_blocks_has_no_layer_map(tmp_path: Path) -> None:
    lineage, look = compare(tmp_path, blocks(2), {"head.weight": random(100, 100, seed=0)})
    assert lineage.layers == ()
    assert look.certainty is Certainty.NO_SIGN
