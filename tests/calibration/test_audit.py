import copy
from pathlib import Path

import numpy as np
import pytest

from edgeship.calibration.audit import audit_table
from edgeship.calibration.finding import Finding, Severity, list_names, notes_from_findings
from edgeship.calibration.observe import Statistics
from edgeship.calibration.samples import Sample
from edgeship.calibration.statistics import TensorStatistics, empty_statistics
from edgeship.calibration.table import Table, read_table, write_table
from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.errors import ConfigurationError, Problem

IMAGE = TensorSpec(
    name="image",
    shape=(1, 3, 4, 4),
    preprocess=Preprocess(size=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
)
X = TensorSpec(name="x", shape=(1, 4))
SCALE = TensorSpec(name="scale", shape=(1, 1))
IDS = TensorSpec(name="ids", shape=(1, 8), dtype="int64")
COUNT = 64


def observed(values: np.ndarray) -> TensorStatistics:
    """Of float[samples, values]."""
    statistics = empty_statistics(1)
    statistics.add(values[:, np.newaxis].astype(np.float32), 1)
    return statistics


def images(count: int = COUNT) -> TensorStatistics:
    return observed(np.random.default_rng(0).uniform(-1, 1, (count, 48)))


def activations(count: int = COUNT, *, spread: float = 0.02) -> TensorStatistics:
    """Samples of 0..about 1, whose widths vary by `spread`."""
    values = np.random.default_rng(1).uniform(0, 1, (count, 30))
    values[:, 0] = 0.0
    values[:, 1] = np.random.default_rng(2).normal(1.5, spread, count)
    return observed(values)


def samples_of(count: int) -> list[Sample]:
    return [
        Sample(name=f"{index}.png", digest=f"{index:064x}", label=None) for index in range(count)
    ]


def table_of(statistics: Statistics, *digests: str) -> Table:
    count = max(len(item.sample_extremes) for item in statistics.values())
    return Table(
        observed_sha256="ab" * 32,
        sample_digests=digests or [sample.digest for sample in samples_of(count)],
        preprocessing={},
        tools={},
        statistics=statistics,
    )


def audit(statistics: Statistics, *inputs: TensorSpec, **options: object) -> list[Finding]:
    contract = Contract(inputs=inputs or (IMAGE,), outputs=())
    return audit_table(table_of(statistics), contract, samples_of(COUNT), **options)  # type: ignore[arg-type]  # the tests' own


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [str(item) for item in findings]
    return findings[0]


def test_good_data_has_no_findings() -> None:
    assert audit({"image": images(), "relu": activations()}) == []


def test_few_samples_are_told_with_how_many_would_do() -> None:
    statistics = {"image": images(8), "relu": activations(8, spread=0.3)}
    finding = only(audit(statistics, modules={"relu": "layer1.0"}))
    assert finding.severity is Severity.WARN
    assert str(finding) == (
        "calibration: ranges of 8 samples vary by up to 13 % (relu in layer1.0); "
        "about 55 samples would hold them within 5 %"
    )


def test_one_sample_is_told() -> None:
    finding = only(audit({"image": images(1), "relu": activations(1)}))
    assert finding.severity is Severity.WARN
    assert finding.problem.found == "1"


def test_an_outlier_is_told_by_sample_tensor_and_module() -> None:
    values = np.random.default_rng(1).uniform(0, 1, (COUNT, 30))
    values[17, 4] = 5.0
    statistics = {"image": images(), "relu": observed(values), "relu_1": activations()}
    told = [str(item) for item in audit(statistics, modules={"relu": "layer2.1"})]
    assert len(told) == 2, told  # that one sample also makes the ranges unstable
    assert "sample 17.png: it alone makes 80 % of the range of relu in layer2.1;" in told[1]


def test_overlap_with_evaluation_data_is_told_by_the_names_there() -> None:
    shared = [
        Sample(name=f"test/{index}.png", digest=f"{index:064x}", label=1)
        for index in (3, 5, 8, 13, 999)
    ]
    finding = only(audit({"image": images()}, evaluation=shared))
    assert finding.severity is Severity.WARN
    assert str(finding.problem.found).startswith("4 of 64: test/13.png, test/3.png, test/5.png")
    assert str(finding.problem.found).endswith("and 1 more")


def test_repeated_samples_are_told() -> None:
    digests = [sample.digest for sample in samples_of(COUNT)]
    digests[10] = digests[20] = digests[2]
    table = table_of({"image": images()}, *digests)
    twins = [*samples_of(COUNT), Sample(name="copy.png", digest=digests[2], label=None)]
    contract = Contract(inputs=(IMAGE,), outputs=())
    finding = only(audit_table(table, contract, twins))
    assert str(finding.problem.found).startswith("62; the others are among 2.png, copy.png, ")


def test_dead_tensors_are_told_with_their_modules() -> None:
    dead = observed(np.zeros((COUNT, 5)))
    statistics = {"image": images(), "relu_3": dead, "relu_4": dead, "relu": activations()}
    finding = only(audit(statistics, modules={"relu_3": "layer1.0", "relu_4": "layer1.1"}))
    assert finding.problem.where == "calibration: tensor relu_3 in layer1.0"
    assert "and so is relu_4 in layer1.1" in finding.problem.what


def test_a_token_that_owns_a_range_is_told_with_its_module() -> None:
    values = np.random.default_rng(4).uniform(-1, 1, (COUNT, 16, 4)).astype(np.float32)
    values[:, 0, 2] = 223.0
    tokens = empty_statistics(4, 16)
    tokens.add(values, 2, 1)
    finding = only(audit({"sum": tokens}, modules={"sum": "layer.2"}))
    assert finding.severity is Severity.WARN
    assert finding.problem.where == "calibration: tensor sum in layer.2"
    assert str(finding.problem.found).startswith("position 0 reaches 223, the median of 16 ")


def test_masks_are_not_dead() -> None:
    mask = observed(np.tile([0.0, -3.4e38], (COUNT, 1)))
    assert audit({"image": images(), "mask": mask}) == []


def test_inputs_are_audited_by_their_contract() -> None:
    numbers = observed(np.random.default_rng(0).uniform(0, 255, (COUNT, 48)))
    refused = only(audit({"image": numbers}))
    assert refused.severity is Severity.REFUSE
    warned = only(audit({"x": numbers}, X))
    assert warned.severity is Severity.WARN


def test_token_ids_are_in_no_table_and_raise_no_word() -> None:
    assert audit({"relu": activations()}, IDS) == []


def test_a_constant_beside_another_input_is_a_warning() -> None:
    scale = observed(np.full((COUNT, 1), 0.5))
    finding = only(audit({"image": images(), "scale": scale}, IMAGE, SCALE))
    assert finding.severity is Severity.WARN
    alone = only(audit({"scale": scale, "relu": activations()}, SCALE))
    assert alone.severity is Severity.REFUSE


def test_what_refuses_comes_first() -> None:
    statistics = {
        "dead": observed(np.zeros((8, 5))),
        "relu": activations(8, spread=0.3),
        "image": observed(np.zeros((8, 48))),
    }
    findings = audit(statistics)
    assert len(findings) > 2
    severities = [item.severity for item in findings]
    assert severities == [Severity.REFUSE] + [Severity.WARN] * (len(findings) - 1)


def test_a_table_that_was_read_back_has_the_same_findings(tmp_path: Path) -> None:
    statistics = {"image": images(8), "relu": activations(8, spread=0.3)}
    table = table_of(statistics)
    directory = tmp_path
    write_table(directory, table)
    contract = Contract(inputs=(IMAGE,), outputs=())
    again = read_table(directory, observed_sha256=table.observed_sha256)
    assert audit_table(again, contract, samples_of(8)) == audit_table(
        table, contract, samples_of(8)
    )


def test_an_audit_changes_nothing() -> None:
    statistics = {"image": images(8), "relu": activations(8, spread=0.3)}
    before = copy.deepcopy(statistics)
    audit(statistics)
    for name, item in statistics.items():
        for field, value in vars(item).items():
            assert np.array_equal(value, getattr(before[name], field)), (name, field)


def test_a_merged_table_without_extremes_is_audited_too() -> None:
    merged = images().merged(images())
    contract = Contract(inputs=(IMAGE,), outputs=())
    table = table_of({"image": merged, "relu": activations()})
    assert audit_table(table, contract, samples_of(COUNT)) == []


def test_a_merged_table_is_refused_without_naming_a_sample() -> None:
    numbers = observed(np.random.default_rng(0).uniform(0, 255, (COUNT, 48)))
    table = table_of({"image": numbers.merged(numbers), "relu": activations()})
    (finding,) = audit_table(table, Contract(inputs=(IMAGE,), outputs=()), samples_of(COUNT))
    assert finding.severity is Severity.REFUSE
    assert "an unknown sample" in str(finding)


def test_samples_without_a_name_are_told_by_digest() -> None:
    contract = Contract(inputs=(IMAGE,), outputs=())
    table = table_of({"image": observed(np.zeros((2, 48)))}, "fe" * 32, "dc" * 32)
    findings = audit_table(table, contract, [])
    assert "fefefefefefe, dcdcdcdcdcdc" in str(findings[0])


# Findings


def problem(where: str) -> Problem:
    return Problem(where=where, what="odd", remedy="mend it")


def test_warnings_become_notes() -> None:
    findings = [Finding(severity=Severity.WARN, problem=problem(name)) for name in "ab"]
    assert notes_from_findings(findings) == ("a: odd; mend it", "b: odd; mend it")
    assert notes_from_findings([]) == ()


def test_refusals_are_raised_all_at_once_and_warnings_are_no_errors() -> None:
    findings = [
        Finding(severity=Severity.REFUSE, problem=problem("a")),
        Finding(severity=Severity.WARN, problem=problem("b")),
        Finding(severity=Severity.REFUSE, problem=problem("c")),
    ]
    with pytest.raises(ConfigurationError) as caught:
        notes_from_findings(findings)
    assert [item.where for item in caught.value.problems] == ["a", "c"]
    assert caught.value.exit_code == 2


def test_lists_of_names_are_cut_after_three() -> None:
    assert list_names([]) == ""
    assert list_names(["a", "b", "c"]) == "a, b, c"
    assert list_names(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
