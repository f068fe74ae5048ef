"""What a trick is: dials, choices, claims and pure hooks; one file in `tricks/` each.

The training loop, with every hook a trick can fill (bench/step.py is the same thing in torch):

    recipe  <- recipe(recipe)                    batch size, optimisers, ...: once, when the grid is planned
    layers  <- d_layers(layers), g_layers(layers)    the two tables of layers: once
    memory  <- memory(now)                       what a trick keeps from step to step: once
    for step in (D-only steps: ..., -2, -1), 0, 1, ..., total - 1:
        gates    <- gates(gates, at)             which network moves at this step
        settings <- optim(settings, at)          learning rates and betas of this step
        x, z <- real_images(next real images), next latents;  made <- G(z), with g_maps on its hidden maps
        D's loss, of x and of fake <- fake_images(made), with d_maps on D's hidden maps:
            bce(D(images(x)), real_targets(1)) + bce(D(images(fake)), fake_targets(0))
            loss <- d_loss(loss, scores, at) + d_penalty(gradient of D at its input, at)
        D moves along d_gradient(gradient, parameters, at), then parameters <- d_parameters(parameters, at)
        G's loss: bce(D(images(made)), 1), then g_loss(loss, scores, at);  G moves along g_gradient(...)
        memory <- remember(now, at), where G moved
    a score is taken of G as it is, and of sampled(memory) of every read-out

Hooks are written for ONE run; `torch.vmap` lifts each over the runs of an array, so a hook may not branch on
data or draw random numbers of its own: it declares `noise` and reads `at.noise`. Inside a hook a dial is a tensor of no
dimensions, a choice is a Python value. What each hook is given, for one run (B images of C x H x W, P parameters):

    gates(gates, at), optim(settings, at)                   at.step only; tensors of no dimensions
    real_images, fake_images, images(x (B, C, H, W), at)    the same shape back
    d_maps, g_maps(maps (B, channels, h, w), at)            after every hidden activation, in training only
    real_targets, fake_targets(y (B,), at)                  what BCE is told
    d_loss, g_loss(loss (), scores, at)                     the new loss (); `loss` is BCE's, `scores` holds the logits
    d_penalty(gradient (B, C, H, W), at)                    what is added to D's loss (), from the gradient of its
                                                            logits by the images at each of `penalty_at`
    d_gradient, g_gradient(gradient (P,), parameters (P,), at)
    d_parameters(parameters (P,), at)
    memory(now) and remember(now, at)                       a dict of tensors; in `at.memory` everywhere else
    sampled(memory)                                         (parameters (P,), running statistics (S,)) of a G to score
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

PLANNED = ("recipe", "d_layers", "g_layers")  # hooks that shape a program, before it starts
IN_STEP = (
    "gates",
    "optim",
    "real_images",
    "fake_images",
    "images",
    "d_maps",
    "g_maps",
    "real_targets",
    "fake_targets",
    "d_loss",
    "g_loss",
    "d_penalty",
    "d_gradient",
    "g_gradient",
    "d_parameters",
    "memory",
    "remember",
    "sampled",
)
HOOKS = PLANNED + IN_STEP
HELPERS = ("partner",)  # methods that are no hooks
NOISES = ("", "normal", "uniform")
STAGES = (
    "skeleton",
    "widths",
    "norms",
    "activations",
    "weights",
    "extras",
)  # of what changes the tables of layers
PLACES = ("real", "fake", "between")  # where D's gradient can be asked for
FACTS = {  # what a trick can require, conflict with or be made pointless by, besides another trick
    "batch_norm_in_d": "D has BatchNorm",
    "no_batch_norm_in_g": "G has no BatchNorm",
    "d_sees_one_image_at_a_time": "no layer of D looks at the batch",
    "other_loss": "the loss is not BCE, so nothing is told real or fake",
    "no_labels": "the data set has no labels, or one class",
}
EVIDENCE = (
    "read",
    "quoted",
    "recalled",
)  # in the source itself; in one that quotes it; from memory, not checked


@dataclass(frozen=True)
class Claim:
    """What the literature says: `direction` -1, 0 or +1 is where `metric` is said to move when the trick is on.

    `evidence` says how far it was checked: "read" in the source, "quoted" by another, "recalled" and not checked.
    `about` are the settings it speaks of; where empty, it is about the trick, however it is set.
    """

    text: str
    metric: str
    direction: int
    source: str
    url: str = ""
    evidence: str = "read"
    about: dict[str, Any] = field(default_factory=dict)


class At(NamedTuple):
    """Where a hook is called: `step` (tensor, adversarial steps from 0), `total` steps, the hook's own noise and the
    trick's memory."""

    step: Any
    total: int
    noise: Any = None
    memory: Any = None


