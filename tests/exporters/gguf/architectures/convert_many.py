"""Runs llama.cpp's converter over several directories in one process, without their vocabulary.

usage: python convert_many.py LLAMA_CPP DIRECTORY...   writes DIRECTORY.gguf beside each
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main() -> None:
    root = Path(sys.argv[1])
    sys.path.insert(0, str(root))
    script = root / "convert_hf_to_gguf.py"
    spec = importlib.util.spec_from_file_location("convert_hf_to_gguf", script)
    assert spec is not None
    assert spec.loader is not None
    converter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converter)
    get_class = getattr(converter, "get_model_class")  # noqa: B009 - mypy knows no such module

    def without_vocabulary(*args: object, **named: object) -> type:
        found: type = get_class(*args, **named)
        found.set_vocab = lambda _: None  # type: ignore[attr-defined]  # a TextModel
        return found

    vars(converter)["get_model_class"] = without_vocabulary
    for name in sys.argv[2:]:
        sys.argv = ["convert", name, "--outtype", "f32", "--outfile", f"{name}.gguf"]
        converter.main()


main()
