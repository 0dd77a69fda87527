"""`mmembed quantize`: a table of 8 bits made of a trained one, and how far it is off.

Must not know how rows are quantized or stored.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..storage import Table, quantization_error
from ..vocab import Vocabulary


def add_to(commands: Any) -> None:
    """Add the verb `quantize`."""
    verb = commands.add_parser("quantize", help="make a table of 8 bits, for serving")
    verb.add_argument("table")
    verb.add_argument("out", help="where the table of 8 bits will be")
    verb.add_argument("--column", default="weight", help="the rows to take [%(default)s]")
    verb.set_defaults(run=run_quantize)


def run_quantize(arguments: argparse.Namespace) -> int:
    """Make the table, and print what it takes and loses."""
    with Table.open(arguments.table) as table:
        if arguments.column not in table.columns:
            raise ValueError(
                f"no column {arguments.column!r}; there are: {', '.join(table.columns)}"
            )
        return _quantize(table, arguments.out, arguments.column)


def _quantize(table: Table, out: str, column: str) -> int:
    with table.quantize(out, column=column) as small:
        largest, usual = quantization_error(small, table, column)
        assert table.path is not None
        assert small.path is not None
        if (table.path / "vocab").is_dir():
            Vocabulary.open(table.path / "vocab").save(small.path / "vocab")
        bytes_before = table.dtype_of(column).itemsize * table.shape_of(column)[1]
        bytes_after = small.nbytes // max(1, small.rows)
        print(f"{small.path}: {small.rows} rows of {small.dim}")
        print(f"bytes per row  {bytes_before} -> {bytes_after}")
        print(f"largest error  {largest:.3g}")
        print(f"rms error      {usual:.3g}")
    return 0
