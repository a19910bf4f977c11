from __future__ import annotations

from importlib import import_module

import pytest

from edgeship.device_tests.transports.registry import TRANSPORTS


@pytest.mark.parametrize("name", TRANSPORTS)
def test_each_transport_is_where_the_registry_says(name: str) -> None:
    if name == "ssh":
        pytest.importorskip("asyncssh")
    module, _, attribute = TRANSPORTS[name].partition(":")
    transport = getattr(import_module(module), attribute)
    assert callable(transport.connect)
