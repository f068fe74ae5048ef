"""Randomness: one stream per purpose, so that switching a trick on shifts no other draw."""

import hashlib

import torch
from torch import Tensor

LATENT_WIDTH = 256  # latents are drawn this wide; a shorter noise length takes the prefix


def stream(seed: int, *purpose: object) -> torch.Generator:
    """Return the generator of one purpose of one run; it draws on the CPU, whatever device computes.

    A CPU generator is seeded by 32 bits: two of a few hundred streams coincide with a chance below 1e-4.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]))


class Streams:
    """The streams of one run in one phase, each made when it is first used."""

    def __init__(self, seed: int, phase: str) -> None:
        self.seed, self.phase = seed, phase
        self._made: dict[str, torch.Generator] = {}
        self._order = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, purpose: str) -> torch.Generator:
        if purpose not in self._made:
            self._made[purpose] = stream(self.seed, self.phase, purpose)
        return self._made[purpose]

    def indices(self, images: int, batch: int) -> Tensor:
        """Return the next (batch,) indices, cut from concatenated permutations of all images."""
        while len(self._order) < batch:
            self._order = torch.cat([self._order, torch.randperm(images, generator=self["data_order"])])
        taken, self._order = self._order[:batch], self._order[batch:]
        return taken

    def draw(self, kind: str, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Return float32 draws of `kind` "normal" or "uniform" (in [0, 1)) of `shape` from the purpose's
        stream."""
        return (torch.randn if kind == "normal" else torch.rand)(shape, generator=self[purpose])


def evaluation_latents(seed: int, count: int) -> Tensor:
    """Return the latents (count, 256) at which every generator of this seed is scored."""
    return torch.randn(count, LATENT_WIDTH, generator=stream(seed, "evaluation_latents"))


def evaluation_labels(seed: int, count: int, labels: Tensor) -> Tensor:
    """Return the labels (count,) at which every generator of this seed is scored: drawn from those of the data."""
    share = torch.rand(count, generator=stream(seed, "evaluation_labels"))
    return labels[(share * len(labels)).long()]
