"""The grid file: which arms, on which data, with which budget, seeds and scores."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench import compat
from bench import design as designs
from bench import recipe as recipes
from bench import trick as tricks_
from bench.data import SETS, SIZES
from bench.design import Design
from bench.detect import Limits
from bench.errors import Refused, nearest
from bench.recipe import Recipe
from bench.spec import Budget, DataSpec, Score
from bench.stats import ALPHA
from bench.trick import Trick

OPTIONS = {  # of a kind of design
    designs.FRACTIONAL: ("resolution",),
    designs.PLACKETT_BURMAN: ("foldover",),
    designs.RANDOM: ("cells", "seed"),
}
EXAMPLES = {"resolution": 4, "cells": 16}
METRICS = ("fid", "is", "kid", "precision", "recall")
EXTRACTORS = ("classifier", "inception-v3-compat")
DTYPES = ("float32", "bfloat16", "float64")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LARGE = 1_000  # runs: a larger grid has to be meant
MOST_RUNS, MOST_VALUES = 1_000_000, 200_000  # of a grid, of a file (an alias counts as what it stands for)
MOST_ARMS = 2**16


@dataclass(frozen=True)
class Arm:
    """One cell of the design: a name, its role (baseline, trick or control) and the tricks that are on."""

    name: str
    role: str
    tricks: tuple[Trick, ...]


@dataclass(frozen=True)
class Grid:
    """A grid file, checked: every value is allowed, every arm is possible, no two arms are equal."""

    name: str
    data: DataSpec
    recipe: Recipe
    arms: tuple[Arm, ...]
    design: str
    seeds: tuple[int, ...]
    budget: Budget
    score: Score
    dtype: str
    text: str = field(repr=False, default="")
    file: str = ""
    lines: dict[str, int] = field(repr=False, compare=False, default_factory=dict)
    tiny: dict[str, dict[str, float]] = field(repr=False, compare=False, default_factory=dict)
    looks: tuple[int, ...] = ()  # how many seeds every arm has at the first and at the second look
    cells: Design | None = field(repr=False, compare=False, default=None)

    def at(self, path: str) -> str:
        """Return "file:line" of a key such as score.samples, or of the nearest key above it."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return f"{self.file}:{self.lines.get(path, self.lines.get('', 1))}"

    def where(self, arm: Arm, trick: str = "") -> str:
        """Return "file:line" of an arm, of one of its tricks where the file has a line for it."""
        listed = f"design.arms.{arm.name}"
        names = [trick] if trick else [t.name() for t in arm.tricks]
        paths = [f"{listed}.{trick}", listed]
        paths += [
            f"{section}.{name}" for name in names for section in ("tricks", "controls", "design.baseline")
        ]
        return self.at(next((path for path in paths if path in self.lines), "design"))


