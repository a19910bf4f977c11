"""Which types llama.cpp itself gives: asked twice, in two ways, of the installed libllama."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import gguf
import numpy as np
from llama_cpp import llama_cpp as llama

from edgeship.exporters.gguf.blueprint import ModelFacts

Shapes = Mapping[str, tuple[int, ...]]
"""By tensor, rows first."""
CType = Any
"""A type of ctypes, for which no public name stands."""
_POINTER: Final = ctypes.c_void_p
_SCRATCH: Final = 16 << 20
"""Bytes for the descriptions of tensors, of which ggml takes some hundred each."""


class _Description(ctypes.Structure):
    """`llama_quant_model_desc` of llama-ext.h."""

    _fields_ = (
        ("architecture", ctypes.c_char_p),
        *((name, ctypes.c_uint32) for name in ("embd", "ff", "layer", "head", "head_kv", "expert")),
        *((name, ctypes.c_uint32) for name in ("head_k", "head_v")),
    )


class _Scratch(ctypes.Structure):
    """`ggml_init_params` of ggml.h."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def _ignore(_level: int, _text: bytes, _user: object) -> None:
    """Fallbacks are told to stderr otherwise."""


_IGNORE: Final = llama.llama_log_callback(_ignore)
"""Kept, since llama.cpp keeps only its address."""


def silence() -> None:
    llama.llama_log_set(_IGNORE, ctypes.c_void_p(0))


def computed_types(
    architecture: str, facts: ModelFacts, shapes: Shapes, file_types: Sequence[int]
) -> list[dict[str, str]]:
    """By file type, the answers of `llama_quant_compute_types`, which is told names and shapes.

    Vectors and whatever else it refuses to quantize are left out. It knows of no importance.
    """
    api = _exported()
    context = api.init(_Scratch(_SCRATCH, None, True))
    description = _Description(
        architecture.encode(), facts.hidden, facts.ffn[0], facts.layers,
        facts.heads[0], facts.kv_heads[0], 0, facts.head_dim, facts.head_dim,
    )  # fmt: skip
    model = api.model(ctypes.byref(description))
    parameters = llama.llama_model_quantize_default_params()  # the state keeps their address
    state = api.state(model, ctypes.byref(parameters))
    tensors = {}
    for name, shape in shapes.items():
        sizes = (ctypes.c_int64 * len(shape))(*reversed(shape))
        tensor = api.tensor(context, 0, len(shape), sizes)
        api.name(tensor, name.encode())
        if api.allows(state, tensor):
            tensors[name] = tensor
    addresses = (ctypes.c_void_p * len(tensors))(*tensors.values())
    answers = []
    for file_type in file_types:
        types = (ctypes.c_int * len(tensors))()
        api.types(state, file_type, addresses, types, len(tensors))
        answers.append(
            {
                name: gguf.GGMLQuantizationType(number).name
                for name, number in zip(tensors, types, strict=True)
            }
        )
    api.drop_state(state)
    llama.llama_model_free(model)
    api.free(context)
    return answers


def _exported() -> SimpleNamespace:
    """C++ names are those of the pinned llama-cpp-python; they are no stable interface."""
    base = ctypes.CDLL(str(Path(llama.__file__).parent / "lib" / "libggml-base.so"))
    return SimpleNamespace(
        init=_function(base, "ggml_init", _POINTER, _Scratch),
        free=_function(base, "ggml_free", None, _POINTER),
        tensor=_function(
            base, "ggml_new_tensor", _POINTER, _POINTER, ctypes.c_int, ctypes.c_int, _POINTER
        ),
        name=_function(base, "ggml_set_name", _POINTER, _POINTER, ctypes.c_char_p),
        model=_function(
            llama._lib,
            "_Z31llama_quant_model_from_metadataPK22llama_quant_model_desc",
            _POINTER,
            _POINTER,
        ),
        state=_function(
            llama._lib,
            "_Z16llama_quant_initPK11llama_modelPK27llama_model_quantize_params",
            _POINTER,
            _POINTER,
            _POINTER,
        ),
        drop_state=_function(
            llama._lib, "_Z16llama_quant_freeP19quantize_state_impl", None, _POINTER
        ),
        allows=_function(
            llama._lib,
            "_Z38llama_quant_tensor_allows_quantizationPK19quantize_state_implPK11ggml_tensor",
            ctypes.c_bool,
            _POINTER,
            _POINTER,
        ),
        types=_function(
            llama._lib,
            "_Z25llama_quant_compute_typesP19quantize_state_impl11llama_ftypePP11ggml_tensor"
            "P9ggml_typem",
            None,
            _POINTER,
            ctypes.c_int,
            _POINTER,
            _POINTER,
            ctypes.c_size_t,
        ),
    )


def _function(
    library: ctypes.CDLL, name: str, result: CType, *arguments: CType
) -> Callable[..., Any]:
    address = ctypes.cast(getattr(library, name), _POINTER).value
    assert address, name
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def write_float_file(path: Path, architecture: str, facts: ModelFacts, shapes: Shapes) -> None:
    """A file that llama.cpp quantizes: sizes as `facts` says, random weights, no vocabulary."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(facts.layers)
    writer.add_context_length(facts.context)
    writer.add_embedding_length(facts.hidden)
    writer.add_vocab_size(facts.vocabulary)
    is_uniform = all(len(set(each)) == 1 for each in (facts.heads, facts.kv_heads, facts.ffn))
    writer.add_head_count(facts.heads[0] if is_uniform else list(facts.heads))
    writer.add_head_count_kv(facts.kv_heads[0] if is_uniform else list(facts.kv_heads))
    writer.add_feed_forward_length(facts.ffn[0] if is_uniform else list(facts.ffn))
    writer.add_key_length(facts.head_dim)
    writer.add_value_length(facts.head_dim)
    writer.add_rope_dimension_count(facts.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("no_vocab")
    if architecture == "bert":
        writer.add_token_type_count(2)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(name, random.standard_normal(shape, np.float32) * np.float32(0.02))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize_file(source: Path, destination: Path, file_type: int, has_importance: bool) -> None:
    """llama.cpp's own quantization, with an importance matrix that is about no tensor or none."""
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = file_type, 1
    ones = (ctypes.c_float * 1)(1.0)
    entry = llama.llama_model_imatrix_data(b"none", ones, 1)
    entries = (llama.llama_model_imatrix_data * 2)(entry)
    if has_importance:
        parameters.imatrix = entries
    paths = (str(path).encode() for path in (source, destination))
    status = llama.llama_model_quantize(*paths, ctypes.byref(parameters))
    assert status == 0, f"llama_model_quantize gave {status}"


def stored_types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
