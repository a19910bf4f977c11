from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import numpy as np
import pytest
import torch
from torch import nn

from edgeship.errors import ExportFailed
from edgeship.runtimes.llama import LlamaRuntime, LlamaSession, system_info

models = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "tiny_text_models.py")))

IDS: Final = [1, 40, 263, 301, 17, 280, 99, 300, 265]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llama")
    models.write_llama(directory)
    models.write_llama_gguf(directory, directory / "model.gguf")
    return directory


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bert")
    models.write_bert(directory)
    models.write_bert_gguf(directory, directory / "model.gguf")
    return directory


@pytest.fixture(scope="module")
def session(llama: Path) -> LlamaSession:
    return LlamaRuntime().open(llama / "model.gguf")


@pytest.fixture(scope="module")
def encoder(bert: Path) -> LlamaSession:
    return LlamaRuntime().open(bert / "model.gguf")


@pytest.fixture(scope="module")
def reference(llama: Path) -> nn.Module:
    from transformers import LlamaForCausalLM

    model: nn.Module = LlamaForCausalLM.from_pretrained(llama, dtype=torch.float32)
    return model


def expected_logits(reference: nn.Module, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = reference(torch.tensor([ids])).logits[0].numpy()
    return logits


# Logits


def test_an_exact_session_gives_the_float_models_logits(llama: Path, reference: nn.Module) -> None:
    wanted = expected_logits(reference, IDS)
    found = LlamaSession(llama / "model.gguf", is_exact=True).logits(IDS)
    assert found.dtype == np.float32
    # float32 sums of 64 products in another order, through two layers
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_a_session_as_shipped_has_the_same_answers(
    session: LlamaSession, reference: nn.Module
) -> None:
    wanted = expected_logits(reference, IDS)
    found = session.logits(IDS)
    assert (found.argmax(1) == wanted.argmax(1)).all()
    # keys and values are float16, with 11 bits, and so are the weights of fused attention
    np.testing.assert_allclose(found, wanted, atol=2**-8 * np.abs(wanted).max())


def test_a_text_longer_than_a_batch_comes_in_parts(llama: Path, reference: nn.Module) -> None:
    ids = np.random.default_rng(0).integers(3, models.VOCABULARY, 600).tolist()
    blocks = list(LlamaSession(llama / "model.gguf", is_exact=True).logit_blocks(ids))
    assert [len(block) for block in blocks] == [512, 88]
    wanted = expected_logits(reference, ids)
    np.testing.assert_allclose(np.concatenate(blocks), wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_sequence_does_not_remember_the_one_before(session: LlamaSession) -> None:
    first = session.logits(IDS)
    session.logits(IDS[::-1])
    assert (session.logits(IDS) == first).all()


def test_greedy_tokens_are_the_float_models(session: LlamaSession, reference: nn.Module) -> None:
    ids = list(IDS)
    for _ in range(12):
        ids.append(int(expected_logits(reference, ids)[-1].argmax()))
    assert session.greedy(IDS, 12) == ids[len(IDS) :]


def test_a_token_outside_of_the_vocabulary_is_named(session: LlamaSession) -> None:
    with pytest.raises(ExportFailed, match=r"invalid token\[1\] = 320"):
        session.logits([1, models.VOCABULARY])


# Tokens


@pytest.mark.parametrize("text", ["the quick fox", " wizards  in Köln ☃", "", "a\nb\n"])
def test_tokens_are_sentencepieces(llama: Path, session: LlamaSession, text: str) -> None:
    import sentencepiece

    tokens = sentencepiece.SentencePieceProcessor(model_file=str(llama / "tokenizer.model"))
    wanted = tokens.encode(text)
    if not text.startswith(" ") and "\n" not in text:  # where SentencePiece does not tidy up
        assert session.tokenize(text) == [tokens.bos_id(), *wanted]
    assert session.tokenize(text)[1:] == session.tokenize(text, add_special=False)


def test_special_tokens_in_a_text_are_text(session: LlamaSession) -> None:
    assert 2 not in session.tokenize("</s>")


# Embeddings


def test_an_embedding_is_the_mean_of_the_last_states(bert: Path, encoder: LlamaSession) -> None:
    from transformers import BertModel

    ids = encoder.tokenize("the quick fox jumped")
    assert ids == [2, 4, 5, 6, 7, 9, 3]
    model: nn.Module = BertModel.from_pretrained(bert, add_pooling_layer=False)
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
    # ggml looks GELU up in a table of float16, whose values of about 4 are 2**-8 apart
    np.testing.assert_allclose(encoder.embed(ids), wanted, atol=2**-8)
    assert (encoder.embed("the quick fox jumped") == encoder.embed(ids)).all()


@pytest.mark.parametrize("count", [0, 65])
def test_an_encoder_refuses_more_tokens_than_positions(encoder: LlamaSession, count: int) -> None:
    with pytest.raises(ExportFailed, match=f"takes 1 to 64 tokens, and this text has {count}"):
        encoder.embed([4] * count)


def test_each_kind_of_model_gives_its_own_output(
    session: LlamaSession, encoder: LlamaSession
) -> None:
    with pytest.raises(ExportFailed, match="logits and no embeddings"):
        session.embed(IDS)
    with pytest.raises(ExportFailed, match="embeddings and no logits"):
        encoder.logits([4])
    with pytest.raises(ExportFailed, match="embeddings and no logits"):
        encoder.greedy([4], 1)


# As a session of the pipeline


def test_tokens_behind_the_mask_are_left_out(session: LlamaSession) -> None:
    ids = np.array([[*IDS, 0, 0]])
    mask = np.array([[1] * len(IDS) + [0, 0]])
    ((name, logits),) = session.run({"input_ids": ids, "attention_mask": mask}).items()
    assert name == "logits"
    assert logits.shape == (1, len(IDS) + 2, models.VOCABULARY)
    assert (logits[0, : len(IDS)] == session.logits(IDS)).all()
    assert not logits[0, len(IDS) :].any()


def test_an_encoder_gives_what_the_float_encoder_is_named(encoder: LlamaSession) -> None:
    inputs = {
        "input_ids": np.array([[2, 5, 3, 0]]),
        "attention_mask": np.array([[1, 1, 1, 0]]),
        "token_type_ids": np.zeros((1, 4), np.int64),
    }
    ((name, vector),) = encoder.run(inputs).items()
    assert name == "mean_pooled"
    assert (vector == encoder.embed([2, 5, 3])[np.newaxis]).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": np.zeros((1, 3))}, r"found image \[1, 3\]"),
        ({"input_ids": np.zeros((2, 3), np.int64)}, r"found input_ids \[2, 3\]"),
        ({"input_ids": np.array([[4, 5]]), "token_type_ids": np.array([[0, 1]])}, "types but 0"),
        ({"input_ids": np.array([[4, 5]]), "attention_mask": np.array([[0, 0]])}, "no tokens"),
        (
            {"input_ids": np.array([[4, 5, 6]]), "attention_mask": np.array([[1, 0, 1]])},
            "holes",
        ),
    ],
)
def test_other_inputs_are_refused(
    session: LlamaSession, inputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ExportFailed, match=message):
        session.run(inputs)


