"""The baseline's structural settings, and what tricks make of them."""

from dataclasses import dataclass, fields, replace
from typing import Any

from bench.errors import Refused, nearest
from bench.trick import check, choice, dial, is_number

OPTIMIZERS = ("adam", "sgd", "rmsprop")
_LATER = ("mixed", "d_optimizer", "g_optimizer", "length")


@dataclass(frozen=True)
class Recipe:
    """DCGAN as published, at the batch size of the public PyTorch example.

    Radford et al. 2015, section 4. Dials (numbers) may differ among the runs of a program; choices make another
    program.
    """

    channels: int = choice(64, span=(1, 1024), doc="width of the layer next to the image")
    kernel: int = choice(4, among=(3, 4, 5), doc="kernel of the strided convolutions")
    noise_length: int = choice(100, span=(1, 256), doc="numbers in a latent vector")
    batch_size: int = choice(64, span=(2, 4096), doc="images of each kind per step")
    slope: float = dial(0.2, span=(0.0, 1.0), doc="slope of D's LeakyReLU")
    lr: float = dial(2e-4, span=(0.0, 1.0), doc="Adam's learning rate, both networks")
    beta1: float = dial(0.5, span=(0.0, 0.999), doc="Adam's first beta, both networks")
    beta2: float = dial(0.999, span=(0.0, 0.999999), doc="Adam's second beta, both networks")
    init_std: float = dial(0.02, span=(1e-4, 1.0), doc="standard deviation of the initial weights")
    # Below: added after results were checked in; `spec` leaves them out where they are as published.
    mixed: bool = choice(False, among=(True, False), doc="whether D sees real and fake images in one batch")
    d_optimizer: str = choice(
        "adam", among=OPTIMIZERS, doc="D's optimiser: lr, beta1 (momentum), beta2 (decay)"
    )
    g_optimizer: str = choice("adam", among=OPTIMIZERS, doc="G's optimiser")
    length: float = choice(1.0, span=(0.01, 100.0), doc="how many times the grid's budget a run trains")

    def __post_init__(self) -> None:
        for f in fields(self):
            check(f.name, f.metadata, getattr(self, f.name))

    @property
    def spec(self) -> dict[str, Any]:
        """The settings as a run's id counts them: one that was added later counts where it is not as published."""
        published = {f.name: f.default for f in fields(self)}
        return {k: v for k, v in vars(self).items() if k not in _LATER or v != published[k]}


def make(values: dict[str, Any]) -> Recipe:
    """Return the published recipe with `values` in place; raise `Refused` for an unknown or a wrong one."""
    known = {f.name: f for f in fields(Recipe)}
    for key, value in values.items():
        if key not in known:
            raise Refused(f"{key}: no such setting{nearest(key, known)}; allowed: {', '.join(known)}")
        if is_number(known[key].metadata) and type(value) is int:
            values = values | {key: float(value)}
    return replace(Recipe(), **values)
