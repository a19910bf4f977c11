"""Row: one TOML file of the catalogue, checked, with all its OS images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.quantities import bytes_from_text
from edgeship.tables import Table, read_toml
from edgeship.targets.format_row import read_formats
from edgeship.targets.keys import require_keys, version
from edgeship.targets.target import (
    Arch,
    Cpu,
    Emulation,
    FormatFacts,
    Gpu,
    OsImage,
    Runtime,
    RuntimeFact,
    Source,
    Target,
)
from edgeship.vocabulary import Format

# What `-m` of QEMU takes, with its suffix required (QEMU manual page, option -m).
_QEMU_MEMORY: Final = re.compile(r"\d+[MG]")
# Precisions that a TensorRT engine of the kit is built in.
_ENGINE_PRECISIONS: Final = ("fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A class of board with every OS image that it can carry.

    Attributes:
        images: OS images by id, in the order of the file.
        formats: What the board takes of each format under each image, by image id.
    """

    name: str
    board: str
    memory_bytes: int
    cpu: Cpu
    gpu: Gpu | None
    images: Mapping[str, OsImage]
    default_os: str
    emulation: Emulation | None
    formats: Mapping[str, Mapping[Format, FormatFacts]]
    sources: tuple[Source, ...]

    def target(self, os: str) -> Target:
        """The row under one of its `images`."""
        return Target(
            name=self.name,
            board=self.board,
            memory_bytes=self.memory_bytes,
            cpu=self.cpu,
            gpu=self.gpu,
            os=self.images[os],
            os_choices=tuple(self.images),
            emulation=self.emulation,
            formats=self.formats[os],
            sources=self.sources,
        )


def read_row(file: Path, *, name: str) -> Row:
    """Read and check one file; `name` is what its key "name" has to say.

    Raises:
        ConfigurationError: With every problem of the file: unknown and missing keys, values of
            another kind, names outside of their sets, facts that contradict each other.
    """
    problems: list[Problem] = []
    root = read_toml(file, name=file.name, problems=problems)
    require_keys(root, "name", "board", "memory_bytes", "cpu", "os", "formats")
    _check_name(root, name)
    board = root.text("board")
    memory_bytes = root.quantity("memory_bytes", bytes_from_text)
    cpu = _read_cpu(root)
    gpu = _read_gpu(root)
    general = read_formats(root)
    images, special, default_os = _read_images(root)
    emulation = _read_emulation(root)
    sources = _read_sources(root)
    formats = {
        os: _formats_of_image(root, image, general | special[os]) for os, image in images.items()
    }
    if "gpu" not in root and any(below[Format.TENSORRT].precisions for below in formats.values()):
        root.problem("gpu", "the board takes TensorRT, it has no GPU", remedy="add [gpu]")
    root.close()
    if problems or board is None or memory_bytes is None or cpu is None or default_os is None:
        raise ConfigurationError(*problems)
    return Row(
        name=name,
        board=board,
        memory_bytes=memory_bytes,
        cpu=cpu,
        gpu=gpu,
        images=images,
        default_os=default_os,
        emulation=emulation,
        formats=formats,
        sources=sources,
    )


def _check_name(root: Table, name: str) -> None:
    found = root.text("name")
    if found is not None and found != name:
        root.problem(
            "name",
            "the row has another name than the target",
            expected=repr(name),
            found=repr(found),
            remedy="rename one of them",
        )


def _read_cpu(root: Table) -> Cpu | None:
    table = root.table("cpu")
    if table is None:
        return None
    require_keys(table, "arch", "cores")
    arch = table.choice("arch", Arch)
    cores = table.text("cores")
    features = table.texts("features", required=True)
    table.close()
    if arch is None or cores is None or features is None:
        return None
    return Cpu(arch=arch, cores=cores, features=features)


def _read_gpu(root: Table) -> Gpu | None:
    table = root.table("gpu")
    if table is None:
        return None
    require_keys(table, "sm", "dla")
    sm = version(table, "sm")
    dla = table.integer("dla", minimum=0)
    precisions = table.texts("precisions", required=True)
    table.close()
    if not set(precisions or ()) <= set(_ENGINE_PRECISIONS):
        table.problem(
            "precisions",
            "no engine is built in this precision",
            expected=f"some of {', '.join(_ENGINE_PRECISIONS)}",
            found=", ".join(precisions or ()),
            remedy="name only these",
        )
    if sm is None or dla is None or precisions is None:
        return None
    return Gpu(sm=sm, dla=dla, precisions=precisions)


def _read_images(
    root: Table,
) -> tuple[dict[str, OsImage], dict[str, dict[Format, FormatFacts]], str | None]:
    """Images by id, the formats that each of them states anew, and the id of the default."""
    images, special, defaults = {}, {}, []
    for id_, table in root.tables("os"):
        require_keys(table, "image")
        images[id_] = OsImage(
            id=id_,
            image=table.text("image") or "",
            python=version(table, "python"),
            glibc=version(table, "glibc"),
            tensorrt=version(table, "tensorrt"),
            page_size=table.integer("page_size"),
        )
        if table.boolean("default") is True:
            defaults.append(id_)
        special[id_] = read_formats(table)
        table.close()
    if "os" in root and len(defaults) != 1:
        root.problem(
            "os",
            "one OS image has to be the default",
            expected="default = true in exactly one of [os.<id>]",
            found=", ".join(defaults) or "none",
            remedy="add the key, or take it from the others",
        )
    return images, special, defaults[0] if len(defaults) == 1 else None


def _formats_of_image(
    root: Table, image: OsImage, formats: Mapping[Format, FormatFacts]
) -> dict[Format, FormatFacts]:
    """Every format, those that the row does not name with the reason that it does not."""
    complete = {}
    for format in Format:
        facts = formats.get(format)
        if facts is None:
            reason = f"the row of this board has no [formats.{format}]"
            facts = FormatFacts(precisions=(), runtimes=(), reason=reason)
        complete[format] = facts
    tensorrt = complete[Format.TENSORRT]
    if image.tensorrt is not None:
        runtime = RuntimeFact(name=Runtime.TENSORRT, version=image.tensorrt)
        complete[Format.TENSORRT] = replace(tensorrt, runtimes=(runtime,))
    elif tensorrt.precisions:
        where = f"os.{image.id}.tensorrt"
        root.problem(where, "the board takes TensorRT, this image has none", remedy="add the key")
    return complete


def _read_emulation(root: Table) -> Emulation | None:
    table = root.table("emulate")
    if table is None:
        return None
    require_keys(table, "qemu_cpu", "memory")
    qemu_cpu = table.text("qemu_cpu")
    memory = table.text("memory")
    table.close()
    if memory is not None and not _QEMU_MEMORY.fullmatch(memory):
        table.problem(
            "memory",
            "QEMU takes no such memory",
            expected='a number with M or G, like "4096M"',
            found=repr(memory),
            remedy="write it as QEMU's -m",
        )
    if qemu_cpu is None or memory is None:
        return None
    return Emulation(qemu_cpu=qemu_cpu, memory=memory)


def _read_sources(root: Table) -> tuple[Source, ...]:
    sources = []
    for table in root.array("source"):
        require_keys(table, "key", "url")
        key, url, note = table.text("key"), table.text("url"), table.text("note")
        table.close()
        if key is not None and url is not None:
            sources.append(Source(key=key, url=url, note=note))
    return tuple(sources)
