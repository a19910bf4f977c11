"""Work: what one run of build_engine.py does, graph by graph."""

import argparse
import os
from typing import Any, Dict, List, Optional

from edgeship.exporters.tensorrt.kit import memory
from edgeship.exporters.tensorrt.kit.build import build_candidate, now, require_buildable
from edgeship.exporters.tensorrt.kit.choice import Choice, choose_engine, kept_choice
from edgeship.exporters.tensorrt.kit.compare import compare_engine
from edgeship.exporters.tensorrt.kit.emulation import emulation_of
from edgeship.exporters.tensorrt.kit.engines import REPORT_NAME, Record, Store, write_json
from edgeship.exporters.tensorrt.kit.events import Events
from edgeship.exporters.tensorrt.kit.kit_file import Graph, Kit, read_kit
from edgeship.exporters.tensorrt.kit.measure import measure_engines, measured_with
from edgeship.exporters.tensorrt.kit.report import Report
from edgeship.exporters.tensorrt.kit.stopped import EXIT_STATUSES, Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import spelled
from edgeship.exporters.tensorrt.kit.toolchain import Toolchain, find_toolchain
from edgeship.exporters.tensorrt.kit.trtexec import Settings

_WARM_UP_MS = 2000
_ITERATIONS = 100
"""Warm up for 2 s at least, as NVIDIA's guide to performance measurements asks; a p99 needs 100."""
_COMPARE_S = 1800.0
_LATENCY = "{}: p50 {p50_ms:.3f}, p90 {p90_ms:.3f}, p95 {p95_ms:.3f}, p99 {p99_ms:.3f} ms"