class Place:
    """A value of the grid file that knows its line: a scalar, a list of places, or a dict of them."""

    def __init__(self, file: str, path: str, line: int, value: Any) -> None:
        self.file, self.path, self.line, self.value = file, path, line, value

    def refuse(self, why: str) -> Refused:
        """Return the refusal that names file, line and field."""
        return Refused(f"{self.file}:{self.line}: {self.path + ': ' if self.path else ''}{why}")

    def mapping(self, known: tuple[str, ...] | None = None) -> dict[str, "Place"]:
        """Return the value as a dict; refuse another kind of value, and keys that are not `known`."""
        if not isinstance(self.value, dict):
            raise self.refuse(
                f"{self.shown()} is not a mapping of {', '.join(known or ('names to values',))}"
            )
        for key, place in self.value.items():
            if known is not None and key not in known:
                raise place.refuse(f"no such key{nearest(key, known)}; allowed: {', '.join(known)}")
        return self.value

    def text(self, allowed: tuple[str, ...] | None = None) -> str:
        """Return the value as text, one of `allowed` where that is given."""
        if not isinstance(self.value, str):
            raise self.refuse(f"{self.shown()} is not text")
        if allowed is not None and self.value not in allowed:
            raise self.refuse(
                f"{self.shown()} is not allowed{nearest(self.value, allowed)}; one of: {', '.join(allowed)}"
            )
        return self.value

    def number(self, low: float, high: float, whole: bool = True) -> Any:
        """Return the value as a number from `low` to `high`."""
        kind = int if whole else (int, float)
        good = isinstance(self.value, kind) and not isinstance(self.value, bool)
        if not good or not low <= self.value <= high:
            raise self.refuse(
                f"{self.shown()} is not a {'whole ' if whole else ''}number from {low:g} to {high:g}"
            )
        return self.value

    def items(self) -> list["Place"]:
        """Return the places of a list; any other value is a list of one."""
        return self.value if isinstance(self.value, list) else [self]

    def plain(self) -> Any:
        """Return the value without its places."""
        if isinstance(self.value, dict):
            return {key: place.plain() for key, place in self.value.items()}
        return [place.plain() for place in self.value] if isinstance(self.value, list) else self.value

    def lines(self) -> Iterator[tuple[str, int]]:
        """Yield the path and line of every key in here, and of every name in a list."""
        yield self.path, self.line
        for item in self.value if isinstance(self.value, list) else ():
            if isinstance(item.value, str):
                yield f"{self.path}.{item.value}", item.line
        for place in self.value.values() if isinstance(self.value, dict) else ():
            yield from place.lines()

    def shown(self) -> str:
        """Return the value as a message shows it."""
        return "nothing" if self.value is None else repr(self.plain())

    def on_line(self, make: Callable[[], Any]) -> Any:
        """Return `make()`; a refusal inside it gets this file and line."""
        try:
            return make()
        except Refused as refused:
            raise Refused(f"{self.file}:{self.line}: {refused}") from None
        except (TypeError, OverflowError):  # 4.0 where 4 is meant, or a number beyond all numbers
            raise self.refuse(f"{self.shown()[:40]} is not allowed here") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 2e-5 is a number."""

    values = 0  # that were read


_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)|[-+]?[0-9][0-9_]*\.[0-9_]*|[-+]?\.[0-9][0-9_]*|[-+]?\.(?:inf|Inf)|\.nan"
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:float"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"^(?:{_FLOAT.pattern})$"), list("-+0123456789.")
)


def parse(text: str, file: str) -> list[tuple[Place, str]]:
    """Return the tree of every YAML document of a text with its lines, and the document's own text.

    Raises `Refused` where it is not YAML or repeats a key.
    """
    try:
        loader = _Loader(text)
        places = []
        while loader.check_node():
            places.append(_place(loader, loader.get_node(), file, ""))
        # The comments above a document's first `---` are its own, those below are the next one's.
        starts = [e.start_mark.line for e in yaml.parse(text) if isinstance(e, yaml.DocumentStartEvent)]
        lines = text.splitlines(keepends=True)
        cuts = [0, *(line + 1 for line in starts[1:]), len(lines) + 1]
        own = ["".join(lines[a:b]) for a, b in itertools.pairwise(cuts)]
        own = (
            [part.rstrip().removesuffix("---").rstrip() + "\n" for part in own] if len(places) > 1 else [text]
        )
        return list(zip(places, own, strict=True)) if places else [(Place(file, "", 1, None), text)]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise Refused(f"{file}{line}: not YAML: {why}") from None
    except (
        ValueError,
        RecursionError,
        KeyError,
        IndexError,
        AttributeError,
    ) as error:  # PyYAML's tags raise them
        raise Refused(f"{file}: not YAML that a grid can be read from: {error}") from None


def _place(loader: "_Loader", node: yaml.Node, file: str, path: str) -> Place:
    place = Place(file, path, node.start_mark.line + 1, None)
    loader.values += 1
    if loader.values > MOST_VALUES:
        raise Refused(f"{file}:{place.line}: more than {MOST_VALUES:,} values; that is no grid")
    if isinstance(node, yaml.MappingNode):
        place.value = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            inside = _place(loader, value_node, file, f"{path}.{key}" if path else key)
            inside.line = key_node.start_mark.line + 1
            if key in place.value:
                raise inside.refuse(f"stands twice, first on line {place.value[key].line}")
            place.value[key] = inside
    elif isinstance(node, yaml.SequenceNode):
        place.value = [_place(loader, item, file, path) for item in node.value]
    else:
        place.value = loader.construct_object(node)
    return place


KEYS = ("name", "data", "recipe", "tricks", "controls", "design", "seeds", "budget", "score", "dtype", "tiny")


def packaged() -> dict[str, Path]:
    """Return the grids that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "grids").glob("*.yaml"))}


