import gguf
import pytest

from edgeship.exporters.gguf.kinds import Kind


@pytest.mark.parametrize("kind", Kind)
def test_numbers_and_block_sizes_are_those_of_gguf(kind: Kind) -> None:
    theirs = gguf.GGMLQuantizationType[kind]
    assert kind.number == theirs
    assert (kind.block, kind.block_bytes) == gguf.GGML_QUANT_SIZES[theirs]


@pytest.mark.parametrize("kind", Kind)
def test_a_row_is_as_long_as_its_bits(kind: Kind) -> None:
    assert kind.row_bytes(512) * 8 == 512 * kind.bits_per_weight
    assert kind.is_quantized == (kind not in (Kind.F32, Kind.F16, Kind.BF16))


def test_rows_fit_in_whole_blocks_only() -> None:
    assert Kind.Q4_K.fits(768)
    assert not Kind.Q4_K.fits(384)
    assert not Kind.Q8_0.fits(0)
    with pytest.raises(ValueError, match="384 columns are no multiple of 256, the block of Q4_K"):
        Kind.Q4_K.row_bytes(384)
