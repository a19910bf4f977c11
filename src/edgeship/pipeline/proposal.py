"""Proposal: a first `edgeship.toml`, with budgets proposed from a first build."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.exchange import write_file
from edgeship.pipeline.build import BuildResult, build
from edgeship.pipeline.plan import make_plan
from edgeship.project_file import read_project
from edgeship.story import Story

_HEADROOM: Final = 1.25
"""size-limit's advice: the present size and a quarter more."""
_UNITS: Final = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What only the user knows of a project; paths as they will stand in the file."""

    source: str
    weights: str | None
    shape: tuple[int, ...] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    length: int | None
    labels: str | None
    calibration: str | None
    evaluation: str | None
    metric: str | None
    targets: tuple[str, ...]


def propose_project(file: Path, answers: Answers, story: Story) -> BuildResult:
    """Build a project of these answers once, and write its file with budgets from that.

    Raises:
        ConfigurationError: The file is there already, or the answers do not make a project: then
            nothing is written.
    """
    if file.exists():
        problem = Problem(
            where=str(file),
            what="there is a project already",
            remedy="edit it, or remove it first",
        )
        raise ConfigurationError(problem)
    with tempfile.NamedTemporaryFile(
        "w", dir=file.absolute().parent, prefix=".edgeship-init-", suffix=".toml"
    ) as draft:
        draft.write(project_text(answers, {}))
        draft.flush()
        try:
            plan = make_plan(read_project(Path(draft.name)))
        except ConfigurationError as error:
            raise ConfigurationError(*_renamed(error.problems, draft.name, file.name)) from error
        result = build(plan, story)
    for outcome in result.outcomes:
        if outcome.error is not None:
            raise outcome.error
    write_file(file, project_text(answers, _proposed_sizes(result)).encode())
    return result


def project_text(answers: Answers, sizes: Mapping[str, int]) -> str:
    """The project file; `sizes` are limits in bytes by target, for those that have a budget."""
    lines = ["[model]", *_source_lines(answers), ""]
    lines += _input_lines(answers)
    if answers.labels is not None:
        lines += ["", "[model.outputs]", f"labels = {_text(answers.labels)}"]
    if answers.calibration is not None:
        lines += ["", "[calibration]", f"data = {_text(answers.calibration)}"]
    if answers.evaluation is not None:
        metric = answers.metric or ("cosine" if answers.shape is None else "top1")
        lines += ["", "[evaluation]", f"data = {_text(answers.evaluation)}"]
        lines.append(f"metric = {_text(metric)}")
    for target in answers.targets:
        lines += ["", f"[targets.{target}]", 'formats = ["onnx"]']
        if target in sizes:
            lines += [
                "",
                f"[targets.{target}.budget]",
                f"size = {_text(text_of_limit(sizes[target]))}   # the first build and a quarter",
                'accuracy_drop = "1.0 pt"',
                '# latency_p95 = "6 ms"   # once a board has measured it',
                '# memory = "64 MB"',
            ]
    return "\n".join(lines) + "\n"


def text_of_limit(count: int) -> str:
    """`count` bytes rounded up to two digits: `400 kB`; whole bytes below 1 kB."""
    for unit, size in _UNITS:
        if count >= size:
            digits = max(0, math.floor(math.log10(count / size)) - 1)
            step = size * 10**digits if count >= 10 * size else size // 10
            return f"{math.ceil(count / step) * step / size:g} {unit}"
    return f"{count} B"


def _renamed(problems: Sequence[Problem], draft: str, name: str) -> list[Problem]:
    """Problems of the draft as those of the file that it would have become."""
    return [
        replace(problem, where=problem.where.replace(Path(draft).name, name))
        for problem in problems
    ]


def _proposed_sizes(result: BuildResult) -> dict[str, int]:
    """By target, what the largest of its shipped models may weigh."""
    sizes: dict[str, int] = {}
    for outcome in result.outcomes:
        if outcome.artifact is not None and not outcome.item.is_companion:
            name = outcome.item.target.name
            size = math.ceil(outcome.artifact.manifest.size_bytes * _HEADROOM)
            sizes[name] = max(size, sizes.get(name, 0))
    return sizes


def _source_lines(answers: Answers) -> list[str]:
    if ":" in answers.source:
        lines = [f"factory = {_text(answers.source)}"]
        if answers.weights is not None:
            lines.append(f"weights = {_text(answers.weights)}")
        return lines
    kinds = {".onnx": "onnx", ".pt2": "program"}
    return [f"{kinds.get(Path(answers.source).suffix, 'hf')} = {_text(answers.source)}"]


def _input_lines(answers: Answers) -> list[str]:
    if answers.shape is None:
        length = answers.length or 128
        return ["[model.inputs.text]", 'tokenizer = "."', f"length = {length}"]
    lines = ["[model.inputs.image]", f"shape = {list(answers.shape)}"]
    size, channels = _image_size(answers.shape)
    if size is not None:
        order = "GRAY" if channels == 1 else "RGB"
        mean = list(answers.mean or (0.0,) * channels)
        std = list(answers.std or (1.0,) * channels)
        lines.append(
            f'preprocess = {{ size = {list(size)}, order = "{order}", mean = {mean}, std = {std} }}'
        )
    return lines


def _image_size(shape: Sequence[int]) -> tuple[tuple[int, int] | None, int]:
    """(height, width) and channels of an image shape, channels first or last."""
    if len(shape) == 4 and shape[1] in (1, 3):
        return (shape[2], shape[3]), shape[1]
    if len(shape) == 4 and shape[3] in (1, 3):
        return (shape[1], shape[2]), shape[3]
    return None, 0


def _text(value: str) -> str:
    """A TOML basic string: JSON's escapes are among TOML's (toml.io, v1.0.0, String)."""
    return json.dumps(value, ensure_ascii=False)
