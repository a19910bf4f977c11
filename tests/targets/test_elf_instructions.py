import numpy as np
import pytest

from edgeship.targets.elf_instructions import ENCODINGS, feature_instructions

ASSEMBLED = """
aes      4e284820  aese v0.16b, v1.16b
aes      4e287be3  aesimc v3.16b, v31.16b
pmull    0ee2e020  pmull v0.1q, v1.1d, v2.1d
pmull    4ee2e020  pmull2 v0.1q, v1.2d, v2.2d
sha1     5e020020  sha1c q0, s1, v2.4s
sha1     5e023020  sha1su0 v0.4s, v1.4s, v2.4s
sha1     5e280883  sha1h s3, s4
sha2     5e025020  sha256h2 q0, q1, v2.4s
sha2     5e282820  sha256su0 v0.4s, v1.4s
sha2     5e026020  sha256su1 v0.4s, v1.4s, v2.4s
crc32    1ac24020  crc32b w0, w1, w2
crc32    9ac55c83  crc32cx w3, w4, x5
atomics  88a07c41  cas w0, w1, [x2]
atomics  08e0fc41  casalb w0, w1, [x2]
atomics  4860fc82  caspal x0, x1, x2, x3, [x4]
atomics  f8e08041  swpal x0, x1, [x2]
atomics  b8200041  ldadd w0, w1, [x2]
atomics  78e06041  ldumaxalh w0, w1, [x2]
lrcpc    f8bfc020  ldapr x0, [x1]
lrcpc    38bfc020  ldaprb w0, [x1]
asimdrdm 6e828420  sqrdmlah v0.4s, v1.4s, v2.4s
asimdrdm 6f72f820  sqrdmlsh v0.8h, v1.8h, v2.h[7]
fphp     1ee22820  fadd h0, h1, h2
fphp     1fc28c20  fmsub h0, h1, h2, h3
fphp     1ee02038  fcmpe h1, #0.0
asimdhp  4e420c20  fmla v0.8h, v1.8h, v2.8h
asimdhp  0ec21420  fsub v0.4h, v1.4h, v2.4h
asimdhp  4ec23420  fmin v0.8h, v1.8h, v2.8h
asimdhp  6e421c20  fmul v0.8h, v1.8h, v2.8h
asimdhp  2e423c20  fdiv v0.4h, v1.4h, v2.4h
asimdhp  4f125820  fmls v0.8h, v1.8h, v2.h[5]
asimdhp  4f329020  fmul v0.8h, v1.8h, v2.h[3]
asimddp  4e829420  sdot v0.4s, v1.16b, v2.16b
asimddp  2e9d97df  udot v31.2s, v30.8b, v29.8b
asimddp  4fbfe820  sdot v0.4s, v1.16b, v31.4b[3]
asimddp  6f82e020  udot v0.4s, v1.16b, v2.4b[0]
asimdfhm 4e22ec20  fmlal v0.4s, v1.4h, v2.4h
asimdfhm 6ea2cc20  fmlsl2 v0.4s, v1.4h, v2.4h
asimdfhm 4fb24820  fmlsl v0.4s, v1.4h, v2.h[7]
asimdfhm 6f928020  fmlal2 v0.4s, v1.4h, v2.h[1]
i8mm     4e82a420  smmla v0.4s, v1.16b, v2.16b
i8mm     6e82a420  ummla v0.4s, v1.16b, v2.16b
i8mm     4e82ac20  usmmla v0.4s, v1.16b, v2.16b
i8mm     4e829c20  usdot v0.4s, v1.16b, v2.16b
i8mm     4fa2f820  usdot v0.4s, v1.16b, v2.4b[3]
i8mm     4f02f820  sudot v0.4s, v1.16b, v2.4b[2]
bf16     6e42ec20  bfmmla v0.4s, v1.8h, v2.8h
bf16     6e42fc20  bfdot v0.4s, v1.8h, v2.8h
bf16     4f62f820  bfdot v0.4s, v1.8h, v2.2h[3]
bf16     6ec2fc20  bfmlalt v0.4s, v1.8h, v2.8h
bf16     0fd2f820  bfmlalb v0.4s, v1.8h, v2.h[5]
bf16     4ea16820  bfcvtn2 v0.8h, v1.4s
bf16     1e634020  bfcvt h0, s1
sve      2598e3e3  ptrue p3.s
sve      25a20c20  whilelo p0.s, w1, w2
sve      25221425  whilelt p5.b, x1, x2
base     8b020020  add x0, x1, x2
base     4e22cc20  fmla v0.4s, v1.4s, v2.4s
base     4e22d420  fadd v0.4s, v1.4s, v2.4s
base     0e628020  smlal v0.4s, v1.4h, v2.4h
base     885f7c20  ldxr w0, [x1]
base     8800fc41  stlxr w0, w1, [x2]
base     c8dffc20  ldar x0, [x1]
base     1b027c20  mul w0, w1, w2
base     0e22c020  smull v0.8h, v1.8b, v2.8b
base     0e22e020  pmull v0.8h, v1.8b, v2.8b
base     1e23c020  fcvt h0, s1
base     0e217820  fcvtl v0.4s, v1.4h
base     4e020020  tbl v0.16b, {v1.16b}, v2.16b
base     f9400611  ldr x17, [x16, #8]
base     94000000  bl .
base     d5380000  mrs x0, midr_el1
base     d503201f  nop
base     d65f03c0  ret
base     04e0e3e0  cntd x0
"""
"""What GNU as 2.40 makes of each instruction, and the feature by the Arm manual's own heading."""
ROWS = [line.split(maxsplit=2) for line in ASSEMBLED.strip().splitlines()]
CASAL = 0xC8E0FC41
CBZ_W16 = 0x34000070
CBZ_W17 = 0x34000071
SDOT = 0x4E829420
NOP = 0xD503201F
RESERVED = 0x61746164  # "data"


def found(*words: int) -> dict[str, list[int]]:
    hits = feature_instructions(np.array(words, np.uint32))
    return {feature: places.tolist() for feature, places in hits.items()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2])
def test_each_instruction_is_of_its_feature(row: list[str]) -> None:
    feature, word, _ = row
    assert found(int(word, 16)) == ({} if feature == "base" else {feature: [0]})


def test_every_feature_is_assembled_once_at_least() -> None:
    assert {row[0] for row in ROWS} == {*ENCODINGS, "base"}


def test_places_are_positions_over_all_blocks() -> None:
    words = np.full((1 << 20) + 5, NOP, np.uint32)
    at = [0, 7, (1 << 20) - 1, 1 << 20, (1 << 20) + 4]
    words[at] = SDOT
    assert feature_instructions(words)["asimddp"].tolist() == at


def test_outlined_atomics_are_left_out() -> None:
    assert found(NOP, CBZ_W16, CASAL) == {}
    assert found(NOP, CBZ_W17, CASAL) == {"atomics": [2]}
    assert found(CASAL) == {"atomics": [0]}


def test_words_among_data_are_none() -> None:
    assert found(RESERVED, SDOT, RESERVED, NOP) == {}
    assert found(*[NOP] * 9, SDOT, RESERVED, NOP) == {"asimddp": [9]}


def test_zeros_between_functions_are_no_data() -> None:
    assert found(0, 0, 0, SDOT, 0, 0) == {"asimddp": [3]}


def test_random_words_seldom_look_like_code() -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 1 << 18, dtype=np.uint32)
    hits = feature_instructions(words)
    # of dot products 15 and 13 bits are fixed: 8 + 32 of 2**18 words match, and 3 % of them stay
    assert len(hits.get("asimddp", ())) <= 6
