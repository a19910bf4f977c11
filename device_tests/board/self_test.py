"""Self-test: the golden pack of an artifact, with whichever listed runtime the board has."""

import argparse
import json
import shutil
import sys
from typing import Dict, List, Optional

from edgeship.device_tests.board.artifact import read_artifact
from edgeship.device_tests.board.supervisor import Supervisor


def self_test(supervisor: Supervisor, options: argparse.Namespace) -> Dict[str, object]:
    """Try the manifest's runtimes in order; keys of the last event, and a line for people.

    A runtime that is older than the manifest's least counts as none. llama.cpp is tried as a
    package, then as the program.

    Raises:
        Stopped: "damaged".
    """
    artifact = read_artifact(options.artifact)
    program = options.program or shutil.which("llama-server")
    tried: List[str] = []
    for need in artifact.manifest["requires"]["any_of"]:
        programs: List[Optional[str]] = [None]
        if need["runtime"] == "llama.cpp" and program is not None:
            programs.append(program)
        for one in programs:
            found = _try(supervisor, options, need, one)
            if found["outcome"] != "no-runtime":
                return _told(found)
            tried.append(str(found["message"]))
    message = "; ".join(tried) or "the manifest lists no runtime"
    return _told({"outcome": "no-runtime", "message": message, "runtime": None})


def _try(
    supervisor: Supervisor,
    options: argparse.Namespace,
    need: Dict[str, str],
    program: Optional[str],
) -> Dict[str, object]:
    """Keys of the last event of a smoke test, and "runtime": the package with its version."""
    title: Dict[str, str] = {}

    def relay(line: bytes) -> None:
        event = json.loads(line.decode("ascii"))
        if event["event"] == "start":
            title["runtime"] = "{} {}".format(event["package"], event["version"] or "")
        supervisor.lines.relay(line)

    arguments = ["smoke", options.artifact, "--runtime", need["runtime"], "--least", need["min"]]
    arguments += ["--threads", str(options.threads)]
    if program is not None:
        arguments += ["--program", program]
    ended = supervisor.run(arguments, deadline_s=options.deadline, relay=relay)
    runtime = title.get("runtime", need["runtime"])
    return dict(ended.values, runtime=runtime, worker_peak_bytes=ended.peak_bytes)


def _told(found: Dict[str, object]) -> Dict[str, object]:
    """The same, after a line on stderr."""
    if found["outcome"] == "ok":
        line = "the golden pack matches in {}".format(found["runtime"])
    else:
        line = "{}: {}".format(found["outcome"], found["message"])
        if found.get("diagnosis") is not None:
            line += "; {}".format(found["diagnosis"])
    sys.stderr.write(f"self-test: {line}\n")
    sys.stderr.flush()
    return found
