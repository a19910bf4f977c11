"""Report: engine_report.json, what a board says of a kit's engines."""

import os
import platform
from typing import Any, Dict, List, Optional

from edgeship.exporters.tensorrt.kit.choice import Choice
from edgeship.exporters.tensorrt.kit.compare import Comparison
from edgeship.exporters.tensorrt.kit.engines import Record
from edgeship.exporters.tensorrt.kit.kit_file import Graph, Kit, file_sha256
from edgeship.exporters.tensorrt.kit.power import ask_power_mode
from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import spelled
from edgeship.exporters.tensorrt.kit.toolchain import Toolchain
from edgeship.exporters.tensorrt.kit.trtexec import Settings

_SCHEMA = 2


class Report:
    """Collects what was found; `to_json` is the file.

    Attributes:
        failures: Each part that did not go well.
        medians_ms: Of each round, by graph.
    """

    def __init__(
        self, kit: Kit, toolchain: Toolchain, workspace_mib: int, emulation: Optional[str]
    ) -> None:
        self.failures: List[Stopped] = []
        self.medians_ms: Dict[str, List[float]] = {}
        self._kit = kit
        self._toolchain = toolchain
        self._workspace_mib = workspace_mib
        self._emulation = emulation
        self._graphs: Dict[str, Dict[str, Any]] = {}
        self._settings: Dict[str, Any] = {}

    def add_comparison(self, graph: Graph, record: Record, found: Comparison) -> None:
        """An engine that ran."""
        self._row(graph.name, graph.precision).update(
            outcome="mismatch" if found.failed else "ok",
            engine=record,
            comparison={
                "judged": found.judged,
                "failed": found.failed,
                "message": found.message,
                "diagnosis": found.diagnosis,
                "comparisons": found.comparisons,
            },
        )

    @property
    def digests(self) -> Dict[str, str]:
        """SHA-256 of the engines that match, by graph."""
        found = {name: row for name, row in self._graphs.items() if row["outcome"] == "ok"}
        return {name: row["engine"]["sha256"] for name, row in found.items()}

    def add_failure(self, graph: Graph, stopped: Stopped) -> None:
        """A graph without a good engine."""
        self.failures.append(stopped)
        row = self._row(graph.name, graph.precision)
        row.update(outcome=stopped.outcome, message=stopped.message)

    def add_settings(self, settings: Settings, repeats: int, measured_with: str) -> None:
        """How latencies are taken."""
        self._settings = {
            "measured_with": measured_with,
            "warm_up_ms": settings.warm_up_ms,
            "duration_s": settings.duration_s,
            "iterations": settings.iterations,
            "repeats": repeats,
            "streams": 1,
            "has_transfers": True,
            "has_cuda_graph": False,
            "has_spin_wait": False,
        }

    def add_measurement(self, name: str, values: Dict[str, Any]) -> None:
        """Latencies of an engine."""
        self._graphs[name].update(values)
        self.medians_ms[name] = values["round_p50_ms"]

    def add_measurement_failure(self, stopped: Stopped) -> None:
        """No latencies of any engine."""
        self.failures.append(stopped)
        self._settings.update(outcome=stopped.outcome, message=stopped.message)

    def to_json(self, choice: Choice, *, at: str) -> Dict[str, Any]:
        """The file."""
        return {
            "schema": _SCHEMA,
            "at": at,
            "artifact_id": self._kit.artifact_id,
            "target": self._kit.target,
            "board": dict(_board(), emulated=self._emulation),
            "tensorrt": {
                "version": spelled(self._toolchain.version),
                "sm": self._toolchain.sm,
                "way": self._toolchain.way,
                "stand_in": self._toolchain.stand_in,
                "trtexec": self._toolchain.trtexec,
                "trtexec_sha256": _digest(self._toolchain),
            },
            "workspace_mib": self._workspace_mib,
            "settings": self._settings or None,
            "graphs": list(self._graphs.values()),
            "recommended": choice.graph,
            "reason": choice.reason,
        }

    def _row(self, name: str, precision: str) -> Dict[str, Any]:
        empty = {"name": name, "precision": precision, "outcome": None, "message": None}
        return self._graphs.setdefault(name, empty)


def _board() -> Dict[str, Any]:
    """What this machine says of itself."""
    mode = ask_power_mode()
    return {
        "model": _text("/proc/device-tree/model"),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "l4t": _text("/etc/nv_tegra_release"),
        "python": platform.python_version(),
        "power_mode": None if mode is None else mode.name,
    }


def _text(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ") or None
    except OSError:
        return None


def _digest(toolchain: Toolchain) -> Optional[str]:
    """Which program measured: a wrapper around it is another one."""
    if toolchain.trtexec is None or not os.path.isfile(toolchain.trtexec):
        return None
    return file_sha256(toolchain.trtexec)
