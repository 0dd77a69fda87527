"""Word vectors: skip-gram with negative sampling over a table on disk.

Everything here is the library's public API. Must not know the files of a table, text or the command
line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from .. import nn, optim
from ..autograd import Tensor
from ..errors import CorpusError
from ..kernels import get_num_threads, set_num_threads
from ..storage import Table
from .batches import Batch, Sampler
from .corpus import Corpus
from .settings import Settings

ACCUMULATOR = 0.03  # first value of the optimizer's sums: keeps the first steps of a row small
LAST_LR = 0.2  # of the first


class Progress(NamedTuple):
    """How far training is.

    Attributes
    ----------
    words : words of the corpus gone through, over all epochs.
    total : words there are, over all epochs.
    loss : mean since the last report, of a pair of words and its share of noise, in nats; that of
        the last report if there was no pair since.
    lr : step size.
    seconds : since training began.
    """

    words: int
    total: int
    loss: float
    lr: float
    seconds: float


class SkipGram(nn.Module):
    """Scores of words and contexts: products of rows of a table's `weight` and `context`.

    Parameters
    ----------
    table : has the columns `weight` (the word vectors) and `context`.
    """

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.words = nn.Embedding.from_table(table, sparse=True)
        self.contexts = nn.Embedding.from_table(table, column="context", sparse=True)

    def forward(self, batch: Batch, targets: Tensor) -> Tensor:
        """Return the sum of the weighted losses of all pairs in a batch."""
        scores = self.words(batch.words) @ self.contexts(batch.others).mT
        return F.binary_cross_entropy_with_logits(
            scores, targets, weight=batch.weights, reduction="sum"
        )


def create_table(path: str | os.PathLike[str] | None, corpus: Corpus, settings: Settings) -> Table:
    """Create a table for the words of a corpus, with word2vec's initial rows.

    Its columns are `weight`, near zero, and `context`, zero. The words are saved in the folder
    `vocab` of the table, and a commit records that training is at its beginning. Raises what
    `Table.create` raises; then there is no table.
    """
    bound = 0.5 / settings.dim
    init = f"uniform({-bound!r}, {bound!r})"
    rows = len(corpus.vocabulary)
    table = Table.create(path, rows, settings.dim, init=init, seed=settings.seed)
    with contextlib.ExitStack() as on_error:
        if table.path is not None:
            on_error.callback(shutil.rmtree, table.path)
        on_error.callback(table.close, commit=False)
        table.add_column("context")
        if table.path is not None:
            corpus.vocabulary.save(table.path / "vocab")
        table.commit(step=0, metadata=_progress(_fingerprint(corpus), settings, 0, (0, 0)))
        on_error.pop_all()
    return table


def _progress(
    corpus: str, settings: Settings, words: int, place: tuple[int, int]
) -> dict[str, Any]:
    """Return what a commit records of a training: enough to go on from there."""
    return {
        "trainer": "skip-gram",
        "settings": dataclasses.asdict(settings),
        "corpus": corpus,
        "words": words,
        "place": list(place),
    }


def _fingerprint(corpus: Corpus) -> str:
    """Return what tells a corpus from another: its words and their order, and where texts end."""
    words = zlib.crc32("\n".join(corpus.vocabulary).encode())
    ids = zlib.crc32(np.ascontiguousarray(corpus.ids).data)
    ends = zlib.crc32(np.ascontiguousarray(corpus.ends).data)
    return f"{corpus.ids.size}-{words:08x}-{ids:08x}-{ends:08x}"


def recorded_settings(table: Table) -> Settings:
    """Return the settings of the training that a table's last commit is of.

    Raises
    ------
    CorpusError  it is of none.
    """
    try:
        return Settings(**table.metadata["settings"])
    except (KeyError, TypeError, ValueError):
        raise CorpusError(
            f"{table!r} has no training to go on with: `mmembed train` did not make it, or ended "
            "before its first commit"
        ) from None


def _place_of(table: Table, corpus: str, settings: Settings) -> tuple[int, int]:
    """Return the place of the batch that comes next; see `train` for what it raises."""
    if recorded_settings(table) != settings:
        raise ValueError(f"the training was begun with {recorded_settings(table)}, not {settings}")
    if table.metadata["corpus"] != corpus:
        raise CorpusError(
            f"the text is not the one that {table.path} was trained on: its words, their order or "
            "the ends of texts differ"
        )
    epoch, batch = table.metadata["place"]
    return epoch, batch


def train(
    table: Table,
    corpus: Corpus,
    settings: Settings,
    *,
    threads: int = 1,
    commit_every: float = 60.0,
    report_every: float = 0.5,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train the vectors of a table made by `create_table`, and commit them.

    Training begins where the table's last commit left it: a training that was cut short gives, when
    it is taken up again, the bits of one that was not.

    Parameters
    ----------
    threads : with more than one, one of them prepares batches and the others run kernels. Results
        do not depend on it.
    commit_every : seconds between commits.
    report_every : seconds between calls of `on_progress`.
    should_stop : asked after every step; if it says so, training ends there.

    Returns
    -------
    bool  whether training went through all epochs.

    Raises
    ------
    CorpusError  the table's training was of another text.
    ValueError   its training had other settings.
    """
    fingerprint = _fingerprint(corpus)
    place = _place_of(table, fingerprint, settings)
    model = SkipGram(table)
    optimizer = optim.RowwiseAdagrad(
        model.parameters(), settings.lr, initial_accumulator_value=ACCUMULATOR
    )
    sampler = Sampler(corpus.ids, corpus.ends, corpus.vocabulary.counts, settings)
    targets = Tensor(sampler.targets)
    total = corpus.ids.size * settings.epochs
    begin = time.monotonic()
    report, commit = _Every(report_every), _Every(commit_every)
    mean_loss, loss_sum, pairs, stopped = 0.0, 0.0, 0, False
    steps, words = table.step, table.metadata["words"]

    def tell() -> None:
        nonlocal mean_loss, loss_sum, pairs
        lr, seconds = optimizer.param_groups[0]["lr"], time.monotonic() - begin
        mean_loss = loss_sum / pairs if pairs else mean_loss
        on_progress(Progress(words, total, mean_loss, lr, seconds))
        loss_sum, pairs = 0.0, 0

    def record() -> None:
        table.commit(step=steps, metadata=_progress(fingerprint, settings, words, place))

    with _kernel_threads(max(1, threads - 1)):
        for batch in sampler.batches(ahead=threads > 1, start=place):
            words = batch.seen
            optimizer.param_groups[0]["lr"] = settings.lr * (1 - (1 - LAST_LR) * words / total)
            loss = model(batch, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            place = batch.place[0], batch.place[1] + 1
            loss_sum, pairs, steps = loss_sum + loss.item(), pairs + batch.pairs, steps + 1
            if report.is_due():
                tell()
            if commit.is_due():
                record()
            if stopped := should_stop():
                break
    if not stopped:
        words, place = total, (settings.epochs, 0)
    tell()
    record()
    return not stopped


class _Every:
    """Says when an interval has passed since it last did."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


@contextlib.contextmanager
def _kernel_threads(n: int) -> Iterator[None]:
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)
