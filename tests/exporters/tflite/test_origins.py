import pytest

from edgeship.exporters.tflite.origins import Origin, origins_from_text


@pytest.mark.parametrize(
    "module", ["", "layer1.0.conv1", "a/b", "a;b", "a|b#c", "été", "a b", 'quoted"(x', "100%"]
)
def test_a_place_gives_its_module_back(module: str) -> None:
    origin = Origin(module=module, operator="convolution")
    for text in (f"{origin}", f"{origin}12", f'loc("{origin}")', f"tfl.add;{origin}"):
        assert origins_from_text(text) == (origin,)


def test_a_fused_name_gives_all_of_its_places_in_order() -> None:
    first = Origin(module="bn1", operator="add")
    second = Origin(module="", operator="relu")
    assert origins_from_text(f"{first};{second};{first}3") == (first, second, first)
    assert origins_from_text(f"{first}{second}") == (first, second)


@pytest.mark.parametrize("text", ["", "arith.constant4", "serving_default_args_0", "a|b", "a#b"])
def test_other_names_have_no_places(text: str) -> None:
    assert origins_from_text(text) == ()
