import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeship.source.comparison_text import destination_lines, lineage_lines
from edgeship.source.destination import (
    Destination,
    estimate_weights,
    fallback_weights,
    find_destinations,
)
from edgeship.source.survey import Survey, survey_checkpoint
from edgeship.source.survey_text import survey_lines, weight_rows
from edgeship.targets import load_target, target_names
from edgeship.vocabulary import Format


def convolutional(tmp_path: Path) -> Survey:
    tensors = {f"blocks.{i}.conv.weight": torch.full((8, 8, 3, 3), i + 1.0) for i in range(2)}
    tensors["stem.bias"] = torch.ones(8)
    save_file(tensors, tmp_path / "net.safetensors")
    return survey_checkpoint(tmp_path / "net.safetensors")


def language_model(
    tmp_path: Path, *, hidden: int = 256, layers: int = 2, class_name: str = "LlamaForCausalLM"
) -> Survey:
    tensors = {"model.embed_tokens.weight": torch.randn(512, hidden)}
    for layer in range(layers):
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = torch.randn(512, hidden)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = torch.ones(hidden)
    config = {"architectures": [class_name], "model_type": "llama", "vocab_size": 512}
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors")
    return survey_checkpoint(tmp_path)


def destinations(survey: Survey) -> dict[tuple[str, Format], Destination]:
    targets = [load_target(name) for name in ("raspberry-pi-4", "jetson-orin-nano")]
    found = find_destinations(survey, targets, {Format.ONNX})
    return {(item.target, item.format): item for item in found}


def ways(survey: Survey) -> set[Format]:
    """Formats without an obstacle on the board that takes all of them."""
    return {
        item.format
        for (target, _), item in destinations(survey).items()
        if target == "jetson-orin-nano" and item.obstacle is None
    }


def test_tensors_alone_go_where_a_factory_leads(tmp_path: Path) -> None:
    survey = convolutional(tmp_path)
    assert ways(survey) == {Format.ONNX, Format.TENSORRT, Format.TFLITE}
    onnx = destinations(survey)["raspberry-pi-4", Format.ONNX]
    assert onnx.needs == "a factory that builds the module"
    assert (onnx.precision, onnx.is_makeable, onnx.fit) == ("int8", True, "fits")
    assert not destinations(survey)["raspberry-pi-4", Format.TFLITE].is_makeable


def test_a_causal_language_model_goes_to_gguf(tmp_path: Path) -> None:
    survey = language_model(tmp_path)
    assert ways(survey) == {Format.GGUF}
    assert destinations(survey)["raspberry-pi-4", Format.GGUF].precision == "q4_0"


def test_an_encoder_goes_everywhere(tmp_path: Path) -> None:
    assert ways(language_model(tmp_path, class_name="BertModel")) == set(Format)


def test_an_encoder_with_decoder_goes_nowhere(tmp_path: Path) -> None:
    assert ways(language_model(tmp_path, class_name="T5ForConditionalGeneration")) == set()


def test_what_is_quantized_already_goes_nowhere(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(4, 4, dtype=torch.int8)}, tmp_path / "q.safetensors")
    survey = survey_checkpoint(tmp_path / "q.safetensors")
    assert ways(survey) == set()
    found = destinations(survey)["raspberry-pi-4", Format.ONNX]
    assert "float checkpoint" in (found.obstacle or "")
    lines = destination_lines(survey, list(destinations(survey).values()))
    assert lines[0].startswith("no gguf, onnx, tensorrt, tflite: it is quantized already")


def test_what_a_board_does_not_take_is_the_boards_reason(tmp_path: Path) -> None:
    found = destinations(convolutional(tmp_path))["raspberry-pi-4", Format.TENSORRT]
    assert found.board_obstacle == "the board has no NVIDIA GPU"
    assert found.obstacle is None


def test_weights_have_4_2_and_1_bytes_and_vectors_4(tmp_path: Path) -> None:
    estimate = estimate_weights(convolutional(tmp_path))
    inside = 2 * 8 * 8 * 9
    assert estimate["fp32"] == 4 * (inside + 8)
    assert estimate["fp16"] == 2 * (inside + 8)
    assert estimate["int8"] == inside + 4 * 8


