"""Packages: what this Python can import, in which version, and why it cannot."""

import importlib
import importlib.util
import re
from types import ModuleType
from typing import Any, List, Optional, Tuple

from edgeship.device_tests.board.stopped import Stopped, first_line

Vendor = Any
"""A module or an object of a vendor, which have no types."""

OLDEST_NUMPY = (1, 13)
"""Ubuntu 18.04's, on which JetPack 4 stands; the modules here were run with 1.13.3."""

_NUMPY_WORDS = (
    "_ARRAY_API",
    "numpy.core.multiarray failed to import",
    "numpy._core.multiarray failed to import",
    "module compiled against API version",
    "numpy.dtype size changed",
    "numpy.ufunc size changed",
    "compiled using NumPy 1.x",
    "Numpy is not available",
)
"""What a package says that was compiled for another numpy (numpy's own words: multiarray's C API
import, cython's size check; the last is torch's)."""


def require_numpy() -> str:
    """Version of numpy; raises Stopped where there is none that can be used."""
    try:
        numpy = importlib.import_module("numpy")
    except ImportError as error:
        if getattr(error, "name", None) == "numpy":
            raise Stopped("no-numpy", "this Python has no numpy") from error
        raise Stopped(
            "wrong-numpy", "numpy is there and fails: " + first_line(str(error))
        ) from error
    except Exception as error:  # a broken installation raises anything
        text = f"{type(error).__name__}: {error}"
        raise Stopped("wrong-numpy", "numpy is there and fails: " + first_line(text)) from error
    version = str(getattr(numpy, "__version__", "without a version"))
    if numbers(version)[:2] < OLDEST_NUMPY:
        oldest = ".".join(str(part) for part in OLDEST_NUMPY)
        raise Stopped("wrong-numpy", f"numpy {version} is older than {oldest}")
    return version


def import_package(module: str, package: str) -> ModuleType:
    """Import a runtime's module; raises Stopped with what stands in the way."""
    try:
        return importlib.import_module(module)
    except MemoryError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == module.split(".")[0]:
            raise Stopped("no-runtime", f"this Python has no {package}") from error
        raise _unusable(package, error) from error
    except Exception as error:  # loaders of compiled packages raise anything
        raise _unusable(package, error) from error


def is_there(module: str) -> bool:
    """Whether there is such a package, which is not imported for that."""
    return importlib.util.find_spec(module.split(".")[0]) is not None


def version_of(package: str, module: Optional[ModuleType] = None) -> Optional[str]:
    """Version of a distribution; None where nobody says it."""
    try:
        metadata = importlib.import_module("importlib.metadata")  # Python 3.8
        return str(metadata.version(package))
    except Exception:  # none, or no such distribution
        pass
    own = getattr(module, "__version__", None)
    if own is not None:
        return str(own)
    try:
        resources = importlib.import_module("pkg_resources")
        return str(resources.get_distribution(package).version)
    except Exception:  # as above
        return None


def numbers(version: str) -> Tuple[int, ...]:
    """The leading numbers of a version: (2, 14, 0) of "2.14.0rc1"; () of none."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _unusable(package: str, error: Exception) -> Stopped:
    """A package that is there: built for another numpy, another C library, another CPU."""
    text = _whole_text(error)
    said = first_line(str(error) or text)
    if any(words in text for words in _NUMPY_WORDS):
        version = importlib.import_module("numpy").__version__
        message = f"{package} does not work with numpy {version}: {said}"
        return Stopped("wrong-numpy", message)
    return Stopped("no-runtime", f"{package} is there and cannot be imported: {said}")


def _whole_text(error: BaseException) -> str:
    """The error's text and that of those that it came from."""
    parts: List[str] = []
    found: Optional[BaseException] = error
    while found is not None and len(parts) < 8:
        parts.append(f"{type(found).__name__}: {found}")
        found = found.__cause__ or found.__context__
    return "\n".join(parts)