def locate(grid: str) -> Path:
    """Return the file of `grid`: a path, or the name of a packaged grid."""
    path = Path(grid)
    if path.is_file():
        return path
    ours = packaged()
    if grid in ours:
        return ours[grid]
    names = [*ours, *(p.name for p in Path.cwd().glob("*.yaml"))]
    raise Refused(
        f"{grid}: no such file, and no packaged grid{nearest(grid, names)}; packaged: {', '.join(ours)}"
    )


def load(grid: str) -> Grid:
    """Return the grid of a file (or of a packaged grid's name); raise `Refused` with file and line for a bad
    one, and where the file has several."""
    return _only(load_all(grid))


def load_all(grid: str) -> list[Grid]:
    """Return the grids of a file, in order: one for each YAML document, parted by lines of `---`."""
    path = locate(grid)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: cannot be read: {error}") from None
    return read_all(text, str(path))


def read(text: str, file: str) -> Grid:
    """Return the one grid written in `text`; `file` is what messages call it."""
    return _only(read_all(text, file))


def read_all(text: str, file: str) -> list[Grid]:
    """Return the grids written in `text`, each whole and with a name of its own."""
    grids: dict[str, Grid] = {}
    for top, own in parse(text, file):
        grid = _read(top, own, file)
        if grid.name in grids:
            first = grids[grid.name].at("name").rpartition(":")[2]
            raise Refused(
                f"{grid.at('name')}: name: {grid.name!r} is the grid on line {first} too; both would go into one folder"
            )
        grids[grid.name] = grid
    return list(grids.values())


def _only(grids: list[Grid]) -> Grid:
    if len(grids) > 1:
        names = ", ".join(grid.name for grid in grids)
        raise Refused(f"{grids[1].at('')}: a second grid, where one is wanted ({names})")
    return grids[0]


def _read(top: Place, text: str, file: str) -> Grid:
    fields = top.mapping(KEYS)
    for key in ("name", "data"):
        if key not in fields:
            raise top.refuse(f"{key} is missing; a grid has a name, data and tricks")
    if "tricks" not in fields and "controls" not in fields and "design" not in fields:
        raise top.refuse("tricks is missing; a grid has a name, data and tricks")
    name = fields["name"].text()
    if not NAME.fullmatch(name):
        raise fields["name"].refuse(
            f"{name!r} cannot name a folder in results/: letters, digits, '.', '_' and '-', 64 at most, no '.' in front"
        )
    data = _data(fields["data"])
    place = fields.get("recipe", Place(file, "recipe", top.line, {}))
    values = {key: inside.plain() for key, inside in place.mapping().items()}
    recipe = recipes.Recipe()
    for key, inside in place.mapping().items():
        _whole(inside, recipes.Recipe, key)
        recipe = inside.on_line(
            lambda key=key, recipe=recipe: recipes.make(values_of(recipe) | {key: values[key]})
        )
    levels = {**_levels(fields.get("tricks"), "trick"), **_levels(fields.get("controls"), "control")}
    both = set(_keys(fields.get("tricks"))) & set(_keys(fields.get("controls")))
    for key in sorted(both):
        raise fields["controls"].value[key].refuse("stands in tricks and in controls")
    where = fields.get("design", Place(file, "design", top.line, designs.ONE_AT_A_TIME))
    design, arms = _design(where, levels, data, name)
    seeds, looks = _seeds(fields.get("seeds", Place(file, "seeds", top.line, 10)), design.contrasts)
    grid = Grid(
        name=name,
        data=data,
        recipe=recipe,
        arms=arms,
        design=design.kind,
        seeds=seeds,
        budget=_budget(fields.get("budget")),
        score=_score(fields.get("score", Place(file, "score", top.line, {})), data),
        dtype=fields["dtype"].text(DTYPES) if "dtype" in fields else DTYPES[0],
        text=text,
        file=file,
        lines=dict(top.lines()),
        tiny=_tiny(fields.get("tiny"), arms),
        looks=looks,
        cells=design,
    )
    if (count := len(arms) * len(grid.seeds)) > MOST_RUNS:
        raise Refused(f"{grid.at('seeds')}: {count:,} runs; {MOST_RUNS:,} at most")
    for arm in arms:
        if found := compat.impossible(arm.tricks, data):
            raise Refused(f"{grid.where(arm, found.trick)}: arm {arm.name}: {found.text}")
    return grid


