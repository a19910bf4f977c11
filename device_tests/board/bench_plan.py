"""Bench plan: how many queries, for how long, and what goes before them (runs on Python 3.6)."""

import json
from typing import Any, Dict

_COUNTS = ("windows", "min_queries", "warm_up_queries")
_SECONDS = (
    "min_duration_s",
    "max_duration_s",
    "warm_up_limit_s",
    "heat_s",
    "sustained_s",
    "sampling_s",
)


class Plan:
    """What is run; its attributes are those of edgeship.device_tests.bench.plan.Plan."""

    def __init__(self, value: Dict[str, Any]) -> None:
        names = set(_COUNTS + _SECONDS)
        if set(value) != names:
            raise ValueError("a plan has the keys {}".format(", ".join(sorted(names))))
        for name, number in value.items():
            least = 1 if name in _COUNTS else 0
            if isinstance(number, bool) or not isinstance(number, (int, float)) or number < least:
                raise ValueError("{} is {!r}, not a number from {} on".format(name, number, least))
        self.windows = int(value["windows"])
        self.min_queries = int(value["min_queries"])
        self.warm_up_queries = int(value["warm_up_queries"])
        self.min_duration_s = float(value["min_duration_s"])
        self.max_duration_s = float(value["max_duration_s"])
        self.warm_up_limit_s = float(value["warm_up_limit_s"])
        self.heat_s = float(value["heat_s"])
        self.sustained_s = float(value["sustained_s"])
        self.sampling_s = float(value["sampling_s"])


def read_plan(text: str) -> Plan:
    """A plan from JSON text, or from the file of that name.

    Raises:
        ValueError: It is no plan.
        OSError: No such file.
    """
    if not text.lstrip().startswith("{"):
        with open(text, encoding="utf-8") as file:
            text = file.read()
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("a plan is a JSON object")
    return Plan(value)
