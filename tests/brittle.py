"""A trick as a user might add one, whose runs break where the machine lacks something; test_failures.py adds it."""

import os
import tempfile
from pathlib import Path

import torch

from bench.trick import At, Claim, Trick, dial

STEP = 5  # at which it breaks


class Wants(torch.autograd.Function):
    """Sees the dials of a whole array, which a hook, written for one run, cannot."""

    @staticmethod
    def forward(kind, step):
        """Return 0 for one run, having done what its dial says."""
        if int(step.max()) == STEP:
            if (kind == 1).any():
                Path("wanted.txt").read_text()
            if (kind == 2).any():
                with tempfile.NamedTemporaryFile(delete=False, buffering=0) as file:
                    for _ in range(2048):  # 8 MB
                        file.write(os.urandom(4096))
        return torch.zeros_like(kind)

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep nothing: there is no gradient."""

    @staticmethod
    def backward(ctx, grad):
        """Return that there is none."""
        return None, None

    @staticmethod
    def vmap(info, in_dims, kind, step):
        """Do it for all runs of an array."""
        return Wants.forward(kind, step), 0


class Brittle(Trick):
    """Brittle: at one step it reads a file that may be missing, or writes more than a small disk holds."""

    claims = [Claim("breaks", "fid", 0, "the tests of this project")]

    kind: float = dial(
        1.0,
        off=0.0,
        span=(0.0, 3.0),
        doc="1 reads wanted.txt, 2 writes 8 MB of temporary files, 3 does nothing",
    )

    def images(self, x, at: At):
        return x + Wants.apply(self.kind, at.step)
