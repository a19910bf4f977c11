"""Audit: whether representative data is fit to make ranges of, from its table and little else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from edgeship.calibration.expected_input import audit_array, audit_image
from edgeship.calibration.finding import Finding, Severity, list_names, place_of
from edgeship.calibration.observe import Statistics
from edgeship.calibration.positions import audit_positions
from edgeship.calibration.samples import Sample
from edgeship.calibration.stability import TOLERANCE, find_outliers, measure_stability
from edgeship.calibration.table import Table
from edgeship.contract import Contract
from edgeship.errors import Problem

_WHERE: Final = "calibration"
_NO_MODULES: Final[Mapping[str, str]] = MappingProxyType({})


def audit_table(
    table: Table,
    contract: Contract,
    samples: Sequence[Sample],
    *,
    evaluation: Sequence[Sample] = (),
    modules: Mapping[str, str] = _NO_MODULES,
) -> list[Finding]:
    """Everything that speaks against the representative data; what refuses comes first.

    The same table gives the same findings in the same order. NaN and infinity do not come here:
    `open_samples` and `observe` refuse them.

    Args:
        table: What was observed.
        contract: Of the file on which it was observed: float inputs.
        samples: The representative samples, at least those of the table; for their names.
        evaluation: Samples that the artifact will be measured with; none if there are none.
        modules: Torch module by tensor, where known.
    """
    names = _names_of(table.sample_digests, samples)
    findings = [
        *_audit_inputs(table.statistics, contract, names),
        *_audit_count(table.statistics, len(names), modules),
        *_audit_outliers(table.statistics, names, modules),
        *_audit_repeats(table.sample_digests, names),
        *_audit_overlap(table.sample_digests, evaluation),
        *_audit_dead(table.statistics, contract, modules),
        *audit_positions(table.statistics, modules),
    ]
    return sorted(findings, key=lambda item: item.severity is not Severity.REFUSE)


def _names_of(digests: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """Names in the order of the digests; equal samples are named one after the other."""
    known: dict[str, list[str]] = {}
    for sample in reversed(samples):
        known.setdefault(sample.digest, []).append(sample.name)
    return [known[digest].pop() if known.get(digest) else digest[:12] for digest in digests]


def _audit_inputs(
    statistics: Statistics, contract: Contract, names: Sequence[str]
) -> Iterator[Finding]:
    """The float inputs; integers (token ids) are in no table."""
    known = {
        spec.name: (spec, statistics[spec.name])
        for spec in contract.inputs
        if spec.name in statistics and not statistics[spec.name].is_empty
    }
    varied = {name for name, (_, item) in known.items() if item.minimum < item.maximum}
    for name, (spec, item) in known.items():
        finding = (
            audit_array(spec, item, is_alone=not varied - {name})
            if spec.preprocess is None
            else audit_image(spec, item, names)
        )
        if finding is not None:
            yield finding


def _audit_count(
    statistics: Statistics, samples: int, modules: Mapping[str, str]
) -> Iterator[Finding]:
    if samples == 1:
        problem = Problem(
            where=_WHERE,
            what="one sample cannot show how ranges vary",
            expected="about 100 samples, or more",
            found="1",
            remedy="add samples; from two on it is estimated how many would do",
        )
        yield Finding(severity=Severity.WARN, problem=problem)
        return
    stability = measure_stability(statistics)
    if stability is None or stability.variation <= TOLERANCE:
        return
    worst = place_of(stability.tensor, modules)
    problem = Problem(
        where=_WHERE,
        what=f"ranges of {stability.samples} samples vary by up to "
        f"{100 * stability.variation:.2g} % ({worst})",
        remedy=f"about {stability.enough} samples would hold them within {100 * TOLERANCE:g} %",
    )
    yield Finding(severity=Severity.WARN, problem=problem)


def _audit_outliers(
    statistics: Statistics, names: Sequence[str], modules: Mapping[str, str]
) -> Iterator[Finding]:
    outliers = find_outliers(statistics)
    if not outliers:
        return
    worst = outliers[0]
    problem = Problem(
        where=f"{_WHERE} sample {names[worst.index]}",
        what=f"it alone makes {100 * worst.share:.0f} % of the range of "
        f"{place_of(worst.tensor, modules)}"
        + (f" ({len(outliers)} tensors have such a sample)" if len(outliers) > 1 else ""),
        remedy='look at it; if it is as it should be, ranges = "percentile" gives up such outliers',
    )
    yield Finding(severity=Severity.WARN, problem=problem)


def _audit_repeats(digests: Sequence[str], names: Sequence[str]) -> Iterator[Finding]:
    counts = Counter(digests)
    if len(counts) == len(digests):
        return
    repeats = [name for digest, name in zip(digests, names, strict=True) if counts[digest] > 1]
    problem = Problem(
        where=_WHERE,
        what="samples repeat one another",
        expected=f"{len(digests)} different ones",
        found=f"{len(counts)}; the others are among {list_names(repeats)}",
        remedy="add other samples in their place: repeats teach nothing",
    )
    yield Finding(severity=Severity.WARN, problem=problem)


def _audit_overlap(digests: Sequence[str], evaluation: Sequence[Sample]) -> Iterator[Finding]:
    both = set(digests) & {sample.digest for sample in evaluation}
    if not both:
        return
    shared = sorted({sample.name for sample in evaluation if sample.digest in both})
    problem = Problem(
        where=_WHERE,
        what="representative samples are evaluation samples too",
        expected="other ones: accuracy is else measured on what the ranges were fitted to",
        found=f"{len(both)} of {len(digests)}: {list_names(shared)}",
        remedy="take them out of one of the two",
    )
    yield Finding(severity=Severity.WARN, problem=problem)


def _audit_dead(
    statistics: Statistics, contract: Contract, modules: Mapping[str, str]
) -> Iterator[Finding]:
    """Tensors that are 0 throughout; inputs are another matter."""
    inputs = {spec.name for spec in contract.inputs}
    dead = [
        place_of(name, modules)
        for name, item in statistics.items()
        if name not in inputs and not item.is_empty and not item.sentinels and item.absmax == 0
    ]
    if not dead:
        return
    problem = Problem(
        where=f"{_WHERE}: tensor {dead[0]}",
        what="it is 0 in all samples"
        + (f", and so is {list_names(dead[1:])}" if len(dead) > 1 else ""),
        expected="a value other than 0 somewhere",
        found="a range of 0..0",
        remedy="add samples that reach that part of the model, or prune it",
    )
    yield Finding(severity=Severity.WARN, problem=problem)
