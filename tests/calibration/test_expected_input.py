import numpy as np
import pytest

from edgeship.calibration.expected_input import (
    Span,
    audit_array,
    audit_image,
    blank_samples,
    preprocessed_span,
)
from edgeship.calibration.finding import Finding, Severity
from edgeship.calibration.preprocess import input_from_pixels
from edgeship.calibration.statistics import TensorStatistics, empty_statistics
from edgeship.contract import Preprocess, TensorSpec
from edgeship.vocabulary import ChannelOrder, Layout

IMAGENET = Preprocess(size=(6, 6), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SIGNED = Preprocess(size=(6, 6), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PLAIN = Preprocess(size=(6, 6))
MNIST = Preprocess(size=(6, 6), order=ChannelOrder.GRAY, mean=(0.1307,), std=(0.3081,))
KINDS = {"imagenet": IMAGENET, "signed": SIGNED, "plain": PLAIN, "mnist": MNIST}
NUMBERS = TensorSpec(name="x", shape=(1, 4))


def image_spec(preprocess: Preprocess) -> TensorSpec:
    shape = (1, preprocess.channels, 6, 6)
    return TensorSpec(name="image", shape=shape, layout=Layout.NCHW, preprocess=preprocess)


def noise(preprocess: Preprocess, *, low: int = 0, high: int = 256, count: int = 16) -> np.ndarray:
    shape = (count, 6, 6, preprocess.channels)
    return np.random.default_rng(0).integers(low, high, shape, dtype=np.uint8)


def inputs_from(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """By the one implementation of preprocessing."""
    spec = image_spec(preprocess)
    return np.concatenate([input_from_pixels(image, spec) for image in pixels])


def observed(values: np.ndarray) -> TensorStatistics:
    statistics = empty_statistics(values.shape[1])
    statistics.add(values.astype(np.float32), 1)
    return statistics


def finding_of(values: np.ndarray, preprocess: Preprocess) -> Finding | None:
    names = [f"{index}.png" for index in range(len(values))]
    return audit_image(image_spec(preprocess), observed(values), names)


def by_channel(numbers: tuple[float, ...]) -> np.ndarray:
    return np.array(numbers, np.float32).reshape(-1, 1, 1)


def test_span_of_imagenet_preprocessing_is_the_known_one() -> None:
    span = preprocessed_span(IMAGENET, Span(low=0.0, high=1.0))
    assert str(span) == "-2.12..2.64"


@pytest.mark.parametrize("preprocess", KINDS.values(), ids=KINDS)
def test_real_pixels_are_never_blamed(preprocess: Preprocess) -> None:
    assert finding_of(inputs_from(noise(preprocess), preprocess), preprocess) is None
    dim = noise(preprocess, low=30, high=90)
    assert finding_of(inputs_from(dim, preprocess), preprocess) is None


@pytest.mark.parametrize("preprocess", KINDS.values(), ids=KINDS)
def test_what_preprocessing_gives_lies_within_its_span(preprocess: Preprocess) -> None:
    values = inputs_from(noise(preprocess), preprocess)
    seen = Span(low=float(values.min()), high=float(values.max()))
    # three roundings to float32 on values below 3: less than 1e-6 of the width
    assert preprocessed_span(preprocess, Span(low=0.0, high=1.0)).covers(seen, slack=1e-6)


@pytest.mark.parametrize("preprocess", KINDS.values(), ids=KINDS)
def test_overshoot_of_a_resize_is_no_mistake(preprocess: Preprocess) -> None:
    """Pixels of -0.28..1.28 are what bicubic resizing can make of 0..1."""
    pixels = np.random.default_rng(0).uniform(-0.28, 1.28, (9, preprocess.channels, 6, 6))
    values = (pixels - by_channel(preprocess.mean)) / by_channel(preprocess.std)
    assert finding_of(values, preprocess) is None


@pytest.mark.parametrize("preprocess", KINDS.values(), ids=KINDS)
def test_pixels_of_0_to_255_are_refused(preprocess: Preprocess) -> None:
    values = noise(preprocess).transpose(0, 3, 1, 2).astype(np.float32)
    finding = finding_of(values, preprocess)
    assert finding is not None
    assert finding.severity is Severity.REFUSE
    assert finding.problem.found is not None
    assert finding.problem.found.startswith("0..255")


@pytest.mark.parametrize("name", ["imagenet", "signed", "mnist"])
def test_normalised_twice_is_refused_and_recognised(name: str) -> None:
    preprocess = KINDS[name]
    once = inputs_from(noise(preprocess), preprocess)
    finding = finding_of(
        (once - by_channel(preprocess.mean)) / by_channel(preprocess.std), preprocess
    )
    assert finding is not None
    assert finding.severity is Severity.REFUSE
    assert finding.problem.what == "the values seem normalised twice"


def test_a_forgotten_division_is_recognised() -> None:
    pixels = noise(IMAGENET).transpose(0, 3, 1, 2).astype(np.float32)
    finding = finding_of((pixels - by_channel(IMAGENET.mean)) / by_channel(IMAGENET.std), IMAGENET)
    assert finding is not None
    assert "without the division by 255" in finding.problem.what


def test_values_that_no_mistake_explains_are_refused_all_the_same() -> None:
    finding = finding_of(1e6 * (inputs_from(noise(IMAGENET), IMAGENET)), IMAGENET)
    assert finding is not None
    assert finding.problem.what == "the values cannot come from its preprocessing"


def test_the_sample_that_lies_farthest_out_is_named() -> None:
    values = inputs_from(noise(IMAGENET), IMAGENET)
    values[5, 1, 2, 3] = -40.0
    finding = finding_of(values, IMAGENET)
    assert finding is not None
    assert str(finding.problem.found).endswith("the farthest in 5.png")


def test_fractions_that_were_not_normalised_are_suspect() -> None:
    fractions = noise(IMAGENET).transpose(0, 3, 1, 2) / 255
    finding = finding_of(fractions, IMAGENET)
    assert finding is not None
    assert finding.severity is Severity.WARN
    assert finding_of(fractions, PLAIN) is None


@pytest.mark.parametrize("preprocess", KINDS.values(), ids=KINDS)
def test_divided_twice_is_suspect_and_recognised(preprocess: Preprocess) -> None:
    fractions = noise(preprocess).transpose(0, 3, 1, 2) / 255 / 255
    values = (fractions - by_channel(preprocess.mean)) / by_channel(preprocess.std)
    finding = finding_of(values, preprocess)
    assert finding is not None
    assert finding.severity is Severity.WARN
    assert finding.problem.what == "the values seem divided by 255 twice"


def test_hardly_any_contrast_is_suspect() -> None:
    finding = finding_of(inputs_from(noise(SIGNED, low=100, high=120), SIGNED), SIGNED)
    assert finding is not None
    assert finding.severity is Severity.WARN
    assert finding.problem.what == "the values have hardly any contrast"


@pytest.mark.parametrize("preprocess", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("level", [0, 1, 100, 255])
def test_an_image_of_one_grey_is_blank_and_noise_is_not(preprocess: Preprocess, level: int) -> None:
    pixels = noise(preprocess, count=3)
    pixels[1] = level
    extremes = observed(inputs_from(pixels, preprocess)).sample_extremes
    assert blank_samples(extremes, preprocess) == [1]


def test_grey_that_differs_by_one_level_is_not_blank() -> None:
    pixels = np.full((1, 6, 6, 3), 100, np.uint8)
    pixels[0, 3, 3] = 101
    extremes = observed(inputs_from(pixels, IMAGENET)).sample_extremes
    assert blank_samples(extremes, IMAGENET) == []


@pytest.mark.parametrize("preprocess", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("levels", [(0, 0, 0, 0), (0, 1, 2, 3)])
def test_blank_samples_alone_are_refused(preprocess: Preprocess, levels: tuple[int, ...]) -> None:
    pixels = np.stack([np.full((6, 6, preprocess.channels), level, np.uint8) for level in levels])
    finding = finding_of(inputs_from(pixels, preprocess), preprocess)
    assert finding is not None
    assert finding.severity is Severity.REFUSE
    assert "0.png, 1.png, 2.png and 1 more" in str(finding)


def test_blank_samples_among_others_are_named() -> None:
    pixels = noise(IMAGENET)
    pixels[[2, 9]] = 0
    finding = finding_of(inputs_from(pixels, IMAGENET), IMAGENET)
    assert finding is not None
    assert finding.severity is Severity.WARN
    assert finding.problem.found == "2: 2.png, 9.png"


# Without preprocessing


def test_standardised_numbers_raise_no_word() -> None:
    values = np.random.default_rng(0).standard_normal((50, 4))
    assert audit_array(NUMBERS, observed(values), is_alone=True) is None


@pytest.mark.parametrize(("largest", "is_suspect"), [(29.0, False), (31.0, True), (-255.0, True)])
def test_huge_numbers_are_suspect(largest: float, is_suspect: bool) -> None:
    finding = audit_array(NUMBERS, observed(np.array([[0.0, largest]])), is_alone=True)
    assert (finding is not None) is is_suspect
    assert finding is None or finding.severity is Severity.WARN


@pytest.mark.parametrize(
    ("is_alone", "severity"), [(True, Severity.REFUSE), (False, Severity.WARN)]
)
def test_a_constant_is_refused_unless_another_input_varies(
    is_alone: bool, severity: Severity
) -> None:
    finding = audit_array(NUMBERS, observed(np.full((3, 4), 0.5)), is_alone=is_alone)
    assert finding is not None
    assert finding.severity is severity
    assert finding.problem.found == "0.5 alone"
