"""Hard-swish: written out for LiteRT, whose delegate takes its parts in int8 and not the whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import fx

from edgeship.calibration.equalize.program import module_name
from edgeship.calibration.equalize.rewrite import Gain, NothingToRewrite
from edgeship.targets import Runtime
from edgeship.vocabulary import Format, RewriteName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Samples, Use

SIXTH: Final = float.fromhex("0x1.555558p-3")
"""The float32 above the one nearest to 1/6: more than 1/6 by 1.2e-7 of it, as rounding may be.

litert-torch 0.10.0 turns x * relu6(x + 3) * (1/6) back into HARD_SWISH, also where the constant is
on another factor's side, but only for the float32 nearest to 1/6 (measured)."""

_ATEN: Final = torch.ops.aten
_WHOLE: Final = (_ATEN.hardswish.default, _ATEN.hardswish_.default)
_MUL: Final = (_ATEN.mul.Tensor, _ATEN.mul_.Tensor)
_DIV: Final = (_ATEN.div.Tensor, _ATEN.div_.Tensor)
_ADD: Final = (_ATEN.add.Tensor, _ATEN.add_.Tensor)
_RELU6: Final = (_ATEN.relu6.default, _ATEN.relu6_.default)
_CLAMP: Final = (
    _ATEN.clamp.default,
    _ATEN.clamp_.default,
    _ATEN.hardtanh.default,
    _ATEN.hardtanh_.default,
)
_HARD_SIGMOID: Final = (_ATEN.hardsigmoid.default, _ATEN.hardsigmoid_.default)
_SAME: Final = 5e-8
"""Largest relative difference of what is 1/6 in float32: `SIXTH` is none, so that what was written
out once is left alone."""
_OLD_COST: Final = "longer with it: 1.2x in 2.14.0 on x86-64"
"""Of MobileNetV3-Small at two widths: 2.20 to 2.66 and 3.46 to 4.14 ms (measured)."""
_NAMED: Final = 5
"""Modules that a line names; of the others it gives the number."""


@dataclass(frozen=True, kw_only=True)
class HardSwishSite:
    """One hard-swish in a graph: x * relu6(x + 3) / 6 (arXiv:1905.02244, section 5.2).

    Attributes:
        root: Gives it.
        source: x.
        inner: What else it is made of, where it is written out; the last one first.
    """

    root: fx.Node
    source: fx.Node
    inner: tuple[fx.Node, ...] = ()


class HardSwish:
    """Writes each hard-swish as x * (relu6(x + 3) * 1/6) that no converter recognises.

    LiteRT's delegate has no int8 HARD_SWISH: each one runs in a plain loop and cuts the graph. Of
    its parts it takes all. MobileNetV3-Small, with 18 of them, took 1.9 times the CPU time of its
    float file before and 0.6 times after. Folding 1/6 into the layers behind would save one of the
    multiplications, but no time (measured with ai-edge-litert 2.3.0 on x86-64).
    """

    name = RewriteName.HARD_SWISH
    gain = Gain.SPEED
    is_exact = True

    def problems(self, use: Use) -> Iterator[str]:
        """See `Rewrite.problems`."""
        if use.format is not Format.TFLITE:
            yield f"it is for LiteRT, and {use.format} files run elsewhere"
        elif use.target.formats[Format.TFLITE].runtimes[0].name is not Runtime.LITERT:
            yield f"{use.target.name} has no LiteRT; in tflite_runtime hard-swish is faster whole"

    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:  # noqa: ARG002 - it needs none
        """See `Rewrite.apply`."""
        found = list(hard_swish_sites(program))
        if not found:
            reason = "the model has no hard-swish"
            raise NothingToRewrite(reason)
        sites = [site for site in found if not _is_kept(module_name(site.root), use)]
        if not sites:
            reason = "every hard-swish is in a module that stays in float"
            raise NothingToRewrite(reason)
        for site in sites:
            _write_out(program, site)
        return list(_lines(sites, len(found), use))


def hard_swish_sites(program: FloatProgram) -> Iterator[HardSwishSite]:
    """Every hard-swish, the last one first: as one operator, or in the forms that become one."""
    inside: set[fx.Node] = set()
    for node in reversed(list(program.graph.nodes)):
        if node.target in _WHOLE:
            yield HardSwishSite(root=node, source=node.args[0])
        elif node.target in (*_MUL, *_DIV) and node not in inside:
            site = _written_out(node)
            if site is not None:
                inside.update(site.inner)
                yield site


