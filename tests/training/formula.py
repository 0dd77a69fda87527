"""The loss of a skip-gram batch as a formula in plain loops; checks take the module."""

from __future__ import annotations

import math

import numpy as np

from mmembed.autograd import Tensor
from mmembed.storage import Table
from mmembed.training.batches import Batch

ROWS, DIM = 7, 3


def tiny_table():
    """A table in memory of float64 rows that are not small."""
    rng = np.random.default_rng(1)
    table = Table.from_array(rng.normal(size=(ROWS, DIM)))
    table.add_column("context")
    table.write(np.arange(ROWS), rng.normal(size=(ROWS, DIM)), "context")
    return table


def tiny_batch():
    """Two blocks of 2 words, repeated ones among them, 4 of text and 2 of noise; and targets."""
    rng = np.random.default_rng(2)
    others = np.array([[0, 3, 5, 3, 1, 6], [2, 2, 0, 6, 6, 4]], np.int32)
    weights = rng.random((2, 2, 6)).astype(np.float32) * [0, 1, 1, 0, 2.5, 1]
    batch = Batch(others[:, 1:3], others, weights.astype(np.float32), 5, 0)
    return batch, np.array([1, 1, 1, 1, 0, 0], np.float32)


def loss_of(words, contexts, batch, targets):
    """Sum of -weight * log(probability of the target), probability = sigmoid(word . context)."""
    total = 0.0
    for n in range(len(batch.words)):
        for i, word in enumerate(batch.words[n]):
            for j, other in enumerate(batch.others[n]):
                score = sum(words[word][d] * contexts[other][d] for d in range(DIM))
                chance = 1 / (1 + math.exp(-score if targets[j] else score))
                total -= float(batch.weights[n, i, j]) * math.log(chance)
    return total


def check_loss(module):
    """The loss is the formula's, and gradients are its numeric differences."""
    table = tiny_table()
    batch, targets = tiny_batch()
    model = module.SkipGram(table)

    loss = model(batch, Tensor(targets))
    loss.backward()

    arrays = [table.column().copy(), table.column("context").copy()]
    np.testing.assert_allclose(loss.item(), loss_of(*arrays, batch, targets), rtol=1e-12)
    for embedding, array in zip((model.words, model.contexts), arrays, strict=True):
        numeric = np.empty_like(array)
        for at in np.ndindex(array.shape):
            there = array[at]
            array[at] = there + 1e-5
            above = loss_of(*arrays, batch, targets)
            array[at] = there - 1e-5
            numeric[at] = (above - loss_of(*arrays, batch, targets)) / 2e-5
            array[at] = there
        np.testing.assert_allclose(
            embedding.weight.grad.to_dense().numpy(), numeric, rtol=1e-7, atol=1e-9
        )
