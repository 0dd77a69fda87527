"""The undo journal of a table with several writers: it belongs to whose turn it is.

Must not know policies or rows. The file is all that the writers share: each reads what the others
have added since its own last turn, and so knows which rows are saved.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import numpy as np

from ..errors import CorruptTableError
from .files import File
from .health import Health
from .journal import Journal
from .journal_format import (
    RECORD,
    RECORDS_AT,
    START,
    Header,
    Layout,
    Link,
    decode_headers,
    record_size,
    rows_of,
)
from .seen import SeenRows
from .sharing import Turn


def _do_nothing(*_: object) -> None:
    pass


class SharedJournal(Journal):
    """The journal in `file`, to be used in one's own turn.

    Attributes
    ----------
    moved : called with the header of before and that of now when another writer has begun anew.
    """

    def __init__(
        self, file: File, table_uuid: UUID, *, power: bool, health: Health, turn: Turn
    ) -> None:
        """Take over the file, in one's own turn."""
        super().__init__(file, table_uuid, power=power, health=health)
        self.lock = self._turn = turn
        self.moved: Callable[[Header, Header], None] = _do_nothing
        turn.look = self._look

    def join(self, layout: Layout, rows: int) -> None:
        """Go on with what the others have begun."""
        self._layout, self._seen, self._link = layout, SeenRows(rows), START
        self._follow()

    def close(self) -> None:
        """Close the file; what the others did does not matter any more."""
        self._turn.look = _do_nothing
        super().close()

    def _look(self) -> None:
        if self.file.fd < 0 or self._health.failure is not None:
            return
        before = self._header
        with self._health.fatal(CorruptTableError):
            self._header, self._slot = decode_headers(self.file.read(RECORDS_AT, 0), self._uuid)
            self._size = self.file.size()
            if self._header[:2] != before[:2]:
                self._link = START
                self._seen.clear()
            self._follow()
        self.moved(before, self._header)

    def _follow(self) -> None:
        """Note which rows the others have saved."""
        while self._link.number < self._header.confirmed:
            at, commit = self._link.at, self._header.commit
            head = self.file.read(RECORD.size, at)
            size = record_size(head, self._layout, self._uuid, commit, self._link)
            if size == 0:
                raise CorruptTableError(f"{self.file.path}: record {self._link.number} is damaged")
            rows = rows_of(np.frombuffer(head, np.uint8))
            ids = np.frombuffer(self.file.read(8 * rows, at + RECORD.size), np.int64)
            self._seen.add(ids)
            checksum = int.from_bytes(head[4:8], "little")
            self._link = Link(self._link.number + 1, at + size, checksum)