# Files and memory


def test_a_file_that_is_cut_off_is_refused_with_the_librarys_reason(
    llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = (llama / "model.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExportFailed, match="is not within the file bounds") as caught:
        LlamaRuntime().open(cut)
    assert caught.value.problems[0].where == str(cut)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"not a model" * 100])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ExportFailed, match="refuses the file: found") as caught:
        LlamaRuntime().open(file)
    assert caught.value.problems[0].found != "no message"


def test_nothing_of_the_library_reaches_the_screen(
    llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    LlamaRuntime().open(llama / "model.gguf", threads=2).logits(IDS)
    assert capfd.readouterr() == ("", "")


def test_buffers_are_what_the_library_allocates(llama: Path, session: LlamaSession) -> None:
    found = session.buffers(512)
    cell = 2 * models.LAYERS * models.KV_HEADS * models.WIDTH // models.HEADS * 2  # float16
    rounding = 0.005 * 2**20
    assert found.cache == pytest.approx(512 * cell, abs=2 * rounding)
    weights = sum(values.size for values in models.read_weights(llama).values()) * 4
    assert found.weights == pytest.approx(weights, abs=rounding + 4096)  # pages
    assert found.compute > 4 * 512 * models.VOCABULARY
    assert session.buffers(1024).cache == pytest.approx(1024 * cell, abs=2 * rounding)


def test_closing_twice_is_harmless(llama: Path) -> None:
    session = LlamaRuntime().open(llama / "model.gguf")
    session.logits(IDS)
    session.close()
    session.close()


def test_the_runtime_says_version_and_build() -> None:
    version = LlamaRuntime().version()
    assert version is not None
    assert version.split(".")[0].isdigit()
    assert "CPU" in system_info()
