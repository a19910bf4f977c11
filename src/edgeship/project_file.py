"""Reads `edgeship.toml` into a Project; all problems of the file at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from edgeship.budget import Budget
from edgeship.contract import Preprocess
from edgeship.errors import ConfigurationError, Problem, unknown_name
from edgeship.project import (
    DEFAULT_PERCENTILE,
    DEFAULT_SAMPLES,
    CalibrationSection,
    EvaluationSection,
    Factory,
    FactorySource,
    FileSource,
    FormatSection,
    InputSection,
    ModelSection,
    Project,
    RangePolicy,
    Rule,
    TargetSection,
)
from edgeship.quantities import bytes_from_text, fraction_from_points, milliseconds_from_text
from edgeship.tables import Table, read_toml
from edgeship.vocabulary import (
    PRECISIONS,
    ChannelOrder,
    Format,
    Layout,
    Metric,
    Place,
    RangeMethod,
    Resize,
    Task,
)

PROJECT_NAME: Final = "edgeship.toml"
_METRICS: Final = (Metric.TOP1, Metric.AGREEMENT, "cosine")
_FILE_KINDS: Final = ("program", "hf", "onnx")
_OFF: Final = "off"


def read_project(file: Path) -> Project:
    """Read and check a project file; data and vendor packages are not touched.

    Raises:
        ConfigurationError: With every problem of the file: unknown and missing keys, values of
            another kind, units, names outside of their sets, files that do not exist.
    """
    problems: list[Problem] = []
    root = read_toml(file, name=file.name, problems=problems)
    directory = file.absolute().parent
    model = _read_model(root, directory)
    calibration = _read_calibration(root, directory)
    evaluation = _read_evaluation(root, directory)
    sections = _sections(root, "targets", "no target is named")
    targets = {name: _read_target(name, table, directory) for name, table in sections}
    root.close()
    if problems or model is None:
        raise ConfigurationError(*problems)
    return Project(
        directory=directory,
        model=model,
        calibration=calibration,
        evaluation=evaluation,
        targets=targets,
    )


def _read_model(root: Table, directory: Path) -> ModelSection | None:
    table = root.table("model", required=True)
    if table is None:
        return None
    source = _read_source(table, directory)
    inputs = tuple(
        section
        for name, below in _sections(table, "inputs", "no input is named")
        if (section := _read_input(name, below)) is not None
    )
    outputs = table.table("outputs")
    labels = None
    if outputs is not None:
        labels = _existing(outputs, "labels", directory, kind="file")
        outputs.close()
    name = table.text("name") or directory.name
    task = table.choice("task", Task)
    table.close()
    if source is None:
        return None
    return ModelSection(name=name, source=source, task=task, inputs=inputs, labels=labels)


def _read_source(table: Table, directory: Path) -> FactorySource | FileSource | None:
    named = [kind for kind in ("factory", *_FILE_KINDS) if kind in table]
    if len(named) != 1:
        table.problem(
            "",
            "one source is needed",
            expected="one of factory (with weights), program, hf, onnx",
            found=", ".join(named) or "none",
            remedy="name exactly one",
        )
    factory = _read_factory(table, directory)
    paths = {
        kind: _existing(table, kind, directory, kind="directory" if kind == "hf" else "file")
        for kind in _FILE_KINDS
    }
    kind = named[0] if len(named) == 1 else None
    weights = None
    if kind not in _FILE_KINDS:  # which bring their own: there the key is an unknown one
        weights = _existing(table, "weights", directory, required=kind == "factory", kind="file")
    if kind == "factory" and factory is not None and weights is not None:
        return FactorySource(factory=factory, weights=weights)
    path = None if kind is None else paths.get(kind)
    return None if kind is None or path is None else FileSource(kind=kind, path=path)


def _read_factory(table: Table, directory: Path) -> Factory | None:
    text = table.text("factory")
    if text is None:
        return None
    name, _, attribute = text.rpartition(":")
    if not name or not attribute.isidentifier():
        table.problem(
            "factory",
            "the factory cannot be read",
            expected='"file.py:function"',
            found=repr(text),
            remedy="name a file and a function in it",
        )
        return None
    path = _checked(table, "factory", directory / name, "file")
    return None if path is None else Factory(file=path, attribute=attribute)


def _read_input(name: str, table: Table) -> InputSection | None:
    shape = table.integers("shape")
    preprocess = _read_preprocess(table)
    layout = table.choice("layout", Layout)
    table.close()
    if shape is None:
        if "shape" not in table:
            table.problem("shape", "the key is missing", remedy="write it as [1, 3, 224, 224]")
        return None
    if shape[:1] != (1,):
        table.problem(
            "shape",
            "the batch must be 1",
            expected="[1, ...]",
            found=str(list(shape)),
            remedy="put a batch of 1 first: artifacts of schema 1 have static shapes and batch 1",
        )
        return None
    if preprocess is not None:
        layout = _image_layout(table, shape, preprocess, layout)
    return InputSection(name=name, shape=shape, layout=layout, preprocess=preprocess)


def _image_layout(
    table: Table, shape: tuple[int, ...], preprocess: Preprocess, named: Layout | None
) -> Layout | None:
    """The layout that is named, else the one whose shape fits; a problem if none or both fit."""
    height, width = preprocess.size
    shapes = {
        Layout.NCHW: (1, preprocess.channels, height, width),
        Layout.NHWC: (1, height, width, preprocess.channels),
    }
    fitting = [layout for layout, expected in shapes.items() if expected == shape]
    if named in fitting:
        return named
    if named is None and len(fitting) == 1:
        return fitting[0]
    wanted = [named] if named is not None else list(shapes)
    table.problem(
        "shape",
        "the shape does not fit preprocess.size and preprocess.order"
        if not fitting or named is not None
        else "the shape fits two layouts",
        expected=" or ".join(f"{list(shapes[layout])} ({layout})" for layout in wanted),
        found=str(list(shape)),
        remedy="change one of them, or name the layout",
    )
    return None


def _read_preprocess(inputs: Table) -> Preprocess | None:
    table = inputs.table("preprocess")
    if table is None:
        return None
    problems_before = len(table.problems)
    size = table.integers("size")
    order = table.choice("order", ChannelOrder) if "order" in table else ChannelOrder.RGB
    mean, std = table.numbers("mean"), table.numbers("std")
    resize = table.choice("resize", Resize)
    table.close()
    if "size" not in table or (size is not None and len(size) != 2):
        table.problem("size", "an image size is needed", remedy="write it as [height, width]")
    if std is not None and not all(value > 0 for value in std):
        table.problem("std", "a divisor must be > 0", found=str(list(std)), remedy="raise it")
    if order is not None:
        channels = 1 if order is ChannelOrder.GRAY else 3
        mean = _per_channel(table, "mean", mean, (0.0,) * channels)
        std = _per_channel(table, "std", std, (1.0,) * channels)
    if len(table.problems) > problems_before:
        return None
    if size is None or order is None or mean is None or std is None:  # reported when read
        return None
    return Preprocess(
        size=(size[0], size[1]), resize=resize or Resize.EXACT, order=order, mean=mean, std=std
    )


def _per_channel(
    table: Table,
    key: str,
    values: tuple[float, ...] | None,
    default: tuple[float, ...],
) -> tuple[float, ...] | None:
    if key not in table:
        return default
    if values is not None and len(values) != len(default):
        table.problem(
            key,
            "one number for each channel is needed",
            expected=str(len(default)),
            found=str(len(values)),
            remedy="add or remove some",
        )
    return values


def _read_calibration(root: Table, directory: Path) -> CalibrationSection | None:
    table = root.table("calibration")
    if table is None:
        return None
    data = _existing(table, "data", directory, required=True)
    samples = table.integer("samples")
    table.close()
    if data is None:
        return None
    return CalibrationSection(data=data, samples=samples or DEFAULT_SAMPLES)


def _read_evaluation(root: Table, directory: Path) -> EvaluationSection | None:
    table = root.table("evaluation")
    if table is None:
        return None
    data = _existing(table, "data", directory, required=True)
    metric = table.text("metric", required=True)
    table.close()
    if metric is not None and metric not in _METRICS:
        table.problems.append(
            unknown_name(kind="metric", name=metric, choices=_METRICS, where=table.where("metric"))
        )
    if data is None or metric is None:
        return None
    return EvaluationSection(data=data, metric=metric)


def _read_target(name: str, table: Table, directory: Path) -> TargetSection:
    file = _existing(table, "file", directory, kind="file")
    os = table.text("os")
    known = [str(member) for member in Format]
    names = _names(table, "formats", required=True) or ()
    for text in names:
        if text not in known:
            table.problems.append(
                unknown_name(kind="format", name=text, choices=known, where=table.where("formats"))
            )
    formats = tuple(_read_format(Format(text), table) for text in names if text in known)
    if not names or not set(names) <= set(known):
        for text in known:  # the tables of formats that were misspelt, for their problems
            if text in table and text not in names:
                _read_format(Format(text), table)
    budget = _read_budget(table)
    table.close()
    return TargetSection(name=name, formats=formats, budget=budget, file=file, os=os)


def _read_format(format_: Format, target: Table) -> FormatSection:
    table = target.table(str(format_))
    if table is None:
        return FormatSection(format=format_)
    precisions = _names(table, "precisions")
    for precision in precisions or ():
        _check_precision(format_, precision, table, "precisions")
    ranges = _read_ranges(table)
    rules = tuple(rule for below in table.array("rules") if (rule := _read_rule(below, format_)))
    table.close()
    return FormatSection(format=format_, precisions=precisions, ranges=ranges, rules=rules)


def _read_rule(table: Table, format_: Format) -> Rule | None:
    match = table.text("match", required=True)
    precision = table.text("precision", required=True)
    table.close()
    if match is None or precision is None:
        return None
    if not _check_precision(format_, precision, table, "precision"):
        return None
    return Rule(match=match, precision=precision)


def _check_precision(format_: Format, precision: str, table: Table, key: str) -> bool:
    if precision in PRECISIONS[format_]:
        return True
    table.problems.append(
        unknown_name(
            kind=f"{format_} precision",
            name=precision,
            choices=PRECISIONS[format_],
            where=table.where(key),
        )
    )
    return False


def _read_ranges(table: Table) -> RangePolicy:
    """`"min-max"`, `"percentile"` or `"percentile:99.99"`."""
    text = table.text("ranges")
    if text is None:
        return RangePolicy()
    name, colon, number = text.partition(":")
    methods = [str(method) for method in RangeMethod]
    if name not in methods:
        table.problems.append(
            unknown_name(kind="policy", name=name, choices=methods, where=table.where("ranges"))
        )
        return RangePolicy()
    method = RangeMethod(name)
    if not colon:
        return RangePolicy(method=method)
    try:
        percentile = float(number)
    except ValueError:
        percentile = 0.0
    if method is not RangeMethod.PERCENTILE or not 50 < percentile <= 100:
        table.problem(
            "ranges",
            "the policy cannot be read",
            expected=f'"min-max" or "percentile:{DEFAULT_PERCENTILE}" with a share in (50, 100]',
            found=repr(text),
            remedy="change the value",
        )
        return RangePolicy()
    return RangePolicy(method=method, percentile=percentile)


def _read_budget(target: Table) -> Budget:
    table = target.table("budget")
    if table is None:
        return Budget()
    drop = table.quantity("accuracy_drop", _accuracy_drop_from_text)
    budget = Budget(
        size_bytes=table.quantity("size", bytes_from_text),
        accuracy_drop=None if drop == math.inf else drop,
        is_accuracy_judged=drop != math.inf,
        latency_p95_ms=table.quantity("latency_p95", milliseconds_from_text),
        memory_bytes=table.quantity("memory", bytes_from_text),
        evidence=table.choice("evidence", Place),
    )
    table.close()
    return budget


def _accuracy_drop_from_text(text: str) -> float:
    """A fraction; infinite for `"off"`."""
    return math.inf if text == _OFF else fraction_from_points(text)


def _sections(table: Table, key: str, what_if_none: str) -> list[tuple[str, Table]]:
    """The named tables below `key`, of which there must be one."""
    problems_before = len(table.problems)
    sections = list(table.tables(key))
    if not sections and len(table.problems) == problems_before:
        path = table.where(key).rpartition(" ")[2]
        table.problem(key, what_if_none, remedy=f"add a table [{path}.<name>]")
    return sections


def _names(table: Table, key: str, *, required: bool = False) -> tuple[str, ...] | None:
    """A list that names at least one thing, and each once."""
    names = table.texts(key, required=required)
    if names == ():
        table.problem(key, "the list is empty", remedy="name at least one")
    if names is not None and len(set(names)) < len(names):
        table.problem(
            key, "the list names one twice", found=str(list(names)), remedy="remove the second"
        )
        return tuple(dict.fromkeys(names))
    return names


def _existing(
    table: Table,
    key: str,
    directory: Path,
    *,
    required: bool = False,
    kind: str = "file or directory",
) -> Path | None:
    """An existing path of this kind, relative to the project file."""
    text = table.text(key, required=required)
    return None if text is None else _checked(table, key, directory / text, kind)


def _checked(table: Table, key: str, path: Path, kind: str) -> Path | None:
    try:
        is_there = ("file" in kind and path.is_file()) or ("directory" in kind and path.is_dir())
    except OSError:  # a name that is too long, or below a directory that may not be read
        is_there = False
    if is_there:
        return path
    table.problem(
        key,
        f"no such {kind}",
        found=str(path),
        remedy="name one that exists, relative to the project file",
    )
    return None
