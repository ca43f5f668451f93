"""An error is one line, always, and a typo is answered."""

from __future__ import annotations

import signal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from saccade.core.errors import Interrupted, SaccadeError, UserError, nearest, one_line, unknown

ANY = st.text(st.characters(), max_size=30)


@given(ANY, ANY, ANY)
@example("a\nb", "x\r\ny", "\u2028\x85\x1b[2J")
@example("\ud800", "\x00", "\u202e")
def test_one_line_that_every_terminal_can_print(message: str, where: str, fix: str) -> None:
    error = UserError(message, where=where, fix=fix)
    line = str(error)
    assert len(line.splitlines()) <= 1 and line.isprintable()
    line.encode()  # no lone surrogates
    assert error.to_dict() == {"message": one_line(message), "where": one_line(where), "fix": one_line(fix)}


def test_the_sentence() -> None:
    assert str(UserError("must be a file")) == "must be a file"
    assert str(UserError("must be a file", where="a.png")) == "a.png: must be a file"
    assert str(UserError("must be a file", fix="check it")) == "must be a file (check it)"
    assert str(UserError("must be\n a  file", where="a\tb", fix="check\nit")) == "a b: must be a file (check it)"
    assert one_line("größe 犬 “x”") == "größe 犬 “x”"


def test_exit_codes() -> None:
    assert SaccadeError("x").exit_code == 1 and UserError("x").exit_code == 2
    assert Interrupted(signal.SIGINT, "x").exit_code == 130 and Interrupted(signal.SIGTERM, "x").exit_code == 143
    assert issubclass(UserError, SaccadeError) and issubclass(Interrupted, SaccadeError)


@pytest.mark.parametrize(
    ("typed", "best"),
    [("resnet81", "resnet18"), ("RESNET18", "resnet18"), ("vit", "vit_tiny"), ("small", "Small_Net")],
)
def test_the_nearest_comes_first(typed: str, best: str) -> None:
    assert nearest(typed, ["resnet50", "resnet18", "vit_tiny", "Small_Net"])[0] == best


def test_unknown() -> None:
    error = unknown("split", "tset", ["train", "test", "val"], where="data")
    assert str(error).startswith("data: unknown split 'tset' (did you mean test") and error.where == "data"
    far = unknown("split", "qqqq", [f"n{i}" for i in range(9)])
    assert far.fix == "did you mean n0, n1, n2, n3, n4?"
    assert str(unknown("split", "x", [])) == "unknown split 'x'"
    assert "\n" not in str(unknown("split", "a\nb", ["train"]))
    assert len(nearest("a1", [f"a{i}" for i in range(50)])) == 5
