from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np

from edgeship.exporters.tflite.flatbuffer import read_model
from edgeship.exporters.tflite.memory import activation_bytes

Tiny: Any = runpy.run_path(str(Path(__file__).with_name("tiny.py")))["Tiny"]


def test_a_chain_holds_what_one_operator_reads_and_writes() -> None:
    net = Tiny()
    net.activation("x", 1, 8)
    net.linear("x", np.zeros((32, 8)), np.zeros(32), "wide")
    net.linear("wide", np.zeros((2, 32)), np.zeros(2), "y")
    assert activation_bytes(read_model(net.write(["x"], ["y"]))) == 4 * (8 + 32)


def test_what_is_read_later_stays_alive() -> None:
    net = Tiny()
    net.activation("x", 1, 8)
    net.linear("x", np.zeros((8, 8)), np.zeros(8), "a")
    net.linear("a", np.zeros((32, 8)), np.zeros(32), "b")
    net.linear("b", np.zeros((8, 32)), np.zeros(8), "c")
    net.binary("ADD", "c", "x", "y")
    # while b is made: x, which the sum reads, a and b
    assert activation_bytes(read_model(net.write(["x"], ["y"]))) == 4 * (8 + 8 + 32)


def test_outputs_live_to_the_end() -> None:
    net = Tiny()
    net.activation("x", 1, 4)
    net.linear("x", np.zeros((100, 4)), np.zeros(100), "early")
    net.linear("x", np.zeros((10, 4)), np.zeros(10), "late")
    content = net.write(["x"], ["early", "late"])
    assert activation_bytes(read_model(content)) == 4 * (4 + 100 + 10)
