"""Sources: which of them can become which format (DESIGN, "What becomes what")."""

from __future__ import annotations

from collections.abc import Iterator

from edgeship.errors import ConfigurationError, Problem
from edgeship.project import FactorySource, FileSource
from edgeship.source.encoder import architecture_of, is_causal
from edgeship.vocabulary import Format

_WHERE = "edgeship.toml: model"


def module_source_problems(
    source: FactorySource | FileSource, format_: Format, *, takes_onnx: bool
) -> Iterator[Problem]:
    """Why a source cannot become a format that is made of torch modules, programs and encoders."""
    if isinstance(source, FactorySource) or source.kind == "program":
        return
    if source.kind == "onnx":
        if not takes_onnx:
            yield Problem(
                where=_WHERE,
                what=f"an .onnx file cannot become {format_} here",
                expected="a torch module, a .pt2 program or a Hugging Face encoder",
                found=source.path.name,
                remedy='name the module with factory and weights, or choose formats = ["onnx"]',
            )
        return
    try:
        is_gguf = is_causal(source.path)
    except ConfigurationError as error:
        yield from error.problems
        return
    if is_gguf:
        yield Problem(
            where=_WHERE,
            what=f"a causal language model cannot become {format_} here",
            expected="an encoder",
            found=architecture_of(source.path),
            remedy='choose formats = ["gguf"]',
        )