def _whole(place: Place, cls: type, key: str) -> None:
    """Refuse 4.0 where a choice is 4: they compare as equal, but only one of them is a size."""
    known = cls.__dataclass_fields__
    if key in known and not tricks_.is_number(known[key].metadata) and isinstance(place.value, float):
        raise place.refuse(f"{place.shown()} is not a whole number")


def values_of(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's settings by name."""
    return dict(vars(recipe))


def _keys(place: Place | None) -> list[str]:
    return list(place.value) if place is not None and isinstance(place.value, dict) else []


def _data(place: Place) -> DataSpec:
    if isinstance(place.value, str):
        kind, _, path = place.value.partition(":")
        fields = {"set": Place(place.file, place.path, place.line, kind)}
        if path:
            fields["path"] = Place(place.file, place.path, place.line, path)
    else:
        fields = place.mapping(("set", "size", "classes", "path"))
    if "set" not in fields:
        raise place.refuse(f"set is missing; one of: {', '.join(SETS)}")
    kind = fields["set"].text(tuple(SETS))
    if "path" in fields and not fields["path"].text():
        raise fields["path"].refuse("an empty path")
    if (kind == "folder") != ("path" in fields):
        where = fields.get("path", fields["set"])
        raise where.refuse(
            "a folder needs a path (folder:PATH)" if kind == "folder" else f"{kind} takes no path"
        )
    size = fields["size"].number(min(SIZES), max(SIZES)) if "size" in fields else SETS[kind].default_size
    if size not in SIZES:
        raise fields["size"].refuse(f"{size} is not allowed; one of: {', '.join(map(str, SIZES))}")
    classes: list[str] = []
    known = SETS[kind].class_names
    chosen = fields["classes"].items() if "classes" in fields else []
    if "classes" in fields and not chosen:
        raise fields["classes"].refuse("an empty list; leave it out to keep all classes")
    for item in chosen:
        if not isinstance(item.value, str | int):
            raise item.refuse(f"{item.shown()} is no class")
        word = str(item.value)
        if not known:
            raise item.refuse(f"{kind} has no labels, so no classes to choose from")
        if word not in known and word.isdigit() and int(word) < len(known):
            word = known[int(word)]
        if word not in known:
            raise item.refuse(
                f"{word!r} is no class of {kind}{nearest(word, known)}; one of: {', '.join(known)}"
            )
        if word in classes:
            raise item.refuse(f"{word!r} stands twice")
        classes.append(word)
    ordered = tuple(c for c in known if c in classes)
    return DataSpec(
        kind,
        size,
        () if ordered == tuple(known) else ordered,
        fields["path"].text() if "path" in fields else "",
    )


def _levels(place: Place | None, role: str) -> dict[str, list[Arm]]:
    """Return each trick's values as arms of one trick: one, or one for each combination of listed values."""
    if place is None or place.value is None:
        return {}
    if isinstance(place.value, list):  # just names
        named: dict[str, Place] = {}
        for item in place.value:
            if item.text() in named:
                raise item.refuse(f"{item.text()} stands twice")
            named[item.text()] = Place(item.file, f"{place.path}.{item.text()}", item.line, None)
        place = Place(place.file, place.path, place.line, named)
    return {name: _variants(name, inside, role) for name, inside in place.mapping().items()}


def _variants(name: str, place: Place, role: str, named: bool = False) -> list[Arm]:
    """Return a trick's values as arms: of a mapping with lists every combination, of a list of mappings each;
    `named`: an arm says all the values that are written, not only those that differ."""
    cls = place.on_line(lambda: tricks_.find(name))
    if cls.readout and role != "readout":
        raise place.refuse(
            f"{name} changes how G is sampled, not how it is trained: every run is scored with it, at no extra "
            "training; say which under score: readouts"
        )
    if isinstance(place.value, list) and any(isinstance(item.value, dict) for item in place.value):
        return _once(place, [arm for item in place.value for arm in _variants(name, item, role, named=True)])
    role = "control" if cls.control else role
    fields = list(cls.__dataclass_fields__)
    if place.value is None:
        listed = {}
    elif isinstance(place.value, dict):
        listed = {key: (inside, inside.items()) for key, inside in place.value.items()}
    elif len(fields) == 1:
        listed = {fields[0]: (place, place.items())}
    else:
        raise place.refuse(
            f"{place.shown()} is not a mapping; {name} takes: {', '.join(fields) or 'nothing'}"
        )
    for key, (inside, items) in listed.items():
        if not items:
            raise inside.refuse("an empty list; give one value or several")
        for item in items:  # one by one, so that a refusal names the line of its own value
            _whole(item, cls, key)
            item.on_line(lambda key=key, item=item: tricks_.make(name, {key: item.plain()}))
    if (count := math.prod(len(items) for _, items in listed.values())) > MOST_ARMS:
        raise place.refuse(f"its lists make {count:,} combinations; {MOST_ARMS:,} arms at most")
    several = [key for key, (_, items) in listed.items() if named or len(items) > 1]
    # A default of 500 and a written 500 are one value, and must give one run id.
    metadata = {key: f.metadata for key, f in cls.__dataclass_fields__.items()}
    defaults = {
        key: float(cls.__dataclass_fields__[key].default)
        for key, m in metadata.items()
        if tricks_.is_number(m)
    }
    arms: list[Arm] = []
    for combination in itertools.product(*(items for _, items in listed.values())):
        values = {key: item.plain() for key, item in zip(listed, combination, strict=True)}
        trick = place.on_line(lambda values=values: tricks_.make(name, defaults | values))
        if trick.is_off:
            raise place.refuse(f"{values} switches it off; that is the baseline")
        suffix = ",".join(f"{key}={values[key]}" for key in several)
        arms.append(Arm(f"{name}.{suffix}" if suffix else name, role, (trick,)))
    return _once(place, arms)


def _once(place: Place, arms: list[Arm]) -> list[Arm]:
    """Return the arms; refuse one that stands twice."""
    doubled = next((a for i, a in enumerate(arms) if a.tricks in [b.tricks for b in arms[:i]]), None)
    if doubled:
        raise place.refuse(f"{doubled.name} stands twice")
    return arms


def _design(
    place: Place, levels: dict[str, list[Arm]], data: DataSpec, grid: str
) -> tuple[Design, tuple[Arm, ...]]:
    base: list[Trick] = []
    fields: dict[str, Place] = {}
    if isinstance(place.value, dict):
        fields = place.mapping(
            ("arms", "kind", "baseline", *(key for keys in OPTIONS.values() for key in keys))
        )
        if "arms" in fields:
            if len(fields) > 1:
                raise place.refuse("arms are listed whole; among them can be one called baseline")
            arms = _explicit(fields["arms"], levels)
            return designs.of_arms(
                {a.name: {t.name(): t.values for t in a.tricks} for a in arms if a.role != "control"},
                "baseline",
            ), arms
        if "baseline" in fields:
            base = _one_each(fields["baseline"], {})
        place = fields.get("kind", Place(place.file, place.path, place.line, designs.ONE_AT_A_TIME))
    kind = place.text(designs.KINDS)
    tested = {name: arms for name, arms in levels.items() if arms[0].role == "trick"}
    if kind == designs.SCREENING:
        tested = {name: _three(place, name, arms) for name, arms in tested.items()}
    offset = 0 if kind == designs.SCREENING else 1  # three values have no level `off`

    def on(cell: designs.Cell) -> tuple[Trick, ...]:
        chosen = zip(tested.values(), cell, strict=True)
        return tricks_.ordered(arms[i - offset].tricks[0] for arms, i in chosen if i - offset >= 0)

    def possible(cell: designs.Cell) -> bool:
        return compat.impossible(_upon(base, Arm("", "trick", on(cell))).tricks, data) is None

    factors = [
        designs.Factor(name, (designs.OFF,) * offset + tuple(arm.name for arm in arms), not offset)
        for name, arms in tested.items()
    ]
    options = _options(fields, kind, place)
    try:
        design = designs.make(kind, factors, possible=possible, **({"seed": grid} | options))
    except Refused as refused:
        raise place.refuse(str(refused)) from None
    first = design.reference
    arms = [
        Arm(name, "baseline" if name == first else "trick", on(cell))
        for name, cell in zip(design.names, design.cells, strict=True)
    ]
    if first not in design.names:
        arms.insert(0, Arm(first, "baseline", ()))
    for arm in (arm for variants in levels.values() for arm in variants if arm.role == "control"):
        name = arm.name if first == "baseline" else f"{first}+{arm.name}"
        arms.append(Arm(name, "control", tricks_.ordered([*arms[0].tricks, *arm.tricks])))
    return design, tuple(_upon(base, arm) for arm in arms)


def _options(fields: dict[str, Place], kind: str, place: Place) -> dict[str, Any]:
    """Return what the grid says of a kind of design beyond its name; refuse what belongs to another kind."""
    own = OPTIONS.get(kind, ())
    for key in fields:
        if key not in ("kind", "baseline", *own):
            owner = next(kind for kind, keys in OPTIONS.items() if key in keys)
            raise fields[key].refuse(f"{key} belongs to the design {owner}, not to {kind}")
    options: dict[str, Any] = {}
    if "resolution" in fields:
        options["resolution"] = fields["resolution"].number(3, 5)
    if "foldover" in fields:
        options["foldover"] = fields["foldover"].value
        if not isinstance(options["foldover"], bool):
            raise fields["foldover"].refuse(f"{fields['foldover'].shown()} is not true or false")
    if "cells" in fields:
        options["cells"] = fields["cells"].number(2, 2**16)
    if "seed" in fields:
        options["seed"] = fields["seed"].number(0, 10**9)
    needed = {designs.FRACTIONAL: "resolution", designs.RANDOM: "cells"}.get(kind)
    if needed and needed not in options:
        raise place.refuse(f"{needed} is missing, as in {{kind: {kind}, {needed}: {EXAMPLES[needed]}}}")
    return options


def _three(place: Place, name: str, arms: list[Arm]) -> list[Arm]:
    """Return a trick's three values from low to high; refuse a trick that has not three values of one number."""
    values = [arm.tricks[0].values for arm in arms]
    differ = [key for key in values[0] if len({v[key] for v in values}) > 1]
    number = len(differ) == 1 and all(type(v[differ[0]]) in (int, float) for v in values)
    if len(arms) != 3 or not number:
        raise place.refuse(
            f"{designs.SCREENING} needs three values of one number of each trick: low, centre and high; {name} has not"
        )
    return sorted(arms, key=lambda arm: arm.tricks[0].values[differ[0]])


def _upon(base: Iterable[Trick], arm: Arm) -> Arm:
    """Return the arm with the tricks of the baseline that it does not set itself."""
    own = {trick.name() for trick in arm.tricks}
    kept = [trick for trick in base if trick.name() not in own]
    return replace(arm, tricks=tricks_.ordered([*kept, *arm.tricks])) if kept else arm


def _explicit(place: Place, levels: dict[str, list[Arm]]) -> tuple[Arm, ...]:
    arms = {"baseline": Arm("baseline", "baseline", ())}
    for name, inside in place.mapping().items():
        if not NAME.fullmatch(name.replace("=", "_").replace("+", "_").replace(",", "_")):
            raise inside.refuse("not a name for an arm: letters, digits and . _ - = + ,")
        arms[name] = Arm(name, "trick", tricks_.ordered(_one_each(inside, levels)))
    base = arms["baseline"].tricks
    controls = {name for name, variants in levels.items() if variants[0].role == "control"}
    for name, arm in arms.items():
        # What an arm has beyond the baseline says whether a trick is tested or the harness.
        more = [trick for trick in arm.tricks if trick not in base]
        control = bool(more) and all(type(t).control or t.name() in controls for t in more)
        arms[name] = replace(
            arm, role="baseline" if name == "baseline" else "control" if control else "trick"
        )
    for arm in (arm for variants in levels.values() for arm in variants if arm.role == "control"):
        arms.setdefault(arm.name, _upon(base, arm))
    used = {trick.name() for arm in arms.values() for trick in arm.tricks}
    for name in levels:
        if name not in used:
            raise place.refuse(f"no arm uses {name}, which tricks lists; put it in an arm or take it out")
    return tuple(arms.values())


def _one_each(place: Place, levels: dict[str, list[Arm]]) -> list[Trick]:
    """Return the tricks of one arm: a list of names (those in `levels` with the values there), or names with values."""
    if isinstance(place.value, dict):
        own = {key: _variants(key, value, "trick") for key, value in place.value.items()}
    else:
        own = {}
        for item in place.items() if place.value is not None else []:
            word = item.text()
            if word in own:
                raise item.refuse(f"{word} stands twice in this arm")
            own[word] = levels.get(word) or _variants(word, Place(item.file, word, item.line, None), "trick")
    for key, variants in own.items():
        if len(variants) > 1:
            raise place.refuse(f"{key} has several values; an arm takes one of each")
    return [trick for [arm] in own.values() for trick in arm.tricks]


def _tiny(place: Place | None, arms: Iterable[Arm]) -> dict[str, dict[str, float]]:
    """Return what `--scale tiny` multiplies the arms' dials by; refuse dials that no arm has."""
    scales: dict[str, dict[str, float]] = {}
    used = {trick.name(): trick for arm in arms for trick in arm.tricks}
    for name, inside in place.mapping().items() if place is not None else ():
        if name not in used:
            raise inside.refuse(f"no arm has such a trick{nearest(name, used)}")
        dials = tuple(f.name for f in used[name].dials())
        scales[name] = {key: float(v.number(0, 1, whole=False)) for key, v in inside.mapping(dials).items()}
    return scales


def _seeds(place: Place, contrasts: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the seeds, and the looks where two are declared."""
    if not isinstance(place.value, dict):
        return tuple(range(place.number(1, 10_000))), ()
    fields = place.mapping(("count", "first", "looks"))
    if ("count" in fields) == ("looks" in fields):
        raise place.refuse("count is missing" if "count" not in fields else "give count or looks, not both")
    first = fields["first"].number(0, 10**9) if "first" in fields else 0
    if "count" in fields:
        return tuple(range(first, first + fields["count"].number(1, 10_000))), ()
    looks = tuple(item.number(1, 10_000) for item in fields["looks"].items())
    if len(looks) != 2 or looks[0] >= looks[1]:
        raise fields["looks"].refuse(
            f"{fields['looks'].shown()} are not two rising numbers of seeds, as in [10, 20]"
        )
    if (smallest := smallest_p(looks[0], contrasts)) >= (level := ALPHA / len(looks)):
        raise fields["looks"].refuse(
            f"the first look, at {looks[0]} seeds, cannot reject anything: over {contrasts} contrasts Holm's "
            f"correction leaves no p below {smallest:.3g}, and a look is taken at {level:g}; take more seeds, fewer "
            "arms, or one look (count)"
        )
    return tuple(range(first, first + looks[1])), looks


def smallest_p(pairs: int, contrasts: int) -> float:
    """Return the smallest p that an exact two-sided signed-rank test of `pairs` can leave after Holm's correction."""
    return 2.0 ** (1 - pairs) * max(contrasts, 1)


def _budget(place: Place | None) -> Budget:
    if place is None:
        return Budget("images", 20_000)
    units = place.mapping(("images", "steps", "epochs"))
    if len(units) != 1:
        raise place.refuse("give one of: images, steps, epochs")
    [(unit, amount)] = units.items()
    if unit == "epochs":
        return Budget(unit, float(amount.number(1e-6, 10**6, whole=False)))
    return Budget(unit, amount.number(1, 10**10))


def _score(place: Place, data: DataSpec) -> Score:
    fields = place.mapping(("extractor", "samples", "points", "metrics", "readouts", "limits"))
    extractor = SETS[data.set].default_extractor
    if "extractor" in fields:
        extractor = fields["extractor"].text(EXTRACTORS)
        if extractor == "classifier" and not SETS[data.set].class_names:
            raise fields["extractor"].refuse(
                f"{data.set} has no labels to train a classifier on; inception-v3-compat"
            )
    points = fields.get("points", Place(place.file, "score.points", place.line, 5))
    if isinstance(points.value, list):
        fractions = tuple(item.number(1e-9, 1, whole=False) for item in points.items())
        if list(fractions) != sorted(set(fractions)) or fractions[-1:] != (1,):
            raise points.refuse("fractions of the budget, rising, the last one 1")
    else:
        count = points.number(1, 1_000)
        fractions = tuple((i + 1) / count for i in range(count))
    metrics = METRICS
    if "metrics" in fields:
        asked = [item.text(METRICS) for item in fields["metrics"].items()]
        if "fid" not in asked:
            raise fields["metrics"].refuse("fid is missing: it is what arms are compared by")
        metrics = tuple(m for m in METRICS if m in asked)
    samples = fields["samples"].number(2, 10**6) if "samples" in fields else 5_000
    readouts, limits = _readouts(fields.get("readouts")), _limits(fields.get("limits"))
    return Score(extractor, samples, tuple(map(float, fractions)), metrics, readouts, limits)


def _limits(place: Place | None) -> tuple[tuple[str, float], ...]:
    """Return the failure detectors' limits that are not the usual ones, by name."""
    usual = vars(Limits())
    given = {} if place is None else place.mapping(tuple(usual))
    values = {name: float(inside.number(0, 1e9, whole=False)) for name, inside in given.items()}
    return tuple((name, value) for name, value in sorted(values.items()) if value != usual[name])


def _readouts(place: Place | None) -> tuple[tuple[str, tuple[tuple[str, float], ...]], ...]:
    """Return the read-outs of a grid with their values: all there are, at their defaults, where it names none."""
    known = {name: cls() for name, cls in tricks_.registry().items() if cls.readout}
    if place is None:
        return tuple((name, tuple(trick.values.items())) for name, trick in known.items())
    chosen = []
    for name, variants in _levels(place, "readout").items() if place.value else ():
        if name not in known:
            raise place.refuse(f"{name} is no read-out; one of: {', '.join(known)}{nearest(name, known)}")
        if len(variants) > 1:
            raise place.refuse(f"{name} has several values; a read-out takes one")
        chosen.append((name, tuple(variants[0].tricks[0].values.items())))
    return tuple(chosen)
