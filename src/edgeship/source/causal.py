"""Causal: a Hugging Face directory of a language model as a torch module from tokens to logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.checkpoint import check_weights
from edgeship.source.encoder import architecture_of, quiet_transformers
from edgeship.source.hf_config import read_json_object
from edgeship.source.hf_directory import INDEX, WHOLE
from edgeship.vocabulary import Output

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

_HEAD: Final = "lm_head.weight"
_EMBEDDING: Final = "model.embed_tokens.weight"
_LOGIT_KEYS: Final = ("logits_scaling", "logit_scale", "final_logit_softcapping")
"""What Granite, Cohere and Gemma 2 do with the head's products (transformers, modeling_*.py)."""
_ROTARY: Final = "rotary_emb"
_SHOWN: Final = 5
_LOGITS_BYTES: Final = 64 << 20
"""A choice: of one block of `logit_blocks`."""


def load_causal(directory: Path, inputs: tuple[str, ...] = ("input_ids",)) -> nn.Module:
    """The model as a module from the tensors `inputs`, in their order, to `logits`.

    Weights stay in the type of the file, mapped and not copied, and every product is float32:
    memory is the file, which the system may drop and read again, and one layer's block. Layers may
    have other widths than `config.json` says, or no attention: those of the checkpoint count.

    Args:
        directory: With config.json and model.safetensors, or shards and their index.
        inputs: Names of the arguments: input_ids, and attention_mask.

    Raises:
        ConfigurationError: The directory cannot be loaded, or lacks a weight.
    """
    from torch import nn

    model = _load(directory)

    class Causal(nn.Module):
        """Names the arguments, and gives one named tensor in place of a ModelOutput."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
            named = dict(zip(inputs, tensors, strict=True))
            return {str(Output.LOGITS): self.model(**named, use_cache=False).logits}

    return Causal().eval().requires_grad_(requires_grad=False)


def logit_blocks(
    causal: nn.Module, ids: Sequence[int], *, threads: int = 1
) -> Iterator[np.ndarray]:
    """float32[tokens, vocabulary] after each of the ids, in order, in parts of at most 64 MiB.

    Args:
        causal: As `load_causal` gave it.
        ids: One sequence.
        threads: More than one pay only where as many cores are idle: 256 tokens of 6 layers of
            width 256 took 0.08 s of CPU with one, 0.96 s with two on two busy cores (measured).
    """
    import torch

    model: Any = causal.model
    with torch.no_grad(), torch_threads(threads):
        hidden = model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    rows = max(1, _LOGITS_BYTES // (4 * model.config.vocab_size))
    for start in range(0, len(hidden), rows):
        with torch.no_grad(), torch_threads(threads):
            block: np.ndarray = model.lm_head(hidden[start : start + rows]).numpy()
        yield block


def greedy_tokens(causal: nn.Module, ids: Sequence[int], count: int) -> list[int]:
    """The `count` most likely tokens, one by one, after a prompt; the whole is run for each."""
    given: list[int] = []
    while len(given) < count:
        *_, last = logit_blocks(causal, [*ids, *given])
        given.append(int(last[-1].argmax()))
    return given


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on so many threads while the block runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load(directory: Path) -> nn.Module:
    import torch

    name = architecture_of(directory)
    tensors = mapped_tensors(directory)
    with quiet_transformers():
        from transformers import AutoConfig, AutoModelForCausalLM

        try:
            config = AutoConfig.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
            with torch.device("meta"):
                build: Any = AutoModelForCausalLM.from_config  # without types
                model: Any = build(config, attn_implementation="eager", trust_remote_code=False)
            base, rotary = model.model, getattr(model.model, _ROTARY)
            setattr(base, _ROTARY, type(rotary)(config=config))  # its buffers are in no file
        except Exception as error:  # the vendor raises many types, from OSError to AttributeError
            problem = Problem(
                where=str(directory),
                what=f"transformers cannot build {name}",
                expected="a decoder with model.rotary_emb and lm_head, such as Llama or Qwen",
                found=f"{type(error).__name__}: {' '.join(str(error).split())}"[:300],
                remedy="save it with save_pretrained(directory)",
            )
            raise ConfigurationError(problem) from error
    _refuse_scaled_logits(config, directory)
    _fit_layers(model, tensors)
    _fill(model, tensors, directory)
    module: nn.Module = model
    return module


def _refuse_scaled_logits(config: object, directory: Path) -> None:
    """`logit_blocks` takes the head's products for the logits, which these scale or bend."""
    for key in _LOGIT_KEYS:
        value = getattr(config, key, None)
        if value not in (None, 1, 1.0):
            problem = Problem(
                where=str(directory / "config.json"),
                what=f"logits with {key} cannot be evaluated in this version",
                expected="logits as the head gives them, as of Llama or Qwen",
                found=f"{key} = {value}",
                remedy="leave the section [evaluation] out, and measure the file with llama.cpp",
            )
            raise ConfigurationError(problem)


