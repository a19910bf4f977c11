"""Reads the table `[model]` of a project file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgeship.contract import Preprocess
from edgeship.project import (
    Factory,
    FactorySource,
    FileSource,
    InputSection,
    ModelSection,
    TextSection,
)
from edgeship.table_values import checked_path, existing_path, named_tables
from edgeship.tables import Table
from edgeship.vocabulary import ChannelOrder, Layout, Output, Resize, Task

_FILE_KINDS: Final = ("program", "hf", "onnx")


def read_model(root: Table, directory: Path) -> ModelSection | None:
    """The model of a project in `directory`; None if a problem keeps it from being whole."""
    table = root.table("model", required=True)
    if table is None:
        return None
    source = _read_source(table, directory)
    inputs, text = _read_inputs(table, directory)
    outputs = table.table("outputs")
    labels = None
    if outputs is not None:
        labels = existing_path(outputs, "labels", directory, kind="file")
        outputs.close()
    output = table.choice("output", Output)
    name = table.text("name") or directory.name
    task = table.choice("task", Task)
    table.close()
    if source is None:
        return None
    return ModelSection(
        name=name, source=source, task=task, inputs=inputs, labels=labels, text=text, output=output
    )


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
        kind: existing_path(table, kind, directory, kind="directory" if kind == "hf" else "file")
        for kind in _FILE_KINDS
    }
    kind = named[0] if len(named) == 1 else None
    weights = None
    if kind not in _FILE_KINDS:  # which bring their own: there the key is an unknown one
        weights = existing_path(table, "weights", directory, required=kind == "factory")
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
    path = checked_path(table, "factory", directory / name, "file")
    return None if path is None else Factory(file=path, attribute=attribute)


def _read_inputs(
    model: Table, directory: Path
) -> tuple[tuple[InputSection, ...], TextSection | None]:
    """Tensors, or one text."""
    tables = named_tables(model, "inputs", "no input is named")
    if len(tables) == 1 and "tokenizer" in tables[0][1]:
        return (), _read_text(*tables[0], directory, model)
    sections = [_read_input(name, table) for name, table in tables]
    return tuple(section for section in sections if section is not None), None


def _read_text(name: str, table: Table, directory: Path, model: Table) -> TextSection | None:
    """The tokenizer's directory is relative to the checkpoint's: "." is the checkpoint itself."""
    home = model.text("hf")
    base = directory if home is None else directory / home
    tokenizer = existing_path(table, "tokenizer", base, required=True, kind="directory")
    length = table.integer("length", minimum=2)
    table.close()
    if "length" not in table:
        table.problem("length", "the key is missing", remedy="say how many tokens, like 128")
    if tokenizer is None or length is None:
        return None
    return TextSection(name=name, tokenizer=tokenizer, length=length)


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
