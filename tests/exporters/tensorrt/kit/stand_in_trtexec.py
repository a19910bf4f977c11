"""A stand-in for trtexec, for tests alone: obeys a release's option parser, builds nothing.

It reads `stand_in.json` beside itself: {"version", "number", "options", "kit", "fail", "int8_ms"}.
"fail" names what goes wrong, by graph: {"int8": "wrong"}. Python 3.6 and its library suffice.
Its times are invented and its outputs are copied from the kit's golden pack.
"""

# ruff: noqa: PTH100, PTH118, PTH119, PTH120, PTH123, UP006, UP035, UP045
# Python 3.6 runs it, on emulated boards too
import json
import os
import signal
import sys
import time
from typing import Any, Dict, List, Optional

HERE = os.path.dirname(os.path.abspath(__file__))
MAGIC = "STAND-IN ENGINE "
FP16_MS = 2.0

Config = Dict[str, Any]
Options = Dict[str, str]


def main(arguments: List[str]) -> int:
    with open(os.path.join(HERE, "stand_in.json")) as file:
        config = json.load(file)
    banner = "TensorRT.trtexec [TensorRT v{}] # trtexec {}".format(
        config["number"], " ".join(arguments)
    )
    sys.stdout.write("&&&& RUNNING " + banner + "\n")
    if arguments == ["--help"]:
        return 0
    options = dict(argument.partition("=")[::2] for argument in arguments)
    unknown = [name for name in options if name not in config["options"]]
    problem = f"Unknown option: {unknown[0]}" if unknown else work(config, options)
    sys.stdout.flush()
    if problem is not None:
        sys.stdout.write(f"[11/22/2026-10:00:10] [E] {problem}\n&&&& FAILED {banner}\n")
        return 1
    sys.stdout.write("&&&& PASSED " + banner + "\n")
    return 0


def work(config: Config, options: Options) -> Optional[str]:
    if "--onnx" in options:
        return build(config, options)
    with open(options["--loadEngine"]) as file:
        text = file.read()
    if not text.startswith(MAGIC):
        return "Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match"
    engine = json.loads(text[len(MAGIC) :])
    if engine["version"] != config["version"]:
        return (
            "The engine plan file is not compatible with this version of TensorRT, expecting "
            "library version {} got {}, please rebuild.".format(
                config["version"], engine["version"]
            )
        )
    if "--exportOutput" in options:
        return answer(config, options, engine)
    return bench(config, options, engine)


def build(config: Config, options: Options) -> Optional[str]:
    graph = os.path.basename(options["--onnx"]).split(".")[0]
    failure = config["fail"].get(graph)
    engine = {"version": config["version"], "graph": graph, "options": options}
    text = MAGIC + json.dumps(engine, sort_keys=True)
    if failure == "killed":  # in the middle of writing
        with open(options["--saveEngine"], "w") as file:
            file.write(text[:20])
        os.kill(os.getpid(), signal.SIGKILL)
    if failure == "hang":
        while True:
            time.sleep(60)
    if failure == "hog":  # until the kernel's killer comes: only where memory is small
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20)) * 16)
    if failure == "out of memory":
        return "Error Code 2: OutOfMemory (no further information)"
    if failure == "refused":
        return "ModelImporter.cpp:732: ERROR: importModel failed"
    if failure != "no engine":
        with open(options["--saveEngine"], "w") as file:
            file.write(text)
    with open(options["--timingCacheFile"], "a") as file:
        file.write(graph + "\n")
    return None


def answer(config: Config, options: Options, engine: Config) -> Optional[str]:
    golden = os.path.join(config["kit"], "golden")
    with open(os.path.join(golden, "golden.json")) as file:
        cases = json.load(file)["cases"]
    given = dict(part.split(":") for part in options["--loadInputs"].split(","))
    of = "artifact-on-host" if engine["graph"] == "int8" else "float-model"
    for case in cases:
        if all(
            same(os.path.join(golden, one["file"]), given[one["name"]]) for one in case["inputs"]
        ):
            entries = [one for one in case["expect"] if one["of"] == of]
            text = ", ".join(exported(golden, one, config, engine) for one in entries)
            with open(options["--exportOutput"], "w") as file:
                file.write("[\n" + text + "]\n")
            return None
    return "the inputs are those of no golden case"


def exported(golden: str, entry: Config, config: Config, engine: Config) -> str:
    """As sampleReporting.cpp writes an output: six digits."""
    from array import array

    with open(os.path.join(golden, entry["file"]), "rb") as file:
        values = array("f", file.read())
    if config["fail"].get(engine["graph"]) == "wrong":
        values = array("f", [value + 3.5 for value in values])
    elif config["fail"].get(engine["graph"]) == "nan":
        values[0] = float("nan")
    return '  {{ "name" : "{}"\n  , "dimensions" : "{}"\n  , "values" : [ {} ]\n  }}\n'.format(
        entry["name"],
        "x".join(str(size) for size in entry["shape"]),
        ", ".join(f"{value:.6g}" for value in values),
    )


def same(one: str, other: str) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        return first.read() == second.read()


def bench(config: Config, options: Options, engine: Config) -> Optional[str]:
    if config["fail"].get(engine["graph"]) == "no bench":
        return "Cuda failure: unspecified launch failure"
    middle = config["int8_ms"] if engine["graph"] == "int8" else FP16_MS
    warm_up = float(options["--warmUp"])
    rows = []
    for index in range(-2, 200):
        compute = middle * (1 + 0.0001 * (index % 7))
        row = {"startComputeMs": warm_up + index * 3.0, "computeMs": compute}
        row["latencyMs"] = compute + 0.1 if index >= 0 else 99.0
        if config["version"].startswith("8.2"):
            row["endToEndMs"] = row["latencyMs"]
        elif index < 0:
            continue
        rows.append(row)
    with open(options["--exportTimes"], "w") as file:
        json.dump(rows, file)
    sys.stdout.write(f"[11/22/2026-10:00:06] [I] Throughput: {1000 / middle} qps\n")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
