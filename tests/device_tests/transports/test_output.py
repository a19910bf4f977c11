from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeship.device_tests.transports.output import Lines, Tail, last_line


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_tail_is_the_end_of_the_stream(pieces: list[bytes], limit: int) -> None:
    tail = Tail(limit)
    for piece in pieces:
        tail.feed(piece)
    assert tail.close() == b"".join(pieces)[-limit:]


@given(st.text(alphabet="aü\n", max_size=60), st.integers(1, 7))
def test_lines_do_not_depend_on_how_they_come(text: str, step: int) -> None:
    found: list[str] = []
    lines = Lines(found.append)
    stream = text.encode()
    for start in range(0, len(stream), step):
        lines.feed(stream[start : start + step])
    lines.close()
    assert found == text.removesuffix("\n").split("\n") if text else not found


def test_endless_line_comes_in_pieces() -> None:
    found: list[str] = []
    lines = Lines(found.append, limit=4)
    lines.feed(b"abcdefghij\nk")
    lines.feed(b"lmnopq\xff")
    assert lines.close() == b""
    assert found == ["abcdefghij", "klmn", "opq�"]


def test_last_line_is_not_blank() -> None:
    assert last_line(b"one\n two \n\n  \n") == "two"
    assert last_line(b" \n") is None