class Scores(NamedTuple):
    """What D says of one run's images: logits (B,), and what its last hidden layer holds (B, F).

    In G's step `real` is there where the trick says `paired`, the features where it says `features`; else None.
    """

    real: Any
    fake: Any
    real_features: Any = None
    fake_features: Any = None


class Now(NamedTuple):
    """One run after a step: both networks' parameters (P,), G's running statistics (S,), the fakes (B, C, H, W)."""

    d: Any
    g: Any
    statistics: Any
    fakes: Any


class Gates(NamedTuple):
    """Whether D and G move at this step (boolean tensors)."""

    d: Any
    g: Any


class Adam(NamedTuple):
    """The optimiser's numbers for one network (tensors in double precision).

    For SGD beta1 is the momentum; for RMSProp beta2 is the decay of the mean square.
    """

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


def choice(default: Any, *, doc: str, among: tuple = (), span: tuple[float, float] | None = None) -> Any:
    """Declare a shape of a trick: one value `among` the listed, or a number in the closed `span`.

    The number is whole where the ends of the span are.
    """
    return field(default=default, metadata={"kind": "choice", "among": among, "span": span, "doc": doc})


class Trick:
    """A small citable change to GAN training: a frozen dataclass of dials and choices with pure hooks.

    A subclass sets `claims` and, where they apply:
    noise ("normal" or "uniform"): asks for draws, shaped like what its hook is given, or (B, draws) with `draws`;
    control: not a trick under test; ganhacks: its number there; cost: extra passes and the like, in words;
    stage: one of STAGES, when its table hooks run; after: tricks whose hooks run before its own;
    requires, conflicts, inert_if: {trick or fact: reason}; a fact is a key of FACTS. An arm that lacks what is
    required (a trick; where several are named, one of them) or has a conflict is refused; an inert trick is warned of;
    interacts: {trick: how}, for readers; loss: the name of the loss it puts in BCE's place (two such conflict);
    heavy: dear for its neighbours, so runs without it keep out of its arrays;
    readout: changes how G is sampled, not how it is trained, so every run is scored with it;
    paired, features: what `Scores` holds; penalty_at: among PLACES, where `d_penalty` wants D's gradient.
    Raises TypeError at import for a misspelt hook, a missing doc or a missing claim, and `Refused` for a value
    outside its range.
    """

    claims: ClassVar[list[Claim]] = []
    noise: ClassVar[str] = ""
    draws: ClassVar[int] = 0
    control: ClassVar[bool] = False
    ganhacks: ClassVar[int | None] = None
    cost: ClassVar[str] = ""
    stage: ClassVar[str] = STAGES[0]
    after: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[dict[str, str]] = {}
    conflicts: ClassVar[dict[str, str]] = {}
    inert_if: ClassVar[dict[str, str]] = {}
    interacts: ClassVar[dict[str, str]] = {}
    loss: ClassVar[str] = ""
    heavy: ClassVar[bool] = False
    readout: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    features: ClassVar[bool] = False
    penalty_at: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)
        where = f"trick {cls.__name__}"
        for name, value in vars(cls).items():
            if callable(value) and not name.startswith("_") and name not in HOOKS + HELPERS:
                raise TypeError(
                    f"{where}: {name} is no hook{nearest(name, HOOKS)}; hooks: {', '.join(HOOKS)}"
                )
        if not any(name in vars(cls) for name in HOOKS):
            raise TypeError(f"{where} fills no hook; hooks: {', '.join(HOOKS)}")
        if not (vars(cls).get("__doc__") or "").strip() or cls.__doc__.startswith(f"{cls.__name__}("):
            raise TypeError(f"{where} has no docstring")
        if not cls.claims or any(not claim.source for claim in cls.claims):
            raise TypeError(f"{where} carries no claim with a source")
        for name, word, allowed in (
            ("noise", cls.noise, NOISES),
            ("stage", cls.stage, STAGES),
            *(("evidence", claim.evidence, EVIDENCE) for claim in cls.claims),
            *(("penalty_at", place, PLACES) for place in cls.penalty_at),
        ):
            if word not in allowed:
                raise TypeError(f"{where}: {name} {word!r} is none of {', '.join(filter(None, allowed))}")
        for claim in cls.claims:
            cls(**claim.about)  # raises where the trick has no such field, or the field no such value
        for f in fields(cls):
            if not f.metadata.get("doc"):
                raise TypeError(f"{where}.{f.name} is no dial() or choice() with a doc")
        dials = cls.dials()
        if len(dials) == len(fields(cls)) and dials and all(f.metadata["off"] is None for f in dials):
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

    @classmethod
    def fills(cls, *hooks: str) -> bool:
        """Return whether the trick fills one of these hooks."""
        return any(hook in vars(cls) for hook in hooks)

    @property
    def shape(self) -> tuple | None:
        """What of the trick tells its runs from those of another program: None where it is only numbers."""
        if not self.fills(*IN_STEP):
            return None  # its effect is in the tables of layers and in the recipe
        dials = {f.name for f in self.dials()}
        choices = tuple((name, value) for name, value in self.values.items() if name not in dials)
        alone = self.heavy or self.off() is None
        return (self.name(), *choices) if choices or alone else None

    def partner(self) -> tuple[str, dict[str, Any]] | None:
        """Return (trick, values) of what equals this one in expectation, where there is such a trick."""
        return None

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
            "readout": cls.readout,
            "ganhacks": cls.ganhacks,
            "cost": cls.cost,
            **{name: dict(getattr(cls, name)) for name in ("requires", "conflicts", "inert_if", "interacts")},
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
    whole = allowed["kind"] == "choice" and all(isinstance(end, int) for end in span)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise Refused(
            f"{place}: {value!r} is not a {'whole ' if whole else ''}number from {span[0]} to {span[1]}"
        )
    if not (span[0] <= value <= span[1]) or math.isnan(value):
        raise Refused(f"{place}: {value!r} is out of range; allowed: {span[0]} to {span[1]}")


