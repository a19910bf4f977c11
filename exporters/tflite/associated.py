"""Associated files: small files that travel inside a .tflite, as a ZIP behind the flatbuffer.

The interpreter reads the flatbuffer from the front, ZIP readers look for their directory from the
end, so one file is both (TFLite metadata, "Pack the associated files"). Offsets in the directory
count from the start of the whole file, as `zipfile` writes them in mode "a".
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from edgeship.errors import Problem

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The first date that a ZIP can hold (APPNOTE.TXT 4.4.6), so that equal files are equal bytes."""
_UNIX: Final = 3
"""APPNOTE.TXT 4.4.2.2; zipfile's own default depends on the build host."""
_READABLE: Final = 0o644 << 16
_BLANK: Final = "".join(map(chr, range(0x21)))
"""What Java's `String.trim` removes."""


def with_files(content: bytes, files: Mapping[str, bytes]) -> bytes:
    """The flatbuffer with `files` behind it: stored, sorted by name, all of 1980-01-01.

    They are stored because the metadata extractor of tflite-support refuses compressed ones
    (metadata_extractor.cc, GetCurrentZipFileInfo). Without files the content is returned as it is.

    Args:
        content: A flatbuffer without files.
        files: Bytes by file name.
    """
    if not files:
        return content
    packed = io.BytesIO()
    packed.write(content)
    # Mode "a" would first search the weights for the marks of a ZIP.
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = _READABLE
            archive.writestr(entry, files[name])
    return packed.getvalue()


def labels_file(labels: Sequence[str]) -> bytes:
    r"""One line a class, UTF-8, each ended by "\n", the last one too."""
    return "".join(f"{label}\n" for label in labels).encode()


def label_problems(labels: Sequence[str], classes: int, where: str) -> Iterator[Problem]:
    """Why an app would show wrong names, or none, with these labels.

    Args:
        labels: One for each class.
        classes: Length of the output's last axis.
        where: The labels file.
    """
    if len(labels) != classes:
        yield Problem(
            where=where,
            what="the labels are not those of the model",
            expected=f"{classes} lines, one for each score",
            found=f"{len(labels)} lines",
            remedy="correct the file",
        )
    for line, label in enumerate(labels, start=1):
        if not label.strip(_BLANK):
            # FileUtil.loadLabels of tflite-support leaves such lines out; its C++ does not
            yield Problem(
                where=f"{where}:{line}",
                what="the label is blank, and Android's reader of labels skips blank lines",
                expected="a name on each line",
                remedy=f"name the class, if only 'class {line - 1}'",
            )
        elif "\n" in label or "\r" in label:
            yield Problem(
                where=f"{where}:{line}",
                what="the label holds a line break",
                expected="one line a class",
                found=repr(label),
                remedy="remove the line break",
            )
