"""Session: a file that is open in a runtime."""

from typing import Dict, List, Optional, Tuple

import numpy as np

from edgeship.device_tests.board.stopped import Stopped, first_line, says_out_of_memory

Tensors = Dict[str, np.ndarray]
"""By name."""


class Session:
    """What every runtime's session has; what is here is of those that run in this process.

    Attributes:
        inputs: Shape and dtype by name; None where the file does not declare them.
        is_timeable: Whether a run is a query; else it is a whole process, loading included.
    """

    inputs: Optional[Dict[str, Tuple[Tuple[int, ...], str]]] = None
    is_timeable = True

    def run(self, inputs: Tensors) -> Tensors:
        """Every output."""
        raise NotImplementedError

    def answer(self, inputs: Tensors, _wanted: Dict[str, Tuple[int, ...]]) -> Tensors:
        """Outputs of at least these names, in these shapes where the runtime can choose."""
        return self.run(inputs)

    def peak_bytes(self) -> Optional[int]:
        """Largest resident size of a program that runs the file; None where this process does."""
        return None

    def close(self) -> None:
        """Free what does not go with this object."""


def refused(error: Exception) -> Stopped:
    """A runtime does not load a file: in its words, and by want of memory where it says that."""
    outcome = "out-of-memory" if says_out_of_memory(str(error)) else "refused"
    return Stopped(outcome, first_line(str(error)))


def kept_tokens(inputs: Tensors) -> List[int]:
    """The ids of `input_ids` int32[1, T] that `attention_mask` keeps, where there is one."""
    ids = inputs["input_ids"][0]
    mask = inputs.get("attention_mask")
    kept: List[int] = ids.tolist() if mask is None else ids[mask[0] != 0].tolist()
    return kept
