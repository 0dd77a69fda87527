"""The graph of human genes that `real_graph` trains on: org.Hs.eg, from a Debian package.

The package (Artistic-2.0) is unpacked, not installed, and nothing is downloaded here. Must not know
models or what is measured.
"""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

PACKAGE = "r-bioc-org.hs.eg.db"
SHA256 = "0f61810d35b858915b1a9787d8dcab08b7e164c14c20a9e1d86eb9837308c2c2"
INSIDE = Path("usr/lib/R/site-library/org.Hs.eg.db/extdata/org.Hs.eg.sqlite")
TRIPLES = 4_137_617  # distinct pairs of a gene and something else, in TABLES
# Table and column: a relation each, from the gene `_id` to what stands in the column.
TABLES = (
    ("pubmed", "pubmed_id"), ("accessions", "accession"), ("refseq", "accession"),
    ("ucsc", "ucsc_id"), ("genetype", "gene_type"),
    ("cytogenetic_locations", "cytogenetic_location"), ("ensembl_trans", "trans_id"),
    ("pfam", "pfam_id"), ("omim", "omim_id"), ("kegg", "path_id"), ("alias", "alias_symbol"),
    ("go_bp", "go_id"), ("go_cc", "go_id"), ("go_mf", "go_id"), ("chromosomes", "chromosome"),
    ("ensembl", "ensembl_id"), ("uniprot", "uniprot_id"), ("prosite", "prosite_id"),
    ("ensembl_prot", "prot_id"), ("ec", "ec_number"),
)  # fmt: skip


class UnavailableError(Exception):
    """The package is not here, or is not the one whose counts are known."""


class Graph(NamedTuple):
    """Triples (head, relation, tail), (n, 3) int64; heads are genes, the entities from 0 on."""

    triples: np.ndarray
    entities: int
    genes: int


def load(folder: Path) -> Graph:
    """Return the graph out of the package that lies in `folder`.

    Raises UnavailableError with the reason.
    """
    found = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    if not found:
        raise UnavailableError(
            f"{folder} has no {PACKAGE}_*.deb; apt-get download {PACKAGE} (37 MB) puts it there"
        )
    digest = hashlib.sha256(found[-1].read_bytes()).hexdigest()
    if digest != SHA256:
        raise UnavailableError(f"{found[-1]} has the SHA-256 {digest}, expected {SHA256}")
    if not (folder / INSIDE).exists():
        subprocess.run(["dpkg-deb", "-x", found[-1], folder], check=True)
    graph = read(folder / INSIDE)
    if len(graph.triples) != TRIPLES:
        raise UnavailableError(f"{len(graph.triples)} triples in it, expected {TRIPLES}")
    return graph


def read(file: Path) -> Graph:
    """Return the graph of a database; a string is one entity per table in which it stands."""
    with sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True) as database:
        (genes,) = database.execute("select max(_id) from genes").fetchone()
        parts = []
        entities = genes
        for relation, (table, column) in enumerate(TABLES):
            names: dict[str, int] = {}
            pairs = np.array(list(_pairs(database, table, column, names)), np.int64).reshape(-1, 2)
            parts.append(np.empty((len(pairs), 3), np.int64))
            parts[-1][:, 0] = pairs[:, 0] - 1
            parts[-1][:, 1] = relation
            parts[-1][:, 2] = entities + pairs[:, 1]
            entities += len(names)
    database.close()
    return Graph(np.concatenate(parts), entities, genes)


def _pairs(
    database: sqlite3.Connection, table: str, column: str, names: dict[str, int]
) -> Iterator[tuple[int, int]]:
    """Yield genes and numbers of what they are related to, numbered as they come."""
    rows = database.execute(
        f"select distinct _id, {column} from {table} where {column} is not null order by _id"
    )
    for gene, name in rows:
        yield gene, names.setdefault(name, len(names))
