"""`mmembed quantize`: what it makes, says and refuses."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mmembed.cli import main
from mmembed.storage import Table
from mmembed.vocab import Vocabulary

from .commands import refusal


def test_quantize_makes_a_table_of_8_bits_with_the_words(trained, out, capsys):
    assert main(["quantize", str(trained), str(out)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("21 rows of 16")
    assert lines[1] == "bytes per row  64 -> 24"
    with Table.open(out) as small, Table.open(trained) as table:
        apart = np.abs(small[:] - table[:]).max()
        assert float(lines[2].split()[-1]) == pytest.approx(apart, rel=1e-2)
    assert list(Vocabulary.open(out / "vocab")) == list(Vocabulary.open(trained / "vocab"))
    assert main(["info", str(out)]) == 0


def test_quantize_takes_another_column(trained, out):
    assert main(["quantize", str(trained), str(out), "--column", "context"]) == 0

    with Table.open(out) as small, Table.open(trained) as table:
        np.testing.assert_allclose(small[:], table.column("context"), atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--column", "weight.rowwise_adagrad.sum"], "has one number per row"),
        (["--column", "nothing"], "no column 'nothing'"),
    ],
)
def test_columns_that_cannot_be_quantized_are_refused(trained, out, capsys, arguments, message):
    status = main(["quantize", str(trained), str(out), *arguments])

    assert message in refusal(capsys, status)
    assert not os.path.lexists(out)


def test_what_is_there_stays(trained, out, capsys):
    out.mkdir()

    assert "exists" in refusal(capsys, main(["quantize", str(trained), str(out)]))


def test_neighbors_of_a_table_of_8_bits_are_refused(trained, out, capsys):
    main(["quantize", str(trained), str(out)])
    capsys.readouterr()

    assert "holds rows of 8 bits" in refusal(capsys, main(["neighbors", str(out), "reda"]))
