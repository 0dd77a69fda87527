"""What a skip-gram training run is told; checked once.

Must not know how any of it is used.
"""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of skip-gram with negative sampling.

    Attributes
    ----------
    dim : size of the vectors.
    window : largest distance of a word and its context; each word draws its own, 1..window.
    negatives : weight of noise, in noise words per context.
    epochs : number of passes over the corpus.
    lr : step size at the beginning; it falls linearly to a fifth of it.
    sample : words more frequent than this share of the corpus are thinned out; 0 keeps all.
    min_count : words that occur less often are left out.
    seed : everything that is drawn follows from it.
    block : consecutive words that share contexts and noise.
    blocks : blocks in a batch.
    noise : noise words drawn for each block.

    Raises
    ------
    ValueError  a setting is out of range.
    """

    dim: int = 100
    window: int = 5
    negatives: float = 5.0
    epochs: int = 3
    lr: float = 0.25
    sample: float = 1e-4
    min_count: int = 5
    seed: int = 0
    block: int = 16
    blocks: int = 256
    noise: int = 24

    def __post_init__(self) -> None:
        at_least = {
            "dim": 1, "window": 1, "negatives": 0, "epochs": 0, "sample": 0, "min_count": 1,
            "seed": 0, "block": 1, "blocks": 1, "noise": 1,
        }  # fmt: skip
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("negatives", "sample", "lr"):
            if getattr(self, name) == math.inf:
                raise ValueError(f"{name} must be finite, got inf")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if self.window > 60 or self.block > 60:
            raise ValueError(
                f"window and block must be at most 60, got {self.window} and {self.block}"
            )
