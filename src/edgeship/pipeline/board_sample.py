"""Board sample: a part of the evaluation data, as an artifact takes it, and what it should give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeship.accuracy import is_match
from edgeship.device_tests.smoke.sample import Sample, TensorSample, TokenSample
from edgeship.evidence import Evidence
from edgeship.pipeline.evaluation import with_measurement
from edgeship.runtimes.adapter import decode_outputs, encode_inputs
from edgeship.vocabulary import Metric, Rung

if TYPE_CHECKING:
    import numpy as np

    from edgeship.contract import Contract, TensorSpec
    from edgeship.pipeline.data import ProjectData
    from edgeship.project import Project

_LARGEST_LOSS = 700.0
"""exp of 709.8 is infinite, which JSON cannot hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownTensors:
    """Samples as tensors, with what the float model gives for them.

    Attributes:
        rows: The inputs of each, as the artifact takes them.
        indices: Their places in the evaluation data.
        expected: float32[N, ...] what the float model gives.
        contract: Of the artifact.
    """

    rows: Sequence[Mapping[str, np.ndarray]]
    indices: Sequence[int]
    expected: np.ndarray
    contract: Contract

    def sample(self) -> Sample:
        """What a board gets."""
        import numpy as np

        names = [spec.name for spec in self.contract.inputs]
        inputs = {name: np.stack([row[name] for row in self.rows]) for name in names}
        return TensorSample(inputs=inputs)

    def measured(
        self,
        evidence: Evidence,
        outputs: Mapping[str, np.ndarray],
        project: Project,
        data: ProjectData,
    ) -> Evidence:
        """`evidence` with what a board gave for the samples: [N, ...] of each output."""
        import numpy as np

        spec = self.contract.outputs[0]
        given = outputs[spec.name]
        rows = [decode_outputs({spec.name: row}, self.contract)[spec.name] for row in given]
        found = np.concatenate(rows).astype(np.float32)
        return with_measurement(evidence, project, found, self.expected, data, self.indices)


@dataclass(frozen=True, kw_only=True)
class KnownTexts:
    """Chunks of held-out text for a language model, with what the float model loses on them.

    Attributes:
        chunks: Token ids; each token but the first of a chunk is predicted.
        loss: Of the float model: sum of the negative log-likelihoods of those tokens, in nats.
    """

    chunks: Sequence[Sequence[int]]
    loss: float

    def sample(self) -> Sample:
        """What a board gets."""
        return TokenSample(chunks=tuple(self.chunks))

    @property
    def tokens(self) -> int:
        """That are predicted."""
        return sum(len(chunk) - 1 for chunk in self.chunks)

    def measured(
        self,
        evidence: Evidence,
        outputs: Mapping[str, np.ndarray],
        project: Project,  # noqa: ARG002 - as of every BoardSample
        data: ProjectData,
    ) -> Evidence:
        """`evidence` with the perplexity that a board's summed losses come to."""
        metrics = {
            Metric.PERPLEXITY: _exp(float(outputs["loss"].sum()) / self.tokens),
            Metric.REFERENCE_PERPLEXITY: _exp(self.loss / self.tokens),
        }
        return replace(
            evidence,
            rung=Rung.MATCHES if is_match(metrics, Metric.PERPLEXITY) else Rung.RUNS,
            metrics=metrics,
            samples=self.tokens,
            data_sha256=data.evaluation_sha256,
        )


BoardSample = KnownTensors | KnownTexts


def tensor_sample(
    data: ProjectData,
    indices: Sequence[int],
    expected: np.ndarray,
    *,
    model_inputs: Sequence[TensorSpec],
    contract: Contract,
) -> KnownTensors:
    """The samples at `indices` of the evaluation data.

    Args:
        data: Of the project.
        indices: Places in the evaluation data.
        expected: float32[all, ...] what the float model gives for the whole of it.
        model_inputs: The float model's.
        contract: The artifact's.
    """
    rows = [
        encode_inputs(data.evaluation.load(index).inputs, model_inputs, contract)
        for index in indices
    ]
    return KnownTensors(
        rows=rows, indices=indices, expected=expected[list(indices)], contract=contract
    )


def _exp(loss: float) -> float:
    return math.exp(min(loss, _LARGEST_LOSS))