def mapped_tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a directory's safetensors, backed by its file, which must not change.

    Raises:
        ConfigurationError: No weights in safetensors, a damaged file, a shard that is missing.
    """
    from safetensors import safe_open

    check_weights(directory)
    if (directory / WHOLE).is_file():
        with safe_open(directory / WHOLE, framework="pt") as whole:
            return {name: whole.get_tensor(name) for name in whole.keys()}  # noqa: SIM118 - no dict
    if not (directory / INDEX).is_file():
        problem = Problem(
            where=str(directory),
            what="the weights are not in safetensors",
            expected=f"{WHOLE}, or {INDEX} and its shards",
            remedy="save it with save_pretrained(directory)",
        )
        raise ConfigurationError(problem)
    weight_map: Any = read_json_object(directory / INDEX)["weight_map"]  # as just checked
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        with safe_open(directory / shard, framework="pt") as opened:
            tensors |= {
                name: opened.get_tensor(name) for name, own in weight_map.items() if own == shard
            }
    return tensors


def _fit_layers(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace layers by wide ones of the widths that are stored, and what was removed by nothing.

    Everything is on the meta device yet, so that this costs nothing.
    """
    from torch import nn

    from edgeship.source.wide_layers import NoAttention, NoFeedForward, WideEmbedding, WideLinear

    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        replacement: nn.Module | None = None
        if type(module) is nn.Linear:
            weight = tensors.get(f"{path}.weight", module.weight)
            has_bias = module.bias is not None
            replacement = WideLinear(weight.shape[1], weight.shape[0], has_bias, device="meta")
        elif type(module) is nn.Embedding:  # one that scales, as Gemma's, computes its own way
            weight = tensors.get(f"{path}.weight", module.weight)
            replacement = WideEmbedding(weight.shape[0], weight.shape[1], device="meta")
        elif name == "self_attn" and not _is_stored(path, tensors):
            replacement = NoAttention()
            model.set_submodule(f"{parent}.input_layernorm", nn.Identity())
        elif name == "mlp" and not _is_stored(path, tensors):
            replacement = NoFeedForward()
            model.set_submodule(f"{parent}.post_attention_layernorm", nn.Identity())
        if replacement is not None and _is_in(model, path):
            model.set_submodule(path, replacement)
    for module in model.modules():
        if hasattr(module, "num_key_value_groups") and hasattr(module, "q_proj"):
            attention: Any = module
            rows = attention.q_proj.out_features
            attention.num_key_value_groups = rows // attention.k_proj.out_features


def _is_stored(path: str, tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(f"{path}.") for name in tensors)


def _is_in(model: nn.Module, path: str) -> bool:
    """Whether the module is still there: its parent may have been replaced."""
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], directory: Path) -> None:
    """Put the tensors in, the small ones as float32; what is not stored is tied or missing."""
    import torch

    from edgeship.source.wide_layers import WideEmbedding, WideLinear

    config: Any = model.config
    wanted = model.state_dict()
    state = dict(tensors)
    if getattr(config, "tie_word_embeddings", False) or _HEAD not in state:
        state[_HEAD] = state.get(_EMBEDDING, torch.empty(0))
    wide = {
        f"{path}.weight"
        for path, module in model.named_modules()
        if isinstance(module, (WideLinear, WideEmbedding))
    }
    state = {
        name: tensor if name in wide else tensor.float()
        for name, tensor in state.items()
        if name in wanted
    }
    problems = [
        Problem(
            where=f"{directory}: {name}",
            what="the checkpoint does not fit its config.json",
            expected=f"a tensor {list(tensor.shape)}",
            found=str(list(state[name].shape)) if name in state else "none",
            remedy="fetch or save the model again",
        )
        for name, tensor in wanted.items()
        if name not in state or state[name].shape != tensor.shape
    ]
    if problems:
        raise ConfigurationError(*problems[:_SHOWN])
    model.load_state_dict(state, assign=True)
