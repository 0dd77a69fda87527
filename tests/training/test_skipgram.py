"""Training word vectors: the loss, what is learned, what is committed, what is told."""

from __future__ import annotations

import itertools
import math
import threading

import numpy as np
import pytest

import mmembed as mm
from mmembed.errors import TableExistsError
from mmembed.neighbors import nearest
from mmembed.rows import RowGrad
from mmembed.storage import Table
from mmembed.training import Corpus, Settings, SkipGram, create_table, skipgram, train
from mmembed.vocab import Vocabulary

from . import formula

SMALL = Settings(dim=8, min_count=1, sample=0, epochs=2, block=8, blocks=4, noise=6, window=3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "words.mmembed"


def texts_of_two_worlds(texts, seed=0):
    """Texts of ten words, all of one world; the worlds have twenty words each."""
    rng = np.random.default_rng(seed)
    letters = "abcdefghijklmnopqrst"
    for number in range(texts):
        world = ("red", "blue")[number % 2]
        yield [world + letters[i] for i in rng.integers(0, 20, 10)]


def corpus_of(texts):
    return Corpus.of(texts_of_two_worlds(texts), 1)


def columns(table):
    return {name: np.array(table.column(name)) for name in table.columns}


def trained(corpus, settings, path=None, **options):
    """Train a new table; returns it, what was reported at every step, and whether all was done."""
    reports = []
    table = create_table(path, corpus, settings)
    finished = train(table, corpus, settings, report_every=0, on_progress=reports.append, **options)
    return table, reports, finished


# -- the loss --------------------------------------------------------------------------------------


def test_the_loss_is_the_formula_and_its_gradients_are_numeric_differences(backend):
    formula.check_loss(skipgram)


def test_gradients_are_rows_not_tables():
    model = SkipGram(formula.tiny_table())
    batch, targets = formula.tiny_batch()

    model(batch, mm.tensor(targets)).backward()

    assert isinstance(model.words.weight.grad, RowGrad)
    assert isinstance(model.contexts.weight.grad, RowGrad)
    assert model.words.table is model.contexts.table


def test_at_first_every_pair_and_its_noise_cost_one_bit_each():
    corpus = corpus_of(40)

    _, reports, _ = trained(corpus, SMALL)

    assert reports[0].loss == pytest.approx((1 + SMALL.negatives) * math.log(2), rel=1e-6)


# -- making a table --------------------------------------------------------------------------------


def test_a_new_table_has_words_near_zero_contexts_of_zero_and_a_vocabulary(path):
    corpus = corpus_of(40)

    with create_table(path, corpus, SMALL) as table:
        assert table.columns == ("weight", "context")
        assert table.shape == (40, 8)
        assert 0 < abs(table.column()).max() <= 0.5 / 8
        assert not table.column("context").any()
    words = Vocabulary.open(path / "vocab")
    assert list(words) == list(corpus.vocabulary)
    assert words.counts.tolist() == corpus.vocabulary.counts.tolist()


def test_a_new_table_is_the_same_in_memory_and_on_disk(path):
    corpus = corpus_of(40)

    in_memory, on_disk = create_table(None, corpus, SMALL), create_table(path, corpus, SMALL)

    np.testing.assert_array_equal(in_memory.column(), on_disk.column())
    assert in_memory.path is None
    on_disk.close()


def test_a_table_is_not_made_over_another(path):
    create_table(path, corpus_of(4), SMALL).close()

    with pytest.raises(TableExistsError):
        create_table(path, corpus_of(40), SMALL)

    assert len(Vocabulary.open(path / "vocab")) < 40


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_table_whose_words_cannot_be_saved_is_given_back(path, monkeypatch):
    monkeypatch.setattr(Vocabulary, "save", full)

    with pytest.raises(OSError, match="No space"):
        create_table(path, corpus_of(4), SMALL)

    if path.exists():
        Table.open(path, "r+").close()  # nobody holds its lock


@pytest.mark.parametrize(("owner", "name"), [(Vocabulary, "save"), (Table, "add_column")])
def test_a_table_that_cannot_be_made_whole_is_not_made(path, monkeypatch, owner, name):
    monkeypatch.setattr(owner, name, full)

    with pytest.raises(OSError, match="No space"):
        create_table(path, corpus_of(4), SMALL)

    assert not path.exists()


# -- learning --------------------------------------------------------------------------------------

LEARNING = Settings(dim=16, min_count=1, sample=0, epochs=4, block=8, blocks=16, window=3)


def test_training_lowers_the_loss():
    _, reports, finished = trained(corpus_of(600), LEARNING)

    losses = [report.loss for report in reports[:-1]]
    assert finished
    assert np.mean(losses[-10:]) < 0.8 * losses[0]


def test_words_end_up_near_words_of_their_own_world():
    corpus = corpus_of(600)
    words = list(corpus.vocabulary)

    table, _, _ = trained(corpus, LEARNING)

    for row, word in enumerate(words):
        near, _ = nearest(table.column(), table[[row]], 10, exclude=[row])
        assert {words[i][:3] for i in near[0]} == {word[:3]}


def test_without_noise_weights_training_works_too():
    settings = Settings(dim=4, min_count=1, negatives=0, epochs=1, sample=0)

    _, reports, finished = trained(corpus_of(40), settings)

    assert finished
    assert reports[0].loss == pytest.approx(math.log(2), rel=1e-6)


def test_words_that_are_too_rare_stay_as_they_are():
    texts = [["a", "b", "seldom"], ["b", "a"]] * 3
    corpus = Corpus.of([*texts, ["once"]], 2)

    table, _, finished = trained(corpus, SMALL)

    assert finished
    assert table.rows == 3


# -- the same result -------------------------------------------------------------------------------

# Large enough that kernels use more than one thread.
WIDE = Settings(dim=64, min_count=1, sample=1e-2, epochs=2, block=16, blocks=32)


@pytest.fixture(scope="module")
def wide():
    corpus = corpus_of(200)
    table, reports, _ = trained(corpus, WIDE)
    return corpus, columns(table), [report.loss for report in reports]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("on_disk", [False, True])
def test_results_are_the_same_bits_for_any_threads_in_memory_and_on_disk(
    wide, path, threads, on_disk
):
    corpus, want, losses = wide
    table, reports, _ = trained(corpus, WIDE, path if on_disk else None, threads=threads)

    found = columns(table)
    table.close()

    assert found.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(found[name], array)
    assert [report.loss for report in reports] == losses


def test_another_seed_gives_another_result():
    corpus = corpus_of(40)
    one, _, _ = trained(corpus, SMALL)
    other, _, _ = trained(corpus, Settings(**{**vars(SMALL), "seed": 1}))

    assert (one.column() != other.column()).mean() > 0.99


def test_reports_and_commits_do_not_change_the_result(path):
    corpus = corpus_of(40)
    quiet = create_table(None, corpus, SMALL)
    train(quiet, corpus, SMALL)

    busy, _, _ = trained(corpus, SMALL, path, commit_every=0)

    np.testing.assert_array_equal(busy.column(), quiet.column())
    busy.close()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_kernel_threads_is_given_back(threads, monkeypatch):
    corpus = corpus_of(4)
    before, used, running = mm.get_num_threads(), set(), threading.active_count()

    trained(corpus, SMALL, threads=threads, should_stop=lambda: used.add(mm.get_num_threads()))
    with pytest.raises(ZeroDivisionError):
        trained(corpus, SMALL, threads=threads, should_stop=lambda: 1 // 0)

    assert used == {max(1, threads - 1)}
    assert mm.get_num_threads() == before
    assert threading.active_count() <= running


# -- commits ---------------------------------------------------------------------------------------


def test_training_ends_with_a_commit(path):
    corpus = corpus_of(40)
    table, _, _ = trained(corpus, SMALL, path)
    steps, want = table.step, columns(table)
    table.close()

    with Table.open(path) as found:
        assert found.clean
        assert (found.step, found.epoch) == (steps, 2)
        assert found.metadata["corpus"].startswith("400-")
        assert found.metadata | {"corpus": ""} == {
            "trainer": "skip-gram", "settings": vars(SMALL), "words": corpus.ids.size * 2,
            "place": [2, 0], "corpus": "",
        }  # fmt: skip
        assert found.counters["weight.rowwise_adagrad.step"] == steps
        for name, array in want.items():
            np.testing.assert_array_equal(found.column(name), array)


def test_commits_come_as_often_as_asked(path):
    corpus = corpus_of(40)
    table = create_table(path, corpus, SMALL)
    seen = []

    train(
        table, corpus, SMALL, commit_every=0, report_every=0,
        on_progress=lambda report: seen.append((table.epoch, table.step, report.words)),
    )  # fmt: skip

    epochs, steps, words = zip(*seen, strict=True)
    assert table.step > 10
    assert table.epoch == table.step + 2  # at the beginning, after each step, and in the end
    assert steps == tuple(range(table.step + 1))
    assert epochs == tuple(range(1, table.step + 2))
    assert table.metadata["words"] == words[-1]
    table.close()


def test_there_is_one_commit_if_time_is_long(path):
    table, _, _ = trained(corpus_of(40), SMALL, path, commit_every=1e9)

    assert table.epoch == 2  # at the beginning and in the end
    table.close()


def test_a_step_is_told_of_in_what_is_committed_with_it(path):
    corpus = corpus_of(40)
    table = create_table(path, corpus, SMALL)
    metadata = []

    train(
        table, corpus, SMALL, commit_every=0,
        should_stop=lambda: metadata.append(table.metadata["words"]) or False,
    )  # fmt: skip

    assert metadata == sorted(set(metadata))
    assert metadata[0] == 0
    assert metadata[-1] < corpus.ids.size * 2
    table.close()


# -- stopping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stop_ends_training_after_the_step_and_commits(path, threads):
    corpus = corpus_of(40)
    asked = itertools.count(1)

    table, reports, finished = trained(
        corpus, SMALL, path, threads=threads, should_stop=lambda: next(asked) == 3
    )
    table.close()

    with Table.open(path) as found:
        assert finished is False
        assert found.clean
        assert (found.step, found.epoch) == (3, 2)
        assert 0 < found.metadata["words"] < corpus.ids.size * 2
        assert reports[-1].words == found.metadata["words"]
        assert found.counters["weight.rowwise_adagrad.step"] == 3


def test_what_was_trained_until_a_stop_is_what_would_have_been():
    corpus = corpus_of(40)
    asked, snapshots = itertools.count(1), []
    full = create_table(None, corpus, SMALL)
    train(
        full, corpus, SMALL,
        should_stop=lambda: snapshots.append(np.array(full.column())) or False,
    )  # fmt: skip

    stopped, _, _ = trained(corpus, SMALL, should_stop=lambda: next(asked) == 4)

    np.testing.assert_array_equal(stopped.column(), snapshots[3])


def test_a_failure_in_training_comes_out_and_what_was_committed_stays(path):
    corpus = corpus_of(40)
    asked = iter([False, False])
    table = create_table(path, corpus, SMALL)

    with pytest.raises(StopIteration), table:
        train(table, corpus, SMALL, commit_every=0, should_stop=lambda: next(asked))

    with Table.open(path) as found:
        assert found.step == 3


# -- progress --------------------------------------------------------------------------------------


def test_reports_go_forward_and_the_last_is_at_the_end():
    corpus = corpus_of(40)

    table, reports, _ = trained(corpus, SMALL)

    total = corpus.ids.size * 2
    words, seconds = [r.words for r in reports], [r.seconds for r in reports]
    assert len(reports) == table.step + 1
    assert {report.total for report in reports} == {total}
    assert words == sorted(words)
    assert (words[0], words[-1]) == (0, total)
    assert seconds == sorted(seconds)
    assert all(report.loss > 0 for report in reports[:-1])


def test_the_step_size_falls_evenly_to_a_fifth():
    corpus = corpus_of(40)

    _, reports, _ = trained(corpus, SMALL)

    total = corpus.ids.size * 2
    for report in reports[:-1]:
        assert report.lr == pytest.approx(SMALL.lr * (1 - 0.8 * report.words / total))
    assert 0.2 * SMALL.lr < reports[-1].lr < 0.3 * SMALL.lr


def test_a_report_tells_the_mean_since_the_last_one():
    corpus = corpus_of(40)
    every = [report.loss for report in trained(corpus, SMALL)[1]][:-1]
    pairs = [batch.pairs for batch in sampled(corpus)]
    reports = []
    table = create_table(None, corpus, SMALL)

    train(table, corpus, SMALL, report_every=1e9, on_progress=reports.append)

    assert len(reports) == 1
    assert reports[0].loss == pytest.approx(np.average(every, weights=pairs), rel=1e-6)


def sampled(corpus):
    sampler = skipgram.Sampler(corpus.ids, corpus.ends, corpus.vocabulary.counts, SMALL)
    return list(sampler.batches())


def test_the_last_report_tells_a_loss():
    _, reports, _ = trained(corpus_of(40), SMALL)

    assert reports[-1].loss > 0


# -- edges -----------------------------------------------------------------------------------------


def test_no_epochs_train_nothing_and_commit():
    corpus = corpus_of(4)
    settings = Settings(**{**vars(SMALL), "epochs": 0})
    fresh = create_table(None, corpus, settings)

    table, reports, finished = trained(corpus, settings)

    assert finished is True
    assert (table.step, table.epoch, table.metadata["words"]) == (0, 2, 0)
    assert [(report.words, report.total) for report in reports] == [(0, 0)]
    np.testing.assert_array_equal(table.column(), fresh.column())


def test_a_corpus_of_which_all_is_thinned_out_trains_nothing():
    corpus = corpus_of(4)

    table, reports, finished = trained(corpus, Settings(**{**vars(SMALL), "sample": 1e-300}))

    assert finished
    assert table.step == 0
    assert reports[-1].words == reports[-1].total == corpus.ids.size * 2


def test_a_corpus_of_one_word_can_be_trained():
    corpus = Corpus.of([["a"] * 9], 1)

    table, _, finished = trained(corpus, SMALL)

    assert finished
    assert np.isfinite(table.column()).all()
