"""What a trick is: dials, choices, claims and pure hooks; one file in `tricks/` each.

The training loop, with every hook a trick can fill (bench/step.py is the same thing in torch):

    recipe  <- recipe(recipe)                    batch size, noise length, ...: once, when the grid is planned
    layers  <- d_layers(layers), g_layers(layers)    the two tables of layers: once
    for step in (D-only steps: ..., -2, -1), 0, 1, ..., total - 1:
        gates    <- gates(gates, at)             which network moves at this step
        settings <- optim(settings, at)          learning rates and betas of this step
        x, z <- next real images, next latents;  fake <- G(z)
        D's loss: bce(D(images(x)), real_targets(1)) + bce(D(images(fake)), fake_targets(0));  D moves if gates.d
        G's loss: bce(D(images(fake)), 1);       G moves if gates.g

Hooks are written for ONE run; `torch.vmap` lifts each over the runs of an array, so a hook may not branch on
data or draw random numbers of its own: it declares `noise` and reads `at.noise`.

A hook is added with the first trick that needs it. Tricks not built yet, and where they fit without a rewrite:

R1, WGAN-GP: `d_loss(loss, scores, at)`, where `scores` carries both logits, both images and `scores.critic`, D as
a function of one run's images (a heavy trick: a second backward pass in its own program). Hinge, least squares,
relativistic: the same hook and `g_loss`, from the logits. Several D steps: `gates`. Spectral norm, minibatch
stddev, label conditioning: a layer class in the trick's own file, put in by `d_layers`. EMA: the pure pair
`remember(memory, params, at)` and `sampled(params, memory)`. Replay: `remember` with the last fakes, and `images`
reads the memory. DiffAugment: `images` with `noise = "uniform"`. Mixed minibatches: a `recipe` choice that D's
pass reads. Uniform latents: `latents`.
"""

import importlib
import math
import pkgutil
import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from graphlib import TopologicalSorter
from typing import Any, ClassVar, NamedTuple

from bench.errors import Refused, nearest

HOOKS = (
    "recipe",
    "d_layers",
    "g_layers",
    "gates",
    "optim",
    "images",
    "real_targets",
    "fake_targets",
)
NOISES = ("", "normal", "uniform")


@dataclass(frozen=True)
class Claim:
    """What the literature says: `direction` -1, 0 or +1 is where `metric` is said to move when the trick is on."""

    text: str
    metric: str
    direction: int
    source: str
    url: str = ""


class At(NamedTuple):
    """Where a hook is called: `step` (tensor, adversarial steps from 0), `total` steps, and the hook's own noise."""

    step: Any
    total: int
    noise: Any = None


class Gates(NamedTuple):
    """Whether D and G move at this step (boolean tensors)."""

    d: Any
    g: Any


class Adam(NamedTuple):
    """Adam's numbers for one network (tensors in double precision)."""

    lr: Any
    beta1: Any
    beta2: Any


class Optim(NamedTuple):
    """The settings of both optimisers."""

    d: Adam
    g: Adam


def dial(default: float, *, span: tuple[float, float], doc: str, off: float | None = None) -> Any:
    """Declare a number of a trick; runs that differ in dials train in one program.

    `off` is the value at which the trick is the identity, `span` the closed range of allowed values.
    """
    return field(default=default, metadata={"kind": "dial", "off": off, "span": span, "doc": doc})


def choice(default: Any, *, doc: str, among: tuple = (), span: tuple[int, int] | None = None) -> Any:
    """Declare a shape of a trick: one value `among` the listed, or a whole number in the closed `span`."""
    return field(default=default, metadata={"kind": "choice", "among": among, "span": span, "doc": doc})


