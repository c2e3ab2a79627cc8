"""Text from others reaches no terminal and no report as it is."""

import pytest

from orchestrator.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("optim.lr: müßig 深度", "optim.lr: müßig 深度"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b2J\x7f\x00", r"\x9b2J\x7f\x00"),
        ("one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        ("line\u2028break", r"line\u2028break"),
        ("not-utf8-\udcff", r"not-utf8-\udcff"),
        (ValueError("bad \x1b[2J"), r"bad \x1b[2J"),
        (b"\xff", r"b'\xff'"),
    ],
)
def test_what_is_not_printable_is_escaped(text: object, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode().decode() == shown


def test_a_text_of_several_lines_keeps_its_lines_alone() -> None:
    assert printable("Traceback:\n\tin f\r\x1b[1mbold\x85", lines=True) == "Traceback:\n\tin f\\r\\x1b[1mbold\\x85"


def test_a_long_text_is_cut_and_says_how_long_it_was() -> None:
    assert printable("x" * 20, limit=20) == "x" * 20
    assert printable("x" * 200_000, limit=40) == "x" * 17 + "... (200000 characters)"
    escaped = printable("\x1b" * 30, limit=40)  # each becomes four characters
    assert escaped == r"\x1b\x1b\x1b\x1b\x1b" + "... (30 characters)"
    assert len(printable("\x1b" * 1_000_000, limit=60)) == 60