class Work:
    """Everything of one run, in order: look, build, compare, measure, choose."""

    def __init__(self, options: argparse.Namespace, child: List[str], events: Events) -> None:
        self._options = options
        self._child = child
        self._events = events
        self._emulation = emulation_of(options.root)

    def run(self) -> Dict[str, Any]:
        """Values of the last event; raises Stopped where nothing could be begun."""
        options = self._options
        kit = read_kit(os.path.abspath(options.directory))
        graphs = [one for one in kit.graphs if options.only in (None, one.name)]
        if not graphs:
            has = ", ".join(one.name for one in kit.graphs)
            message = f"this kit has no {options.only} graph: it has {has}"
            raise Stopped("refused", message)
        for graph in graphs:
            require_buildable(kit, graph)
        toolchain = find_toolchain(kit, self._child, trtexec=options.trtexec, root=options.root)
        workspace = self._workspace(kit)
        self._say_start(kit, toolchain, workspace)
        assert toolchain.sm is not None  # find_toolchain asked for it
        store = Store(os.path.abspath(options.cache), kit, toolchain.version, toolchain.sm)
        if options.check:
            return self._check(graphs, store)
        with store.lock():
            report = Report(kit, toolchain, workspace, self._emulation)
            passed = [g for g in graphs if self._serve(kit, g, toolchain, store, workspace, report)]
            if options.reuse and len(passed) == len(graphs):
                kept = kept_choice(
                    store.last_report(), report.digests, with_times=not options.no_bench
                )
                if kept.graph is not None:
                    return self._keep(kept, passed, store)
            self._measure(kit, passed, toolchain, store, report)
            names = [graph.name for graph in passed]
            choice = choose_engine(report.medians_ms, names, is_device=self._is_device(toolchain))
            return self._end(report, choice, passed, store)

    def _workspace(self, kit: Kit) -> int:
        available = memory.available_bytes(self._options.root)
        if available is not None and available < kit.memory_bytes:
            message = "{} MiB are free, and the kit's manifest asks for {} MiB".format(
                available >> 20, kit.memory_bytes >> 20
            )
            raise Stopped("out-of-memory", message)
        asked = self._options.workspace
        workspace = memory.workspace_mib(available, kit.workspace_share, asked)
        self._events.say(
            "memory", available_bytes=available, asked_mib=asked, workspace_mib=workspace
        )
        if asked is not None and workspace < asked:
            self._events.tell(f"the workspace is {workspace} MiB: a quarter of the free memory")
        return workspace

    def _say_start(self, kit: Kit, toolchain: Toolchain, workspace: int) -> None:
        version = spelled(toolchain.version)
        self._events.say(
            "tensorrt",
            version=version,
            sm=toolchain.sm,
            way=toolchain.way,
            trtexec=toolchain.trtexec,
            emulated=self._emulation,
            stand_in=toolchain.stand_in,
        )
        self._events.tell(
            f"{kit.target}: TensorRT {version} ({toolchain.way}), SM {toolchain.sm}, "
            f"workspace {workspace} MiB"
        )
        for doubt in (self._emulation, toolchain.stand_in):
            if doubt is not None:
                self._events.tell(f"nothing here is proven of a device, no latency: {doubt}")

    def _check(self, graphs: List[Graph], store: Store) -> Dict[str, Any]:
        """Say of each graph whether a good engine is there; the first bad one is the outcome."""
        bad: Optional[Stopped] = None
        for graph in graphs:
            try:
                state = "built" if store.published(graph) is not None else "not built"
            except Stopped as error:
                state, bad = error.message, bad or error
            self._events.say("engine", graph=graph.name, state=state)
            self._events.tell(f"{graph.name}: {state}")
        if bad is not None:
            raise bad
        chosen = store.last_report().get("recommended")
        engines = [store.engine(graph) for graph in graphs if graph.name == chosen]
        return {
            "outcome": "ok",
            "message": None,
            "report": None,
            "recommended": chosen if any(engines) else None,
            "engine": engines[0] if engines else None,
        }

    def _serve(
        self,
        kit: Kit,
        graph: Graph,
        toolchain: Toolchain,
        store: Store,
        workspace: int,
        report: "Report",
    ) -> bool:
        """Build an engine unless there is one, and hold it against the golden pack."""
        try:
            record = None if self._options.rebuild else self._cached(graph, store)
            is_new = record is None
            if record is None:
                self._events.tell(f"{graph.name}: building, which takes minutes")
                record = build_candidate(
                    kit,
                    graph,
                    toolchain,
                    store,
                    workspace_mib=workspace,
                    child=self._child,
                    deadline_s=self._options.deadline,
                )
            self._say_engine(graph, record, is_new=is_new)
            path = store.candidate_path(graph) if is_new else store.record_path(graph)
            self._compare(kit, graph, path, record, report)
            if is_new:
                store.publish(graph)
        except Stopped as error:
            store.clear()
            report.add_failure(graph, error)
            self._events.say(
                "failure", graph=graph.name, outcome=error.outcome, message=error.message
            )
            self._events.tell(f"{graph.name}: {error.outcome}: {error.message}")
            return False
        return True

    def _cached(self, graph: Graph, store: Store) -> Optional[Record]:
        try:
            return store.published(graph)
        except Stopped as error:
            self._events.say("engine", graph=graph.name, state=error.message)
            self._events.tell(f"{graph.name}: not used: {error.message}")
            return None

    def _say_engine(self, graph: Graph, record: Record, *, is_new: bool) -> None:
        state = "built" if is_new else "from the cache"
        self._events.say(
            "engine",
            graph=graph.name,
            state=state,
            bytes=record["bytes"],
            sha256=record["sha256"],
            build_seconds=record["build_seconds"],
        )
        text = "{}: {}, {} bytes, {} s"
        values = (graph.name, state, record["bytes"], record["build_seconds"])
        self._events.tell(text.format(*values))

    def _compare(self, kit: Kit, graph: Graph, path: str, record: Record, report: "Report") -> None:
        found = compare_engine(kit, graph, path, _COMPARE_S)
        report.add_comparison(graph, record, found)
        self._events.say(
            "compare",
            graph=graph.name,
            comparisons=found.judged,
            failed=found.failed,
            message=found.message,
            diagnosis=found.diagnosis,
        )
        if found.failed:
            message = "{} of {} comparisons fail; {}".format(
                found.failed, found.judged, found.message
            )
            if found.diagnosis is not None:
                message += "; " + found.diagnosis
            raise Stopped("mismatch", message)
        self._events.tell(f"{graph.name}: matches the golden pack in {found.judged} comparisons")

    def _measure(
        self,
        kit: Kit,
        passed: List[Graph],
        toolchain: Toolchain,
        store: Store,
        report: "Report",
    ) -> None:
        if self._options.no_bench or not passed:
            return
        settings = Settings(_WARM_UP_MS, self._options.duration, _ITERATIONS)
        report.add_settings(settings, self._options.repeats, measured_with(toolchain))
        records = {graph.name: store.record_path(graph) for graph in passed}
        try:
            found = measure_engines(kit, toolchain, records, settings, self._options.repeats)
        except Stopped as error:
            report.add_measurement_failure(error)
            self._events.say("failure", graph=None, outcome=error.outcome, message=error.message)
            self._events.tell(f"measuring: {error.outcome}: {error.message}")
            return
        for name, values in found.items():
            report.add_measurement(name, values)
            self._events.say("latency", graph=name, **values["latency"])
            if self._is_device(toolchain):
                self._events.tell(_LATENCY.format(name, **values["latency"]))

    def _is_device(self, toolchain: Toolchain) -> bool:
        return self._emulation is None and toolchain.stand_in is None

    def _keep(self, kept: Choice, passed: List[Graph], store: Store) -> Dict[str, Any]:
        self._events.tell(f"use {kept.graph}, as before: {kept.reason}")
        return {
            "outcome": "ok",
            "message": None,
            "report": store.path(REPORT_NAME),
            "recommended": kept.graph,
            "engine": _engine_of(kept, passed, store),
        }

    def _end(
        self, report: "Report", choice: Choice, passed: List[Graph], store: Store
    ) -> Dict[str, Any]:
        path = store.path(REPORT_NAME)
        write_json(path, report.to_json(choice, at=now()))
        self._events.say("recommend", graph=choice.graph, reason=choice.reason)
        self._events.tell("use {}: {}".format(choice.graph or "none", choice.reason))
        failures = sorted(report.failures, key=lambda one: EXIT_STATUSES[one.outcome])
        return {
            "outcome": failures[0].outcome if failures else "ok",
            "message": failures[0].message if failures else None,
            "report": path,
            "recommended": choice.graph,
            "engine": _engine_of(choice, passed, store),
        }


def _engine_of(choice: Choice, passed: List[Graph], store: Store) -> Optional[str]:
    """File of the chosen engine, below the cache."""
    return next((store.engine(graph) for graph in passed if graph.name == choice.graph), None)
