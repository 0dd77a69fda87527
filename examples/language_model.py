"""A tiny causal language model: the next character of the standard library's sources.

    OPENBLAS_NUM_THREADS=1 python examples/language_model.py

Token and positional embeddings, one block of causal attention and a perceptron, as in GPT-2.
Learned from some files, measured on others. The guess to beat knows how often each character
follows each. (Products this small gain little from BLAS threads, which wait for each other.)
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from pathlib import Path

import numpy as np

import mmembed as mm
from mmembed import nn

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings"}


def read(characters, rng):
    """Return the characters there are, and texts to learn from and to test as arrays of ids."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [f for f in sorted(library.glob("**/*.py")) if not LEFT_OUT.intersection(f.parts)]
    text = b"".join(files[i].read_bytes() for i in rng.permutation(len(files)))[:characters]
    known, ids = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    cut = len(ids) * 9 // 10
    return known, ids[:cut], ids[cut:]


class Block(nn.Module):
    """Attention to what came before, then a perceptron, each added to its normalized input."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.joined = nn.Linear(dim, dim)
        self.perceptron = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim), nn.Dropout(0.05)
        )

    def forward(self, x):
        batch, length, dim = x.shape
        split = self.queries_keys_values(self.before(x))
        split = split.reshape(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = mm.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.joined(seen.transpose(1, 2).reshape(batch, length, dim))
        return x + self.perceptron(self.between(x))


class LanguageModel(nn.Module):
    """Scores of the next token after each token."""

    def __init__(self, tokens, context, dim, heads):
        super().__init__()
        self.token = nn.Embedding(tokens, dim, init="normal(0, 0.1)")
        self.position = nn.Embedding(context, dim, init="normal(0, 0.1)")
        self.block = Block(dim, heads)
        self.scores = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, tokens))

    def forward(self, ids):
        places = np.arange(ids.shape[1])
        return self.scores(self.block(self.token(ids) + self.position(places)))


def loss_of(model, text, starts, context):
    """Return the mean cross-entropy of what follows each character of windows of the text."""
    windows = text[np.asarray(starts)[:, None] + np.arange(context + 1)]
    scores = model(windows[:, :-1])
    return mm.functional.cross_entropy(scores.transpose(1, 2), windows[:, 1:])


def main(argv=None):
    """Train and measure; returns the perplexity of the model and of the guess to beat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--characters", type=int, default=3_000_000, help="[%(default)s]")
    parser.add_argument("--context", type=int, default=64, help="characters seen [%(default)s]")
    parser.add_argument("--dim", type=int, default=64, help="size of a vector [%(default)s]")
    parser.add_argument("--heads", type=int, default=4, help="[%(default)s]")
    parser.add_argument("--steps", type=int, default=400, help="of 32 windows [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    options = parser.parse_args(argv)
    mm.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)

    known, train, test = read(options.characters, rng)
    print(f"{len(train)} characters to learn from, {len(test)} to test, {len(known)} different")
    model = LanguageModel(len(known), options.context, options.dim, options.heads)
    optimizer = mm.optim.Adam(model.parameters(), lr=3e-3)
    losses, begun = [], time.monotonic()
    for step in range(1, options.steps + 1):
        starts = rng.integers(len(train) - options.context, size=32)
        loss = loss_of(model, train, starts, options.context)
        optimizer.zero_grad()
        loss.backward()
        nn.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % max(1, options.steps // 8) == 0:
            said = np.mean(losses[-options.steps // 8 :])
            print(f"step {step}: loss {said:.3f} ({time.monotonic() - begun:.0f} s)")

    starts = np.arange(0, len(test) - options.context, options.context)[:512]
    with mm.no_grad():
        perplexity = np.exp(loss_of(model.eval(), test, starts, options.context).item())
    pairs = np.ones((len(known), len(known)))  # one of each, so that none is impossible
    np.add.at(pairs, (train[:-1], train[1:]), 1)
    shares = pairs / pairs.sum(1, keepdims=True)
    baseline = np.exp(-np.log(shares[test[:-1], test[1:]]).mean())
    print(f"perplexity {perplexity:.2f}; counts of pairs: {baseline:.2f}")
    return perplexity, baseline


if __name__ == "__main__":
    main()
