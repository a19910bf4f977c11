import logging
import os
import sys
import warnings

import pytest

from edgeship.exporters.tflite.silence import import_litert_torch, silent_vendors


def test_nothing_is_shown_and_everything_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    root, vendor = logging.getLogger(), logging.getLogger("vendor.of.ours")
    vendor.setLevel(logging.INFO)
    before = root.handlers[:], root.manager.disable, dict(os.environ), sys.stdout, sys.stderr
    with silent_vendors():
        logging.warning("installs a handler")  # noqa: LOG015 - what the vendor does
        vendor.error("said")
        warnings.warn("warned", stacklevel=1)
        print("printed")
    assert before == (
        root.handlers,
        root.manager.disable,
        dict(os.environ),
        sys.stdout,
        sys.stderr,
    )
    assert capfd.readouterr() == ("", "")
    assert vendor.level == logging.INFO


def test_errors_pass_through_and_settings_come_back() -> None:
    before = dict(os.environ), logging.root.manager.disable
    with pytest.raises(ValueError, match="the vendor's"), silent_vendors():
        raise ValueError("the vendor's")  # noqa: EM101 - short
    assert before == (dict(os.environ), logging.root.manager.disable)


def test_importing_leaves_loggers_and_environment(capfd: pytest.CaptureFixture[str]) -> None:
    # torch and jax set some of their own when they are first imported
    ours = ("LITERT_TORCH_SHOW_PROGRESS", "LITERT_TORCH_SILENCE_TORCH_LOGS", "TF_CPP_MIN_LOG_LEVEL")
    handlers, environment = logging.getLogger().handlers[:], [os.environ.get(name) for name in ours]
    assert import_litert_torch() is sys.modules["litert_torch"]
    assert logging.getLogger().handlers == handlers
    assert [os.environ.get(name) for name in ours] == environment
    os.write(2, b"still there\n")
    assert capfd.readouterr().err.endswith("still there\n")
