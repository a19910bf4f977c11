"""Bench sampler: looks at the sensors again and again while queries run (runs on Python 3.6)."""

import threading
from typing import Any, Dict, List

from edgeship.device_tests.board.sensors import Sensors


class Sampler:
    """A context manager; `samples` has every look, and one more at its end.

    The looks are kept and told afterwards: writing them down would disturb what is timed.
    """

    def __init__(self, sensors: Sensors, period_s: float) -> None:
        self.samples: List[Dict[str, Any]] = []
        self._sensors = sensors
        self._period_s = period_s
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="sensors")
        self._thread.daemon = True

    def look(self) -> None:
        """One look now."""
        with self._lock:
            self.samples.append(self._sensors.sample())

    def __enter__(self) -> "Sampler":
        self.look()
        if self._period_s > 0:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._period_s > 0:
            self._thread.join()
        self.look()

    def _go_on(self) -> None:
        while not self._over.wait(self._period_s):
            self.look()
