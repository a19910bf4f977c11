"""edgeship: one checkpoint in; a calibrated, measured and judged artifact out for every board."""

__version__ = "0.1.0"

__all__ = ["__version__"]
