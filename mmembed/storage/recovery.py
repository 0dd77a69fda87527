"""Undoing: finding what the journal holds, and putting the rows of the last commit back.

Must not know locks, nor when it is safe to write: `directory` says so. Examining writes nothing;
putting rows back can be cut short and done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..errors import CorruptTableError
from .files import File
from .format import Superblock
from .journal_format import (
    RECORD,
    RECORDS_AT,
    START,
    Bytes,
    Header,
    Layout,
    Link,
    check_record,
    decode_headers,
    record_size,
    rows_of,
)
from .store import FloatArray, RowArray


class Undo(NamedTuple):
    """What a journal holds for the commit under way.

    Attributes
    ----------
    header : the header that counts.
    links : where each record begins.
    rows : how many rows the records hold.
    """

    header: Header
    links: tuple[Link, ...]
    rows: int


def examine_header(file: File, superblock: Superblock) -> Header:
    """Return the header of a journal.

    Raises
    ------
    CorruptTableError  it has none, or is the journal of another table or of another commit.
    """
    try:
        header, _ = decode_headers(file.read(RECORDS_AT, 0), superblock.uuid)
    except CorruptTableError as error:
        raise CorruptTableError(f"{file.path} {error}") from None
    if header.commit not in (superblock.commits, superblock.commits + 1):
        raise CorruptTableError(
            f"{file.path} is the journal of commit {header.commit}, and `super` knows "
            f"{superblock.commits}: they do not belong together, or the newest slot is lost"
        )
    return header


def examine(file: File, superblock: Superblock) -> Undo:
    """Return what must be undone, having checked all of it.

    Raises
    ------
    CorruptTableError  see `examine_header`; or records that the header confirms are damaged.
    """
    header = examine_header(file, superblock)
    links, rows = [], 0
    if header.commit == superblock.commits + 1:
        layout = Layout(superblock.columns)
        for link, record in read_records(file, layout, superblock, header.commit):
            ids, _ = layout.parts(record, rows_of(record))
            if ids.size and not 0 <= ids.min() <= ids.max() < superblock.rows:
                raise CorruptTableError(
                    f"{file.path}: record {link.number} has a row outside 0..{superblock.rows - 1}"
                )
            links.append(link)
            rows += ids.size
        if len(links) < header.confirmed:
            raise CorruptTableError(
                f"{file.path} has {len(links)} whole records and must have {header.confirmed}: it "
                "is damaged, and rows cannot be put back to the last commit"
            )
    return Undo(header, tuple(links), rows)


def read_records(
    file: File, layout: Layout, superblock: Superblock, commit: int, link: Link = START
) -> Iterator[tuple[Link, Bytes]]:
    """Yield the valid records of a commit, from `link` on: where each begins, and its bytes."""
    size = file.size()
    while True:
        head = file.read(RECORD.size, link.at)
        count = record_size(head, layout, superblock.uuid, commit, link)
        if count == 0 or count > size - link.at:
            return
        record = np.frombuffer(file.read(count, link.at), np.uint8)
        following = check_record(record, link) if record.size == count else None
        if following is None:
            return
        yield link, record
        link = following


def roll_back(
    file: File,
    undo: Undo,
    superblock: Superblock,
    put: Callable[[str, RowArray, FloatArray], None],
) -> None:
    """Put back the rows of all records: put(column, ids, what they were) is called with each."""
    layout = Layout(superblock.columns)
    records = read_records(file, layout, superblock, undo.header.commit)
    for (_, record), _ in zip(records, undo.links, strict=False):
        ids, images = layout.parts(record, rows_of(record))
        for name, image in images.items():
            put(name, ids, image)
