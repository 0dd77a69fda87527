"""`mmembed info` and `mmembed neighbors`: what a table is, and which of its words are alike.

Must not know how tables are stored or searched.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

from ..errors import CorruptTableError, TableNotFoundError
from ..neighbors import nearest
from ..storage import Table
from ..vocab import Vocabulary


def add_to(commands: Any) -> None:
    """Add the verbs `info` and `neighbors`."""
    info = commands.add_parser("info", help="say what a table is")
    info.add_argument("table")
    info.add_argument("--json", action="store_true", help="as JSON, for programs")
    info.set_defaults(run=run_info)
    near = commands.add_parser("neighbors", help="list the words nearest to each word")
    near.add_argument("table")
    near.add_argument("words", nargs="+", metavar="WORD")
    near.add_argument("-k", type=int, default=10, help="how many [%(default)s]")
    near.add_argument("--json", action="store_true", help="as JSON, for programs")
    near.set_defaults(run=run_neighbors)


def open_vocabulary(table: Table) -> Vocabulary:
    """Return the words of a table on disk.

    Raises
    ------
    TableNotFoundError  it has none.
    CorruptTableError   they are damaged, or those of another table.
    """
    assert table.path is not None
    try:
        vocabulary = Vocabulary.open(table.path / "vocab")
    except FileNotFoundError:
        raise TableNotFoundError(f"{table.path} has no vocabulary; train makes one") from None
    if len(vocabulary) != table.rows:
        raise CorruptTableError(
            f"{table.path} has {table.rows} rows, its vocabulary {len(vocabulary)} words"
        )
    return vocabulary


def run_info(arguments: argparse.Namespace) -> int:
    """Print what a table is."""
    with Table.open(arguments.table) as table:
        facts = _facts(table)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        if name == "columns":
            for column, said in value.items():
                text = f"{column}: {said['shape']} {said['dtype']}, {size(said['bytes'])}"
                print(f"{'column':{width}}  {text}, starts as {said['init']}")
        elif isinstance(value, dict):
            print(f"{name:{width}}  {json.dumps(value)}")
        else:
            print(f"{name:{width}}  {size(value) if name == 'bytes on disk' else value}")
    return 0


def _facts(table: Table) -> dict[str, Any]:
    assert table.path is not None
    columns = {
        name: {
            "shape": list(table.shape_of(name)),
            "dtype": str(table.dtype_of(name)),
            "bytes": math.prod(table.shape_of(name)) * table.dtype_of(name).itemsize,
            "init": table.initial(name),
        }
        for name in table.columns
    }
    facts: dict[str, Any] = {
        "path": os.fspath(table.path),
        "rows": table.rows,
        "dim": table.dim,
        "dtype": str(table.dtype),
        "columns": columns,
        "layout": table.layout,
        "bytes on disk": sum(
            file.stat().st_blocks * 512 for file in Path(table.path).rglob("*") if file.is_file()
        ),
        "step": table.step,
        "epoch": table.epoch,
        "clean": table.clean,
        "durability": table.durability,
        "seed": table.seed,
        "uuid": str(table.uuid),
        "counters": table.counters,
        "metadata": table.metadata,
    }
    if table.record_bytes is not None:
        facts["layout"] = (
            f"records of {table.record_bytes} bytes: {', '.join(table.record_columns)}"
        )
    if (table.path / "vocab").is_dir():
        words = open_vocabulary(table)
        facts["words"] = len(words)
        facts["most frequent"] = " ".join(words.word(i) for i in range(min(10, len(words))))
    return facts


def size(count: float) -> str:
    """Return a number of bytes in three digits and a unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:  # which three digits would make 1000
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def run_neighbors(arguments: argparse.Namespace) -> int:
    """Print the nearest words of each word."""
    if arguments.k < 1:
        raise ValueError(f"-k must be at least 1, got {arguments.k}")
    with Table.open(arguments.table) as table:
        if table.quantized:
            raise ValueError(f"{table.path} holds rows of 8 bits; ask the table it was made of")
        vocabulary = open_vocabulary(table)
        ids = [vocabulary[word] for word in arguments.words]
        found = {}
        for word, row in zip(arguments.words, ids, strict=True):
            near, cosines = nearest(table, table[row][None], arguments.k, [row])
            found[word] = [
                (vocabulary.word(int(i)), round(float(c), 4))
                for i, c in zip(near[0], cosines[0], strict=True)
            ]
    if arguments.json:
        print(json.dumps(found))
        return 0
    width = max(map(len, arguments.words))
    for word, near_words in found.items():
        print(f"{word:{width}}  " + "  ".join(f"{other} {c:.2f}" for other, c in near_words))
    return 0
