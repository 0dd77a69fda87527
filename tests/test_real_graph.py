"""The benchmark of a real graph runs over a small one, so that it does not rot."""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import bounded
import gene_graph
import real_graph


@pytest.fixture
def database(tmp_path):
    """Eleven genes; each table relates two to things of their own, and one to what has no name."""
    file = tmp_path / "small.sqlite"
    with sqlite3.connect(file) as made:
        made.execute("create table genes (_id integer primary key, gene_id varchar)")
        made.executemany("insert into genes values (?, ?)", [(i, str(i)) for i in range(1, 12)])
        for table, column in gene_graph.TABLES:
            made.execute(f"create table {table} (_id integer, {column} varchar)")
            pairs = [(7, "a"), (3, "b"), (7, "a"), (3, "a"), (11, None)]
            made.executemany(f"insert into {table} values (?, ?)", pairs)
    made.close()
    return file


def test_a_graph_is_the_distinct_named_pairs_and_things_are_apart_from_table_to_table(database):
    graph = gene_graph.read(database)

    assert (graph.entities, graph.genes) == (11 + 2 * 20, 11)
    assert graph.triples.shape == (3 * 20, 3)
    for relation in range(20):
        here = graph.triples[graph.triples[:, 1] == relation]
        tails = {gene: set(here[here[:, 0] == gene, 2]) for gene in (2, 6)}
        assert tails[6] < tails[2] == {11 + 2 * relation, 12 + 2 * relation}


def test_a_package_that_is_not_there_or_not_the_known_one_is_refused(tmp_path):
    with pytest.raises(gene_graph.UnavailableError, match="apt-get download"):
        gene_graph.load(tmp_path)

    (tmp_path / f"{gene_graph.PACKAGE}_1_all.deb").write_bytes(b"another")

    with pytest.raises(gene_graph.UnavailableError, match=hashlib.sha256(b"another").hexdigest()):
        gene_graph.load(tmp_path)


def test_batches_of_genes_keep_what_belongs_to_a_gene_together(database):
    graph = gene_graph.read(database)

    ids, relations = next(real_graph.batches(graph.triples, graph.entities, "by gene", 32))

    heads = ids[:32]
    assert ids.shape == (32 + 32 + 4,)
    assert relations.shape == (32,)
    assert np.count_nonzero(np.diff(heads)) == 1
    shuffled, _ = next(real_graph.batches(graph.triples, graph.entities, "shuffled", 32))
    assert np.count_nonzero(np.diff(shuffled[:32])) > 1


def test_steps_on_disk_have_the_losses_and_the_bits_of_those_in_memory(database, tmp_path):
    if reason := bounded.unavailable():
        pytest.skip(reason)
    arguments = argparse.Namespace(
        dim=512, triples=32, steps=6, digest=True, orders=["by gene"], names=real_graph.NAMES
    )
    graph = gene_graph.read(database)

    runs = real_graph.measure(graph, arguments, tmp_path)["runs"]

    assert [run.get("failed") for run in runs] == [None] * 4
    assert [run["steps with another loss"] for run in runs] == [0] * 4
    assert all(run["same bits of rows and state"] for run in runs)
    first, last = runs[0]["loss at first, at last"]
    assert last < first


def test_runs_that_were_made_again_replace_those_before(tmp_path):
    file = tmp_path / "some.json"
    assert bounded.kept(file, [{"name": "a", "speed": 1}], ["name"]) == [{"name": "a", "speed": 1}]
    file.write_text('{"runs": [{"name": "a", "speed": 1}, {"name": "b", "speed": 2}]}')

    runs = bounded.kept(file, [{"name": "a", "speed": 3}], ["name"])

    assert runs == [{"name": "b", "speed": 2}, {"name": "a", "speed": 3}]