class Trick:
    """A small citable change to GAN training: a frozen dataclass of dials and choices with pure hooks.

    A subclass sets `claims`; `noise` ("normal" or "uniform") asks for draws, shaped like what its hook is given;
    `control` marks a control, which is not a trick under test; `after` names tricks whose hooks run first;
    `conflicts` maps names of tricks it cannot be combined with to the reason. Raises TypeError at import for a
    misspelt hook, a missing doc or a missing claim, and `Refused` for a value outside its range.
    """

    claims: ClassVar[list[Claim]] = []
    noise: ClassVar[str] = ""
    control: ClassVar[bool] = False
    after: ClassVar[tuple[str, ...]] = ()
    conflicts: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)
        where = f"trick {cls.__name__}"
        for name, value in vars(cls).items():
            if callable(value) and not name.startswith("_") and name not in HOOKS:
                raise TypeError(
                    f"{where}: {name} is no hook{nearest(name, HOOKS)}; hooks: {', '.join(HOOKS)}"
                )
        if not any(name in vars(cls) for name in HOOKS):
            raise TypeError(f"{where} fills no hook; hooks: {', '.join(HOOKS)}")
        if not (vars(cls).get("__doc__") or "").strip() or cls.__doc__.startswith(f"{cls.__name__}("):
            raise TypeError(f"{where} has no docstring")
        if not cls.claims or any(not claim.source for claim in cls.claims):
            raise TypeError(f"{where} carries no claim with a source")
        if cls.noise not in NOISES:
            raise TypeError(f"{where}: noise {cls.noise!r} is none of {', '.join(NOISES[1:])}")
        for f in fields(cls):
            if not f.metadata.get("doc"):
                raise TypeError(f"{where}.{f.name} is no dial() or choice() with a doc")
        dials = cls.dials()
        if dials and all(f.metadata["off"] is None for f in dials):
            raise TypeError(f"{where} has dials but none with an off value")

    def __post_init__(self) -> None:
        for f in fields(self):
            check(f"{self.name()}.{f.name}", f.metadata, getattr(self, f.name))

    @classmethod
    def name(cls) -> str:
        """Return the trick's name: its class name in snake case, which is its file's name too."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def dials(cls) -> list:
        """Return the dataclass fields that are numbers and may differ inside a program."""
        return [f for f in fields(cls) if f.metadata["kind"] == "dial"]

    @classmethod
    def off(cls) -> "Trick | None":
        """Return the trick with every off value in place, or None where it consists of choices only."""
        offs = {f.name: f.metadata["off"] for f in cls.dials() if f.metadata["off"] is not None}
        return cls(**offs) if offs else None

    @property
    def is_off(self) -> bool:
        """Whether every dial that has an off value is at it."""
        offs = [(f.name, f.metadata["off"]) for f in self.dials() if f.metadata["off"] is not None]
        return bool(offs) and all(getattr(self, name) == off for name, off in offs)

    @property
    def values(self) -> dict[str, Any]:
        """The dials and choices by name, in the order of their declaration."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def card(cls) -> dict[str, Any]:
        """Return everything a reader wants to know of the trick as plain data."""
        summary, _, rest = cls.__doc__.strip().partition("\n")
        return {
            "name": cls.name(),
            "title": summary.split(":")[0].rstrip("."),
            "summary": summary,
            "doc": "\n".join(line.strip() for line in rest.strip().splitlines()),
            "control": cls.control,
            "claims": [vars(claim) for claim in cls.claims],
            "fields": [
                {"name": f.name, "default": f.default, "off": None, "span": None, "among": None}
                | dict(f.metadata)
                for f in fields(cls)
            ],
        }


def check(place: str, allowed: dict[str, Any], value: Any) -> None:
    """Raise `Refused` unless `value` is allowed by the metadata of a dial or a choice."""
    among, span = allowed.get("among"), allowed.get("span")
    if among:
        if value not in among or isinstance(value, bool) != isinstance(among[0], bool):
            words = ", ".join(str(option) for option in among)
            raise Refused(f"{place}: {value!r} is not allowed; one of: {words}{nearest(value, among)}")
        return
    whole = allowed["kind"] == "choice"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise Refused(
            f"{place}: {value!r} is not a {'whole ' if whole else ''}number from {span[0]} to {span[1]}"
        )
    if not (span[0] <= value <= span[1]) or math.isnan(value):
        raise Refused(f"{place}: {value!r} is out of range; allowed: {span[0]} to {span[1]}")


_registry: dict[str, type[Trick]] = {}


def registry() -> dict[str, type[Trick]]:
    """Return every trick by name, found by importing each file of the folder `tricks/`."""
    if not _registry:
        package = importlib.import_module("tricks")
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
            found = vars(importlib.import_module(f"tricks.{module.name}"))
            own = [
                c for c in found.values() if isinstance(c, type) and issubclass(c, Trick) and c is not Trick
            ]
            if [c.name() for c in own] != [module.name]:
                wanted = "".join(part.capitalize() for part in module.name.split("_"))
                raise TypeError(f"tricks/{module.name}.py must hold exactly one trick, the class {wanted}")
            _registry[module.name] = own[0]
    return _registry


def find(name: str) -> type[Trick]:
    """Return the trick called `name`; raise `Refused` with the nearest right spelling if there is none."""
    known = registry()
    if name not in known:
        raise Refused(f"{name}: no such trick{nearest(name, known)}; `bench tricks` lists them")
    return known[name]


def make(name: str, values: dict[str, Any]) -> Trick:
    """Return the trick called `name` with `values` in place of its defaults; raise `Refused` for a wrong one."""
    cls = find(name)
    known = [f.name for f in fields(cls)]
    for key in values:
        if key not in known:
            allowed = f"allowed: {', '.join(known)}" if known else "it has no settings"
            raise Refused(f"{name}.{key}: no such setting{nearest(key, known)}; {allowed}")
    for f in fields(cls):
        # A dial is a number: 1 and 1.0 are one value and must give one run id.
        if f.metadata["kind"] == "dial" and type(values.get(f.name)) is int:
            values = values | {f.name: float(values[f.name])}
        assert f.default is not MISSING
    return cls(**values)


def ordered(tricks: Iterable[Trick]) -> tuple[Trick, ...]:
    """Return tricks in the order in which their hooks run: by name, and `after` what they say."""
    by_name = {trick.name(): trick for trick in sorted(tricks, key=lambda t: t.name())}
    graph = {name: [other for other in trick.after if other in by_name] for name, trick in by_name.items()}
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    done: list[Trick] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        done += [by_name[name] for name in ready]
        sorter.done(*ready)
    return tuple(done)
