"""Encoder: a Hugging Face directory as a torch module from tokens to one output."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.quiet import quiet_logs
from edgeship.vocabulary import Output

if TYPE_CHECKING:
    from torch import Tensor, nn

_CONFIG_NAME: Final = "config.json"
_CAUSAL: Final = "ForCausalLM"
_CLASSIFIER: Final = "ForSequenceClassification"


def architecture_of(directory: Path) -> str:
    """The class that saved the directory, by config.json: `BertModel`.

    Raises:
        ConfigurationError: No config.json, or one that names no architecture.
    """
    path = directory / _CONFIG_NAME
    try:
        value = json.loads(path.read_bytes())
        names = value["architectures"]
        return str(names[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        problem = Problem(
            where=str(path),
            what="this is no Hugging Face model that can be read",
            expected='a JSON object with "architectures"',
            found=f"{type(error).__name__}: {error}"[:200],
            remedy="name a directory that save_pretrained() wrote",
        )
        raise ConfigurationError(problem) from error


def is_causal(directory: Path) -> bool:
    """Whether the directory holds a causal language model, which becomes gguf and nothing else."""
    return architecture_of(directory).endswith(_CAUSAL)


def load_encoder(directory: Path, output: Output | None, inputs: tuple[str, ...]) -> nn.Module:
    """The model as a module from the tensors `inputs`, in their order, to one named tensor.

    Weights are read from safetensors alone, nothing is fetched, and no code of the directory runs.

    Args:
        directory: With config.json and model.safetensors, or shards and their index.
        output: What to give; None for the logits of a classifier, else the mean over tokens.
        inputs: Names of the arguments.

    Raises:
        ConfigurationError: The directory cannot be loaded, or has no such output.
    """
    from torch import nn

    is_classifier = architecture_of(directory).endswith(_CLASSIFIER)
    chosen = output or (Output.LOGITS if is_classifier else Output.MEAN_POOLED)
    model = _load(directory, is_classifier=chosen is Output.LOGITS)

    class Encoder(nn.Module):
        """Names the arguments, and gives one named tensor in place of a ModelOutput."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
            named = dict(zip(inputs, tensors, strict=True))
            result = self.model(**named)
            if chosen is not Output.MEAN_POOLED:
                return {str(chosen): result[str(chosen)]}
            mask = named["attention_mask"].unsqueeze(-1).to(result.last_hidden_state.dtype)
            total = (result.last_hidden_state * mask).sum(1)
            return {str(chosen): total / mask.sum(1).clamp(min=1e-9)}

    return Encoder()


def _load(directory: Path, *, is_classifier: bool) -> nn.Module:
    import torch

    with (
        quiet_transformers()
    ):  # the model's own code, and what that imports, is imported when it is loaded
        from transformers import AutoModel, AutoModelForSequenceClassification

        kind = AutoModelForSequenceClassification if is_classifier else AutoModel
        try:
            model: nn.Module = kind.from_pretrained(
                directory,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation="eager",  # the other forms export guards that never fire
            )
        except Exception as error:  # the vendor raises many types, from OSError to AttributeError
            problem = Problem(
                where=str(directory),
                what="transformers cannot load the model",
                expected="config.json and model.safetensors, or shards and their index",
                found=f"{type(error).__name__}: {' '.join(str(error).split())}"[:300],
                remedy="save it with save_pretrained(directory)",
            )
            raise ConfigurationError(problem) from error
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep reports and progress bars of transformers and what it imports off the user's screen."""
    from transformers.utils import logging as chatter

    had_bars = chatter.is_progress_bar_enabled()
    level = chatter.get_verbosity()
    chatter.disable_progress_bar()  # type: ignore[no-untyped-call]  # the vendor's
    chatter.set_verbosity(logging.ERROR)
    try:
        with quiet_logs():
            yield
    finally:
        chatter.set_verbosity(level)
        if had_bars:
            chatter.enable_progress_bar()  # type: ignore[no-untyped-call]  # likewise
