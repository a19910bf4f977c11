import sys
from collections.abc import Sequence
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import numpy as np
import pytest

from edgeship.contract import Contract, TensorSpec
from edgeship.device_tests.smoke.result import Outcome
from edgeship.device_tests.smoke.run import smoke
from edgeship.device_tests.smoke.sample import TokenSample
from edgeship.device_tests.transports.local import LocalTransport
from edgeship.evaluate.golden_tokens import TokenCase, write_token_pack

TESTS: Final = Path(__file__).parents[2]
packs = SimpleNamespace(**run_path(str(TESTS / "device_tests/board/packs.py")))
DEADLINE_S: Final = 60.0


@pytest.mark.slow
def test_a_language_model_gives_tokens_likelihoods_and_losses(tmp_path: Path) -> None:
    """Against transformers' own float model."""
    import torch
    from transformers import LlamaForCausalLM

    models = SimpleNamespace(**run_path(str(TESTS / "tiny_text_models.py")))
    models.write_llama(tmp_path)
    directory = tmp_path / "gguf-f32"
    directory.mkdir()
    models.write_llama_gguf(tmp_path, directory / "model.gguf")
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prompt = [1, 40, 263, 301, 17, 280, 99]

    def logits(ids: Sequence[int]) -> np.ndarray:
        with torch.no_grad():
            rows: np.ndarray = model(torch.tensor([list(ids)])).logits[0].numpy()
        return rows

    tokens: list[int] = []
    while len(tokens) < 8:
        tokens.append(int(logits([*prompt, *tokens])[-1].argmax()))
    after = logits(prompt)[-1]
    case = TokenCase(
        name="text",
        prompt=tuple(prompt),
        artifact=tuple(tokens),
        reference=tuple(tokens),
        artifact_logits=after,
        reference_logits=after,
    )
    write_token_pack(directory, [case])
    ids = TensorSpec(name="input_ids", shape=(1, 7), dtype="int64")
    contract = Contract(inputs=(ids,), outputs=(TensorSpec(name="logits", shape=(1, 7, 320)),))
    artifact = packs.seal(
        directory, contract, model="model.gguf", runtimes=(("llama.cpp", "0.5.0"),)
    )
    chunks = (tuple(prompt), (1, *range(20, 320, 7)))
    with LocalTransport().connect() as connection:
        found = smoke(
            connection,
            str(tmp_path),
            artifact,
            runtime="llama.cpp",
            sample=TokenSample(chunks=chunks),
            deadline_s=DEADLINE_S,
            python=sys.executable,
        )
    assert found.outcome is Outcome.OK, found
    assert {(case.kind, case.is_ok) for case in found.cases} == {
        ("tokens", None),
        ("kld", True),
        ("tokens", True),
    }
    for chunk, loss, count in zip(
        chunks, found.outputs["loss"], found.outputs["tokens"], strict=True
    ):
        rows = torch.tensor(logits(chunk)[:-1], dtype=torch.float64)
        expected = torch.nn.functional.cross_entropy(rows, torch.tensor(chunk[1:]), reduction="sum")
        assert count == len(chunk) - 1
        # keys and values are float16, with 11 bits
        assert loss[0] == pytest.approx(float(expected), rel=2**-8)
