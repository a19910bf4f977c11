from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.errors import IntegrityRefused
from edgeship.targets.compatibility_files import read_file_needs
from edgeship.vocabulary import Format


def onnx_file(path: Path, *, opset: int, ir: int, domains: tuple[str, ...] = ("",)) -> Path:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    weight = helper.make_tensor("w", onnx.TensorProto.FLOAT, [50_000], b"\x08" * 200_000, raw=True)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value], [weight]
    )
    imports = [helper.make_opsetid(domain, opset + index) for index, domain in enumerate(domains)]
    model = helper.make_model(graph, opset_imports=imports, producer_name="x" * 300)
    model.ir_version = ir
    path.write_bytes(model.SerializeToString())
    return path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf_file(path: Path, types: list[int], *, version: int = 3) -> Path:
    """By ggml's docs/gguf.md: header, metadata of every shape, tensor infos."""
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("n") + struct.pack("<If", 6, 1.5),
        text("flag") + struct.pack("<I?", 7, True),
        text("scores") + struct.pack("<IIQ3f", 9, 6, 3, 0.0, 1.0, 2.0),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc"),
        text("nested") + struct.pack("<IIQIQ2B", 9, 9, 1, 0, 2, 1, 2),
    ]
    infos = [
        text(f"blk.{index}.weight") + struct.pack("<IQQIQ", 2, 32, 4, kind, 0)
        for index, kind in enumerate(types)
    ]
    header = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs))
    path.write_bytes(header + b"".join(pairs) + b"".join(infos) + bytes(64))
    return path


def test_onnx_says_its_opset_and_ir(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "model.onnx", opset=18, ir=8)
    needs = read_file_needs(file, Format.ONNX)
    assert (needs.onnx_opset, needs.onnx_ir) == (18, 8)


def test_other_domains_do_not_count(tmp_path: Path) -> None:
    domains = ("com.microsoft", "ai.onnx.ml", "", "custom")
    file = onnx_file(tmp_path / "model.onnx", opset=1, ir=10, domains=domains)
    assert read_file_needs(file, Format.ONNX).onnx_opset == 3


def test_gguf_says_its_types(tmp_path: Path) -> None:
    needs = read_file_needs(gguf_file(tmp_path / "model.gguf", [0, 12, 12, 14]), Format.GGUF)
    assert (needs.gguf_version, needs.gguf_types, needs.unknown_types) == (
        3,
        ("F32", "Q4_K", "Q6_K"),
        (),
    )


def test_a_type_that_nobody_knows_is_named_by_its_number(tmp_path: Path) -> None:
    needs = read_file_needs(gguf_file(tmp_path / "model.gguf", [2, 4, 200]), Format.GGUF)
    assert needs.unknown_types == ("type 200", "type 4")


def test_types_are_those_of_the_gguf_package(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    for kind in gguf.GGMLQuantizationType:
        needs = read_file_needs(gguf_file(tmp_path / "model.gguf", [int(kind)]), Format.GGUF)
        assert needs.gguf_types == (kind.name,)
        assert needs.unknown_types == ()


def test_gguf_of_another_writer(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("w", np.ones((2, 4), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_file_needs(file, Format.GGUF).gguf_types == ("F16",)


@pytest.mark.parametrize("format", [Format.TFLITE, Format.TENSORRT])
def test_other_formats_say_nothing_here(tmp_path: Path, format: Format) -> None:
    assert read_file_needs(tmp_path / "none", format).onnx_ir is None


@pytest.mark.parametrize("format", [Format.ONNX, Format.GGUF])
def test_no_file_is_refused(tmp_path: Path, format: Format) -> None:
    with pytest.raises(IntegrityRefused, match=f"no {format} file"):
        read_file_needs(tmp_path / "none", format)


def test_gguf_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "model.gguf", [0, 12])
    whole = file.read_bytes()[:-64]
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(IntegrityRefused):
            read_file_needs(file, Format.GGUF)


def test_gguf_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityRefused, match="version 2, not 3"):
        read_file_needs(gguf_file(tmp_path / "model.gguf", [0], version=2), Format.GGUF)


@settings(max_examples=50, deadline=None)  # each writes a file
@given(content=st.binary(max_size=200), is_gguf=st.booleans())
def test_garbage_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, is_gguf: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "garbage"
    file.write_bytes(b"GGUF\x03\0\0\0" + content if is_gguf else content)
    needs = None
    with suppress(IntegrityRefused):
        needs = read_file_needs(file, Format.GGUF if is_gguf else Format.ONNX)
    assert needs is None or needs.gguf_version == 3 or needs.onnx_opset is not None
