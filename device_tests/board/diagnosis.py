"""Diagnosis: which of the usual mistakes would explain what a golden pack shows.

Nothing is said where no mistake explains it, or where several do.
"""

import itertools
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.golden import Case, judge
from edgeship.device_tests.board.mistakes import changed_recipes, fitted_recipe, scaling_name
from edgeship.device_tests.board.preprocess import (
    Recipe,
    image_spec,
    input_from_pixels,
    pixels_of,
    recipe_of,
)
from edgeship.device_tests.board.runtimes import misfit
from edgeship.device_tests.board.session import Session
from edgeship.device_tests.board.tensors import real

_FITS = 1e-4
"""Of a float input's largest magnitude: float32 rounds its three steps by 1e-7 each, and another
order of them by a few of that."""
_ROUNDED = 0.75
"""Of a quantized input's scale: half a step of rounding, and what a fit to few pixels is off by."""
_MOST_SWAPPED = 4
"""Of equal inputs whose orders are tried: 24 of them."""


def diagnose(cases: List[Case], session: Session, artifact: Artifact) -> Optional[str]:
    """One sentence on the mistake that explains a failed pack; None where none is found.

    Args:
        cases: The pack's.
        session: The file, loaded.
        artifact: With the contract.
    """
    said = _of_inputs(cases, artifact)
    if said is not None:
        return said
    if artifact.manifest["format"] == "gguf":  # tokens have no preprocessing
        return None
    return _of_outputs(cases, session, artifact)


def _of_inputs(cases: List[Case], artifact: Artifact) -> Optional[str]:
    """Where raw bytes do not give the golden inputs by the manifest: what gives them."""
    spec = image_spec(artifact.inputs)
    imaged = [case for case in cases if case.raw is not None]
    if spec is None or not imaged:
        return None
    pixels = [pixels_of(case.raw, spec) for case in imaged if case.raw is not None]
    given = [case.inputs[spec["name"]] for case in imaged]
    recipe = recipe_of(spec)
    if _reproduces(recipe, pixels, given, spec):
        return None
    single = changed_recipes(recipe)
    for candidates in (single, _pairs(recipe, single)):
        fits = [name for name, one in candidates.items() if _reproduces(one, pixels, given, spec)]
        if fits:
            break
    else:
        fits = _fitted(recipe, single, pixels, given, spec)
    if len(fits) != 1:
        return None
    return f"the golden inputs were made with {fits[0]}, and the manifest says {_own_words(recipe)}"


def _fitted(
    recipe: Recipe,
    single: Dict[str, Recipe],
    pixels: List[np.ndarray],
    given: List[np.ndarray],
    spec: Dict[str, Any],
) -> List[str]:
    """Other mean and std, alone or with one more mistake; the plainest ones that fit."""
    reals = [real(values, spec).astype(np.float64) for values in given]
    largest = max(float(np.abs(values).max()) for values in reals)
    scale = spec.get("scale")
    tolerance = _ROUNDED * scale if scale is not None else _FITS * largest
    kept = _of_same_scaling(recipe, single)
    for candidates in ({"": recipe}, kept):
        fits = []
        for name, one in candidates.items():
            found, is_fit = fitted_recipe(one, pixels, reals, tolerance)
            if is_fit:
                words = scaling_name(found.mean, found.std)
                fits.append(f"{name} and {words}" if name else words)
        if fits:
            return fits
    return []


def _pairs(recipe: Recipe, single: Dict[str, Recipe]) -> Dict[str, Recipe]:
    """A known mean and std together with one mistake of another kind."""
    kept = _of_same_scaling(recipe, single)
    scaled = {name: one for name, one in single.items() if name not in kept}
    return {
        f"{name} and {words}": one._replace(mean=other.mean, std=other.std)
        for name, one in kept.items()
        for words, other in scaled.items()
    }


def _of_same_scaling(recipe: Recipe, single: Dict[str, Recipe]) -> Dict[str, Recipe]:
    return {
        name: one
        for name, one in single.items()
        if one.mean == recipe.mean and one.std == recipe.std
    }


def _reproduces(
    recipe: Recipe, pixels: List[np.ndarray], given: List[np.ndarray], spec: Dict[str, Any]
) -> bool:
    """Whether every golden input comes out, to a rounding."""
    for item, wanted in zip(pixels, given):
        own = input_from_pixels(item, spec, recipe)
        if own.shape != wanted.shape:
            return False
        if own.dtype.kind in "iu":
            if not np.array_equal(own, wanted):
                return False
        elif np.abs(own - wanted).max() > 1e-6 * np.abs(wanted).max():
            return False
    return True


def _own_words(recipe: Recipe) -> str:
    order = "grey" if len(recipe.mean) == 1 else "BGR" if recipe.is_bgr else "RGB"
    layout = "" if recipe.layout is None else ", " + recipe.layout
    return f"{order}{layout}, {scaling_name(recipe.mean, recipe.std)}"


def _of_outputs(cases: List[Case], session: Session, artifact: Artifact) -> Optional[str]:
    """Where inputs agree and outputs do not: which change of the inputs gives the outputs."""
    fits = [
        name
        for name, inputs in _alternatives(cases, artifact)
        if _matches(cases, inputs, session, artifact)
    ]
    if len(fits) != 1:
        return None
    return f"most likely {fits[0]}: with that, the outputs are the expected ones"


def _matches(
    cases: List[Case],
    inputs: List[Dict[str, np.ndarray]],
    session: Session,
    artifact: Artifact,
) -> bool:
    for case, given in zip(cases, inputs):
        if misfit(given, session.inputs) is not None:
            return False
        judged = judge(case, session.run(given), artifact)
        if not all(event["is_ok"] for event in judged):
            return False
    return True


def _alternatives(
    cases: List[Case], artifact: Artifact
) -> Iterator[Tuple[str, List[Dict[str, np.ndarray]]]]:
    """Name, and the inputs of every case with that one change."""
    for order in _orders(cases[0].inputs):
        swapped = [{key: case.inputs[order[key]] for key in order} for case in cases]
        moved = [f"{order[key]} as {key}" for key in order if order[key] != key]
        yield "the inputs are in another order ({})".format(", ".join(moved)), swapped
    spec = image_spec(artifact.inputs)
    if spec is None or any(case.raw is None for case in cases):
        return
    name = spec["name"]
    for words, recipe in changed_recipes(recipe_of(spec)).items():
        changed = []
        for case in cases:
            assert case.raw is not None  # asked above
            own = input_from_pixels(pixels_of(case.raw, spec), spec, recipe)
            changed.append(dict(case.inputs, **{name: own}))
        yield (
            f"the file takes {words}, and is given {_own_words(recipe_of(spec))}",
            changed,
        )


def _orders(inputs: Dict[str, np.ndarray]) -> Iterator[Dict[str, str]]:
    """Every other assignment of the inputs to their names: which one goes where."""
    names = sorted(inputs)
    if not 2 <= len(names) <= _MOST_SWAPPED:
        return
    for order in itertools.permutations(names):
        if list(order) != names:
            yield dict(zip(names, order))
