"""The closed sets of words that every room shares."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Format(StrEnum):
    """What kind of file a target's runtime loads."""

    ONNX = "onnx"
    TFLITE = "tflite"
    GGUF = "gguf"
    TENSORRT = "tensorrt"


PRECISIONS: Final[Mapping[Format, tuple[str, ...]]] = {
    Format.ONNX: ("fp32", "fp16", "int8", "dynamic"),
    Format.TFLITE: ("fp32", "fp16", "int8", "dynamic"),
    Format.GGUF: (
        "f16",
        "q8_0",
        "q4_0",
        "q4_1",
        "iq4_nl",
        "iq4_xs",
        "q4_k_s",
        "q4_k_m",
        "q5_k_m",
        "q6_k",
    ),
    Format.TENSORRT: ("kit",),
}


RULE_PRECISIONS: Final[Mapping[Format, tuple[str, ...]]] = {
    **PRECISIONS,
    Format.TENSORRT: ("fp32", "fp16", "int8"),
}
"""What a rule may give a module: layers of a kit have precisions, the kit has none."""


class Layout(StrEnum):
    """Axis order of an image tensor; NC is a batch of vectors."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class ChannelOrder(StrEnum):
    """Order of the colour channels that the model was trained on."""

    RGB = "RGB"
    BGR = "BGR"
    GRAY = "GRAY"


class Resize(StrEnum):
    """How an image reaches the input's size.

    EXACT scales both sides independently; SHORTER_THEN_CROP scales the shorter side and crops the
    centre.
    """

    EXACT = "exact"
    SHORTER_THEN_CROP = "shorter-then-crop"


class Task(StrEnum):
    """What a model does, where its files do not say."""

    CLASSIFICATION = "classification"
    FEATURE_EXTRACTION = "feature-extraction"
    TEXT_GENERATION = "text-generation"


class Output(StrEnum):
    """What of a Hugging Face encoder becomes the output.

    MEAN_POOLED averages the last hidden states over the tokens that the attention mask keeps.
    """

    MEAN_POOLED = "mean_pooled"
    LAST_HIDDEN_STATE = "last_hidden_state"
    POOLER_OUTPUT = "pooler_output"
    LOGITS = "logits"


class Metric(StrEnum):
    """Keys of `Evidence.metrics`; all but perplexity, kld and sqnr_db... are fractions in 0..1.

    Those of sqnr_db are there where an output is a sequence: of all of it, of the median token and
    of the worst.
    """

    TOP1 = "top1"
    REFERENCE_TOP1 = "reference_top1"
    AGREEMENT = "agreement"
    COSINE_MEAN = "cosine_mean"
    COSINE_MIN = "cosine_min"
    PERPLEXITY = "perplexity"
    REFERENCE_PERPLEXITY = "reference_perplexity"
    KLD = "kld"
    SQNR_DB = "sqnr_db"
    SQNR_DB_TOKEN_MEDIAN = "sqnr_db_token_median"
    SQNR_DB_TOKEN_MIN = "sqnr_db_token_min"


class Role(StrEnum):
    """What a file of an artifact is for."""

    MODEL = "model"
    LABELS = "labels"
    TOKENIZER = "tokenizer"
    GOLDEN = "golden"
    PROGRAM = "program"


class RewriteName(StrEnum):
    """Rewrites of the float model that make integers hold; see `edgeship.calibration.equalize`."""

    ROTATE = "rotate"
    SMOOTHQUANT = "smoothquant"
    CROSS_LAYER = "cross-layer"
    HARD_SWISH = "hard-swish"
    BIAS_CORRECTION = "bias-correction"


class Place(StrEnum):
    """Where a fact was measured."""

    HOST = "host"
    EMULATED = "emulated"
    DEVICE = "device"


class Rung(StrEnum):
    """How far an artifact was proven, weakest first."""

    DECLARED = "declared"
    EXPORTED = "exported"
    LOADS = "loads"
    RUNS = "runs"
    MATCHES = "matches"
    TIMED = "timed"

    @property
    def height(self) -> int:
        """Position on the ladder, 0 for `declared`."""
        return list(Rung).index(self)


class Verdict(StrEnum):
    """What a budget says of a measurement."""

    PASS = "pass"
    FAIL = "fail"
    UNMEASURED = "unmeasured"


class RangeMethod(StrEnum):
    """How a range is solved from a tensor's statistics."""

    MIN_MAX = "min-max"
    EMA = "ema"
    PERCENTILE = "percentile"
    MSE = "mse"
    KL = "kl"
