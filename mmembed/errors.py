"""The exceptions mmembed raises on purpose.

Each is also the builtin that a caller would catch. This module must not know who raises them.
"""


class MmembedError(Exception):
    """Base of every exception that mmembed defines."""


class TableExistsError(MmembedError, FileExistsError):
    """There is something already where a table was to be created."""


class TableNotFoundError(MmembedError, FileNotFoundError):
    """No table where one was to be opened."""


class CorruptTableError(MmembedError, OSError):
    """Files of a table are damaged, foreign, or do not belong together."""


class UncleanShutdownError(MmembedError, OSError):
    """The machine stopped while a table that survives only processes was open for writing."""


class UntrustedTableError(MmembedError, PermissionError):
    """Files of a table belong to another user, or others may write to them."""


class NetworkFileSystemError(MmembedError, OSError):
    """A table is on a file system that several machines may have mounted."""


class TableLockedError(MmembedError, BlockingIOError):
    """Another handle has the table open for writing."""


class ReadOnlyTableError(MmembedError, PermissionError):
    """A write to a table that was opened, or whose array was given, read-only."""


class ClosedTableError(MmembedError, ValueError):
    """A table was used after it was closed, or for writing in a process that did not open it."""


class UnwrittenRowsError(MmembedError, ValueError):
    """Rows that nobody has written are wanted as an array of the file, which does not have them."""


class TableFailedError(MmembedError, OSError):
    """A write to a table's files failed; the handle takes no more writes."""


class WriterDiedError(TableFailedError):
    """One of several writers died in the midst of a step, and the table went back to its commit."""


class CommitGoneError(MmembedError, RuntimeError):
    """The commit that a reader wants to see has been followed by another one."""


class DeltaError(MmembedError, ValueError):
    """A delta that a table cannot make, or that does not follow on from a table's commit."""


class IdTypeError(MmembedError, TypeError, RuntimeError):
    """Ids that are no integers. RuntimeError is what torch raises."""


class CorpusError(MmembedError, ValueError):
    """Text that cannot be trained on."""


class VocabularyError(MmembedError, KeyError):
    """A key that is not in the vocabulary."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class RuleError(MmembedError, TypeError):
    """A function cannot be the rule of a RowOptimizer."""


class MissingDependencyError(MmembedError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""


class CudaUnavailableError(MmembedError, RuntimeError):
    """device="cuda" was asked for where there is no GPU, no driver or no numba-cuda."""
