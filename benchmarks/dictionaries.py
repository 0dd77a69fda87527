"""The text that word vectors are measured on: the GCIDE dictionary and WordNet's glosses.

Both come from Debian packages, which are downloaded and unpacked, not installed; neither is part of
this repository. dict-gcide is under the GPL, wordnet-base under the WordNet licence.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

WORD = re.compile(r"[a-z]+")
SHA256 = {
    "dict-gcide": "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
    "wordnet-base": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
}


class UnavailableError(Exception):
    """A package cannot be had here, or is not the one whose counts are known."""


def load(folder: Path) -> list[list[str]]:
    """Return the texts as lists of words, downloading the packages into `folder` if need be.

    Raises UnavailableError with the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package, digest in SHA256.items():
        _fetch(folder, package, digest)
    return [*_gcide(folder), *_wordnet(folder)]


def _fetch(folder: Path, package: str, digest: str) -> None:
    if not list(folder.glob(f"{package}_*.deb")):
        done = subprocess.run(
            ["apt-get", "download", package],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UnavailableError(
                f"apt-get download {package} failed (try apt-get update first): {done.stderr}"
            )
    (archive,) = folder.glob(f"{package}_*.deb")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != digest:
        raise UnavailableError(f"{archive} has the SHA-256 {found}, expected {digest}")
    subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)


def _gcide(folder: Path) -> Iterator[list[str]]:
    """Yield the paragraphs of more than two words."""
    with gzip.open(folder / "usr/share/dictd/gcide.dict.dz") as file:
        text = file.read().decode(errors="replace").lower()
    for paragraph in text.split("\n\n"):
        words = WORD.findall(paragraph)
        if len(words) > 2:
            yield words


def _wordnet(folder: Path) -> Iterator[list[str]]:
    """Yield each synset: its words, then those of its gloss."""
    for part in ("noun", "verb", "adj", "adv"):
        with open(folder / f"usr/share/wordnet/data.{part}", encoding="latin-1") as file:
            for line in file:
                if line.startswith("  "):
                    continue
                left, _, gloss = line.partition("|")
                fields = left.split()
                names = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                words = [word for name in names for word in name.lower().split("_")]
                yield words + WORD.findall(gloss.lower())
