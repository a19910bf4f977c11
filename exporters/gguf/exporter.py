"""The GGUF exporter; vendor packages are imported when it works, not when it is looked up."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from edgeship.artifact import Requirements, RuntimeNeed
from edgeship.digests import file_sha256
from edgeship.errors import EdgeshipError, Problem
from edgeship.exporters.protocol import Lowered, Payload, Recipe, Request, Source, Tools
from edgeship.exporters.rules import precision_problems
from edgeship.project import FactorySource
from edgeship.story import Progress, ignore_progress
from edgeship.vocabulary import PRECISIONS, Format, Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeship.calibration.importance import Importance
    from edgeship.calibration.ranges import Ranges
    from edgeship.targets import Target

_MODEL_NAME: Final = "model.gguf"
_BLUEPRINT_NAME: Final = "blueprint.json"
_RUNTIME: Final = "llama.cpp"


class GgufExporter:
    """Hugging Face directory -> `model.gguf` for llama.cpp, in one pass."""

    tools = Tools(
        lower_version=1,
        emit_version=2,
        packages=("llama-cpp-python", "gguf", "numpy", "torch", "transformers"),
        extra="gguf",
    )

    def problems(self, request: Request) -> Iterator[Problem]:
        """See `Exporter.problems`: headers and configuration are read, no weight."""
        from edgeship.exporters.gguf.architectures import read_blueprint
        from edgeship.exporters.gguf.mixture import assign_kinds
        from edgeship.exporters.gguf.substitution import substitution_problems
        from edgeship.exporters.gguf.vocabulary import read_vocabulary

        target, source, recipe = request.target, request.model.source, request.recipe
        where = f"edgeship.toml: targets.{target.name}.gguf"
        found = list(precision_problems(recipe, where, PRECISIONS[Format.GGUF]))
        if recipe.rules:
            found.append(_no_rules(where))
        if isinstance(source, FactorySource) or source.kind != "hf":
            found.append(_wrong_source())
        yield from found
        if found or recipe.converter is not None:  # which knows architectures of its own
            return
        assert not isinstance(source, FactorySource)  # just refused
        try:
            blueprint = read_blueprint(source.path)
            read_vocabulary(source.path, blueprint.architecture, blueprint.facts.vocabulary)
        except EdgeshipError as error:
            yield from error.problems
            return
        if recipe.is_strict:
            assignment = assign_kinds(
                blueprint.tensors,
                blueprint.facts,
                recipe.precision,
                has_importance=False,
                architecture=blueprint.architecture,
            )
            yield from substitution_problems(assignment, where=where)

    def lower(self, source: Source, directory: Path) -> Lowered:
        """See `Exporter.lower`: the checkpoint itself, its tokenizer proven against llama.cpp."""
        if source.converter is not None:
            from edgeship.exporters.gguf.way_round import lower_converted

            return lower_converted(source, source.converter, directory)
        from edgeship.exporters.gguf.assembly import assemble, proof_notes
        from edgeship.exporters.gguf.vocabulary import prove_vocabulary

        assembly = assemble(source.checkpoint, "f16", has_importance=False)
        blueprint = assembly.blueprint
        proof = prove_vocabulary(
            assembly.vocabulary, source.checkpoint, blueprint.architecture, source.texts
        )
        file = directory / _BLUEPRINT_NAME
        tensors = [[plan.name, list(plan.shape), plan.source] for plan in blueprint.tensors]
        value = {"architecture": blueprint.architecture, "tensors": tensors}
        file.write_text(json.dumps(value, indent=1), encoding="utf-8")
        return Lowered(
            file=file,
            sha256=file_sha256(file),
            contract=source.model.contract,
            runtime=_RUNTIME,
            observed=(),
            notes=(*blueprint.notes, *proof_notes(proof)),
        )

    def emit(
        self,
        lowered: Lowered,
        ranges: Ranges | Importance | None,
        recipe: Recipe,
        target: Target,
        directory: Path,
        *,
        progress: Progress = ignore_progress,
    ) -> Payload:
        """See `Exporter.emit`: one file, streamed from the checkpoint."""
        from edgeship.calibration.importance import Importance
        from edgeship.exporters.gguf.assembly import assemble, write_assembly
        from edgeship.exporters.gguf.choice import choice_notes
        from edgeship.exporters.gguf.forecast import memory_note
        from edgeship.exporters.gguf.substitution import substitution_notes

        importance = ranges if isinstance(ranges, Importance) else None
        if recipe.converter is not None:
            from edgeship.exporters.gguf.way_round import emit_converted

            file = directory / _MODEL_NAME
            return emit_converted(lowered, importance, recipe, target, file, progress)
        has_importance = importance is not None
        assembly = assemble(lowered.checkpoint, recipe.precision, has_importance=has_importance)
        write_assembly(
            assembly,
            lowered.checkpoint,
            directory / _MODEL_NAME,
            importance=importance,
            threads=os.cpu_count() or 1,
            progress=progress,
        )
        forecast = assembly.forecast(recipe.context)
        version = target.formats[Format.GGUF].runtimes[0].version
        return Payload(
            files={_MODEL_NAME: Role.MODEL},
            contract=lowered.contract,
            requires=Requirements(
                any_of=(RuntimeNeed(runtime=_RUNTIME, min=version),),
                memory_bytes=forecast.total,
            ),
            notes=(
                *substitution_notes(assembly.assignment),
                *choice_notes(target.cpu, recipe.precision, assembly.assignment.substituted),
                memory_note(forecast, target.memory_bytes),
            ),
            output_steps={},
        )


def _wrong_source() -> Problem:
    return Problem(
        where="edgeship.toml: model",
        what="gguf is made of Hugging Face directories",
        expected="[model] hf = a directory with config.json and safetensors",
        remedy="save the model with save_pretrained(directory)",
    )


def _no_rules(where: str) -> Problem:
    return Problem(
        where=f"{where}.rules",
        what="rules do not apply to gguf: its types mix layers by themselves",
        remedy="remove them, or choose another type",
    )
