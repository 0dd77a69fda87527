"""Whether a handle may still write.

Must not know what failed. Nothing is tried again: after a failed sync the kernel takes the pages
for clean, and the next sync succeeds without them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Health:
    """What ended writing through a handle, if anything has.

    Attributes
    ----------
    failure : the first error, or None.
    """

    def __init__(self) -> None:
        """Begin in good health."""
        self.failure: BaseException | None = None

    @contextlib.contextmanager
    def fatal(self, kind: type[BaseException] = BaseException) -> Iterator[None]:
        """Let an exception of this kind that leaves the block end writing for good."""
        try:
            yield
        except kind as error:
            if self.failure is None:
                self.failure = error
            raise