def _written_out(root: fx.Node) -> HardSwishSite | None:
    """The product of x, relu6(x + 3) and 1/6, or of x and hardsigmoid(x), in any order."""
    factors, scale, inner = _product(root)
    if len(factors) != 2:
        return None
    for source, gate in (factors, factors[::-1]):
        made = _gate(gate, source)
        if made is not None and math.isclose(scale * made[0], 1.0, rel_tol=_SAME):
            return HardSwishSite(root=root, source=source, inner=(*inner, *made[1]))
    return None


def _product(node: fx.Node) -> tuple[list[fx.Node], float, list[fx.Node]]:
    """Factors that are tensors, the product of the others, and the nodes that multiply below."""
    left, right = node.args[:2]
    if node.target in _DIV and not isinstance(right, int | float):
        return [node], 1.0, []
    factors: list[fx.Node] = []
    inner: list[fx.Node] = []
    scale = 1.0
    for item in (left, right):
        if isinstance(item, int | float):
            scale = scale / item if node.target in _DIV else scale * item
        elif isinstance(item, fx.Node):
            if item.target in (*_MUL, *_DIV) and len(item.users) == 1:
                more, factor, below = _product(item)
                factors, scale, inner = [*factors, *more], scale * factor, [*inner, item, *below]
            else:
                factors.append(item)
    return factors, scale, inner


def _gate(node: fx.Node, source: fx.Node) -> tuple[float, list[fx.Node]] | None:
    """What the gate of `source` is at most, and the nodes that make it."""
    if node.target in _HARD_SIGMOID and node.args[0] is source:
        return 1.0, [node]
    is_relu6 = node.target in _RELU6 or (node.target in _CLAMP and _limits(node) == (0, 6))
    shifted = node.args[0] if is_relu6 else None
    if not isinstance(shifted, fx.Node) or shifted.target not in _ADD or shifted.kwargs:
        return None
    return (6.0, [node, shifted]) if shifted.args == (source, 3) else None


def _limits(node: fx.Node) -> tuple[Any, Any]:
    """Least and largest value of a clamp."""
    given = dict(zip(("min", "max"), node.args[1:], strict=False))
    low, high = ({**given, **node.kwargs}.get(name) for name in ("min", "max"))
    return low, high


def _is_kept(module: str, use: Use) -> bool:
    """Whether a rule keeps it, or what it is in, in float."""
    parts = module.split(".")
    paths = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return any(fnmatchcase(path, match) for path in paths for match in use.kept_modules)


def _write_out(program: FloatProgram, site: HardSwishSite) -> None:
    root = site.root

    def add(target: object, *arguments: object) -> fx.Node:
        return program.insert(target, arguments, before=root, like=root)

    gate = add(_ATEN.relu6.default, add(_ATEN.add.Tensor, site.source, 3.0))
    product = add(_ATEN.mul.Tensor, site.source, add(_ATEN.mul.Tensor, gate, SIXTH))
    root.replace_all_uses_with(product)
    # one that works in place is no dead code to torch
    for node in (root, *site.inner):
        if not node.users:
            program.graph.erase_node(node)


def _lines(sites: Sequence[HardSwishSite], found: int, use: Use) -> Iterator[str]:
    count = "1 hard-swish" if len(sites) == 1 else f"{len(sites)} hard-swishes"
    yield (
        f"{count} written as x * (relu6(x + 3) * 0.16666668), which XNNPACK takes in int8: "
        f"{_listed(module_name(site.root) for site in reversed(sites))}"
    )
    if found > len(sites):
        yield f"{found - len(sites)} left whole, in modules that stay in float"
    for fact in use.target.formats[Format.TFLITE].runtimes:
        if fact.name is Runtime.TFLITE_RUNTIME:
            yield f"{fact.name}, which the target may have instead, takes {_OLD_COST}"


def _listed(modules: Iterable[str]) -> str:
    counts = Counter(name or "the outermost module" for name in modules)
    texts = [f"{name} ({count})" if count > 1 else name for name, count in counts.items()]
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")
