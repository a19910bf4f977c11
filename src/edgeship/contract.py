"""What goes into a model and what comes out: names, shapes, dtypes, layout, preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeship.vocabulary import ChannelOrder, Layout, Resize


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes an input: `((uint8 / 255) - mean) / std`, then the model's layout.

    Attributes:
        size: (height, width) in pixels.
        resize: How an image of another size gets there.
        order: Channel order of the input.
        mean: Per channel, in units of 0..1.
        std: Per channel, in units of 0..1, each > 0.
    """

    size: tuple[int, int]
    resize: Resize = Resize.EXACT
    order: ChannelOrder = ChannelOrder.RGB
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def channels(self) -> int:
        """1 for GRAY, else 3."""
        return 1 if self.order is ChannelOrder.GRAY else 3

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {
            "size": list(self.size),
            "resize": str(self.resize),
            "order": str(self.order),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocess:
        """Inverse of `to_json`."""
        height, width = value["size"]
        return cls(
            size=(height, width),
            resize=Resize(value["resize"]),
            order=ChannelOrder(value["order"]),
            mean=tuple(value["mean"]),
            std=tuple(value["std"]),
        )


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: As in the file.
        shape: Static; the first axis is the batch, 1.
        dtype: numpy's name of it.
        layout: Axis order of an image.
        scale: real = scale * (stored - zero_point), where the tensor is quantized.
        zero_point: See scale.
        preprocess: How raw images become this input.
        labels: Name of the artifact's file with one label per class.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: Layout | None = None
    scale: float | None = None
    zero_point: int | None = None
    preprocess: Preprocess | None = None
    labels: str | None = None

    def to_json(self) -> dict[str, object]:
        """As in the manifest; what is not set is left out."""
        optional: dict[str, object | None] = {
            "layout": None if self.layout is None else str(self.layout),
            "scale": self.scale,
            "zero_point": self.zero_point,
            "preprocess": None if self.preprocess is None else self.preprocess.to_json(),
            "labels": self.labels,
        }
        required = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}
        return required | {key: value for key, value in optional.items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TensorSpec:
        """Inverse of `to_json`."""
        layout, preprocess = value.get("layout"), value.get("preprocess")
        return cls(
            name=value["name"],
            shape=tuple(value["shape"]),
            dtype=value["dtype"],
            layout=None if layout is None else Layout(layout),
            scale=value.get("scale"),
            zero_point=value.get("zero_point"),
            preprocess=None if preprocess is None else Preprocess.from_json(preprocess),
            labels=value.get("labels"),
        )


@dataclass(frozen=True, kw_only=True)
class Contract:
    """All inputs and outputs of a model, in the order of its signature."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Contract:
        """Inverse of `to_json`."""
        return cls(
            inputs=tuple(TensorSpec.from_json(spec) for spec in value["inputs"]),
            outputs=tuple(TensorSpec.from_json(spec) for spec in value["outputs"]),
        )