def is_number(metadata: dict[str, Any]) -> bool:
    """Return whether a field takes any number of a span, not only whole ones."""
    span = metadata.get("span")
    return metadata["kind"] == "dial" or bool(span and any(isinstance(end, float) for end in span))


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
        # A number: 1 and 1.0 are one value and must give one run id.
        if is_number(f.metadata) and type(values.get(f.name)) is int:
            values = values | {f.name: float(values[f.name])}
        assert f.default is not MISSING
    return cls(**values)


def ordered(tricks: Iterable[Trick]) -> tuple[Trick, ...]:
    """Return tricks in the order in which their hooks run: by stage, then by name, and `after` what they say."""
    by_name = {t.name(): t for t in sorted(tricks, key=lambda t: (STAGES.index(t.stage), t.name()))}
    graph = {
        name: [other for other in by_name if other in trick.after or _earlier(by_name[other], trick)]
        for name, trick in by_name.items()
    }
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    done: list[Trick] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        done += [by_name[name] for name in ready]
        sorter.done(*ready)
    return tuple(done)


def _earlier(a: Trick, b: Trick) -> bool:
    """Return whether `a` changes the tables of layers at an earlier stage than `b` does."""
    shaping = a.fills("d_layers", "g_layers") and b.fills("d_layers", "g_layers")
    return shaping and STAGES.index(a.stage) < STAGES.index(b.stage)
