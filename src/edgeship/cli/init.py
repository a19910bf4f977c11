"""The arguments of `edgeship init` as answers."""

from __future__ import annotations

import argparse

from edgeship.pipeline.proposal import Answers


def answers_of(arguments: argparse.Namespace) -> Answers:
    """What the user said of the project."""
    return Answers(
        source=arguments.source,
        weights=arguments.weights,
        shape=arguments.shape,
        mean=arguments.mean,
        std=arguments.std,
        length=arguments.length,
        labels=arguments.labels,
        calibration=arguments.calibration,
        evaluation=arguments.evaluation,
        metric=arguments.metric,
        targets=tuple(arguments.target),
    )