def test_q4_has_the_bits_of_its_blocks_and_a_larger_table(tmp_path: Path) -> None:
    estimate = estimate_weights(language_model(tmp_path))
    table, inside, vectors = 512 * 256, 2 * 512 * 256, 2 * 256
    assert estimate["q4_0"] == table / 256 * 210 + inside / 32 * 18 + 4 * vectors
    assert estimate["q4_k_m"] == int(table / 256 * 210 + inside * 4.8 / 8 + 4 * vectors)


def test_rows_that_k_quants_cannot_cut_are_told_and_weigh_more(tmp_path: Path) -> None:
    survey = language_model(tmp_path, hidden=96)
    assert fallback_weights(survey) == (3, 3)
    table, inside, vectors = 512 * 96, 2 * 512 * 96, 2 * 96
    # Q5_0 has 22 bytes for 32 weights, Q8_0 34
    assert estimate_weights(survey)["q4_k_m"] == table / 32 * 34 + inside / 32 * 22 + 4 * vectors
    lines = destination_lines(survey, list(destinations(survey).values()))
    assert any("3 of 3 weights have rows that are no multiple of 256" in line for line in lines)


@pytest.mark.parametrize(
    ("weight_bytes", "fit"), [(50, "fits"), (51, "tight"), (100, "tight"), (101, "too large")]
)
def test_half_of_the_memory_is_tight(weight_bytes: int, fit: str) -> None:
    found = Destination(
        target="board",
        format=Format.ONNX,
        precision="int8",
        memory_bytes=100,
        weight_bytes=weight_bytes,
        board_obstacle=None,
        obstacle=None,
        needs=None,
        is_makeable=True,
    )
    assert found.fit == fit
    assert found.to_json()["fit"] == fit
    line = destination_lines_of(found)
    assert (fit in line) == (fit != "fits")


def destination_lines_of(found: Destination) -> str:
    from edgeship.source.comparison_text import destination_rows

    return " ".join(destination_rows([found])[1])


def test_every_row_of_the_catalogue_has_a_line_and_marks_what_cannot_be_made(
    tmp_path: Path,
) -> None:
    survey = convolutional(tmp_path)
    targets = [load_target(name) for name in target_names()]
    lines = destination_lines(survey, find_destinations(survey, targets, {Format.ONNX}))
    text = "\n".join(lines)
    for name in target_names():
        assert f"\n{name} " in text
    assert "* this version makes no tensorrt, tflite yet" in lines
    assert "q4_0" not in text
    assert not any(line.endswith(" ") for line in lines)


def test_a_few_weights_have_a_row_each_and_many_one_for_each_role(tmp_path: Path) -> None:
    few = weight_rows(convolutional(tmp_path))
    assert [row[0] for row in few] == ["weight", "blocks.0.conv.weight", "blocks.1.conv.weight"]
    many = weight_rows(language_model(tmp_path / "hf", layers=30))
    assert many[0][:3] == ("weight", "count", "shape")
    assert many[2][:3] == ("model.layers.*.mlp.up_proj.weight", "30", "512x256")
    assert len(many) == 3


def test_lines_say_each_claim_with_its_evidence(tmp_path: Path) -> None:
    lines = survey_lines(convolutional(tmp_path))
    assert any(line.startswith("size ") and "1,160 parameters" in line for line in lines)
    assert any(line.startswith("quantized   no sign: all weights are F32") for line in lines)
    assert not any(line.endswith(" ") for line in lines)


def test_names_in_lines_cannot_move_the_cursor(tmp_path: Path) -> None:
    name = "\x1b[2J.weight"
    save_file({name: torch.ones(2, 2), "b\n.weight": torch.ones(2, 2)}, tmp_path / "w.safetensors")
    survey = survey_checkpoint(tmp_path / "w.safetensors")
    assert all(line.isprintable() for line in survey_lines(survey))


def test_lineage_lines_name_blocks_and_changed_widths(tmp_path: Path) -> None:
    language_model(tmp_path / "teacher", layers=20)
    language_model(tmp_path / "student", layers=14, hidden=128)
    survey = survey_checkpoint(tmp_path / "student", teacher=tmp_path / "teacher")
    assert survey.lineage is not None
    lines = lineage_lines(survey.lineage)
    assert lines[0].startswith("against teacher: 984,832 of")
    assert "2 kinds of weights in common, 0 with equal shapes" in lines
    assert any("512x128" in line and "512x256" in line for line in lines)
    assert any("model.layers.0" in line and "shapes differ" in line for line in lines)
    assert lines[-1] == "  and 2 more"
