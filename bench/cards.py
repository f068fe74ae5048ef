"""Trick cards for people: the list, one card, and `tricks/README.md`."""

from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import Refused
from bench.store import write_atomically
from bench.tiny import SUFFIX
from bench.trick import FACTS, PLANNED, Trick, find, make, registry

ARROWS = {-1: "lower", 0: "no change or either way", 1: "higher"}
CHECKED = {"read": "", "quoted": "as quoted by others", "recalled": "not checked"}
RULES = {  # what a trick says of others: key of its card, and how it reads
    "requires": "requires",
    "conflicts": "cannot be with",
    "inert_if": "does nothing with",
    "interacts": "interacts with",
}


class Found(NamedTuple):
    """What one of our grids found of a trick."""

    grid: str
    arm: str
    verdict: str
    ratio: float
    low: float
    high: float
    score: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.score} ratio {self.ratio:.3g} ({self.low:.3g} to {self.high:.3g}), {self.arm}"


class Price(NamedTuple):
    """Parameters and multiply-adds of both networks with a trick's values, as ratios to the published recipe."""

    values: str
    parameters: str
    multiply_adds: str


def table() -> str:
    """Return one line a trick."""
    width = max(map(len, registry()))
    lines = [f"{name:{width}}  {cls.card()['summary']}" for name, cls in registry().items()]
    return "\n".join([*lines, "", "bench tricks NAME shows one trick's card."])


def card(name: str, results: Path = Path("results")) -> str:
    """Return one trick's card as text; raise `Refused` for an unknown trick."""
    cls = find(name)
    return "\n".join(_lines(cls, verdicts(results).get(name, [])))


def verdicts(results: Path) -> dict[str, list[Found]]:
    """Return what the results folders found of each trick on its own; folders of tiny grids do not count."""
    found: dict[str, list[Found]] = {}
    folders = [path.parent for path in sorted(results.glob("*/runs.csv"))]
    folders = [f for f in folders if not f.name.endswith(SUFFIX) and (f / "environment.json").exists()]
    if not folders:
        return found
    from bench.analyse import analyse
    from bench.factorial import main_effects
    from bench.results import load

    for folder in folders:
        try:
            analysis = analyse(load(folder))
        except Refused:  # `bench report` says what is wrong with it
            continue
        mains = main_effects(analysis)  # where there are some, single cells are not judged by themselves
        for effect in mains:
            seen = Found(folder.name, effect.name, effect.verdict, *effect.ratio, analysis.score.short)
            found.setdefault(effect.factor, []).append(seen)
        for effect in analysis.controls if mains else analysis.effects:
            if len(effect.tricks) == 1:
                seen = Found(
                    folder.name, effect.arm.name, effect.verdict, *effect.ratio, analysis.score.short
                )
                found.setdefault(effect.tricks[0], []).append(seen)
    return found


def prices(cls: type[Trick]) -> list[Price]:
    """Return what a trick's networks take at 32 pixels in colour, for its defaults and each value of its choices."""
    if not cls.fills(*PLANNED):
        return []
    from bench.program import Run
    from bench.recipe import Recipe
    from bench.spec import Budget, DataSpec

    def sizes(*tricks: Trick) -> tuple[int, int]:
        data, budget = DataSpec("cifar10", 32), Budget("steps", 1)
        nets = Run("priced", data, Recipe(), tricks, budget, 0, "float32", (1.0,)).program.nets
        return sum(net.size() for net in (nets.d, nets.g)), sum(
            net.multiply_adds() for net in (nets.d, nets.g)
        )

    plain, made = sizes(), []
    options = [{}] + [
        {f["name"]: value}
        for f in cls.card()["fields"]
        for value in f["among"] or ()
        if value != f["default"]
    ]
    for values in options:
        try:
            now = sizes(make(cls.name(), values))
        except Refused:  # these values need another trick's
            continue
        if now == plain:
            continue
        words = ", ".join(f"{key} {_word(value)}" for key, value in values.items()) or "defaults"
        price = Price(words, f"{now[0] / plain[0]:.3g}", f"{now[1] / plain[1]:.3g}")
        same = next((i for i, p in enumerate(made) if p[1:] == price[1:]), None)
        if same is None:
            made.append(price)
        else:
            made[same] = made[same]._replace(values=f"{made[same].values}; {words}")
    return made


def _allowed(field: dict[str, Any]) -> str:
    if field["among"]:
        return " | ".join(_word(value) for value in field["among"])
    return f"{_word(field['span'][0])} to {_word(field['span'][1])}"


def _word(value: Any) -> str:
    """Return a value as a grid file spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _notes(cls: type[Trick]) -> list[tuple[str, str]]:
    """Return (what, sentence) of everything a card says between claims and settings."""
    shown = cls.card()
    notes = [("ganhacks", f"number {shown['ganhacks']}")] if shown["ganhacks"] else []
    if shown["readout"]:
        notes.append(("read-out", "every run is scored with it, at no extra training: score: readouts"))
    if cls.loss:
        notes.append(("loss", f"{cls.loss} in the place of BCE; another loss cannot stand beside it"))
    for key, word in RULES.items():
        for other, why in shown[key].items():
            notes.append((word, f"{FACTS.get(other, other)}: {why}"))
    if shown["cost"]:
        notes.append(("cost", shown["cost"]))
    for price in prices(cls):
        if price.parameters == price.multiply_adds == "1":
            continue
        ratios = f"{price.parameters} times the parameters and {price.multiply_adds} times the multiply-adds"
        notes.append(("size", f"{ratios} of the published networks at 32 pixels in colour ({price.values})"))
    return notes


def _source(claim: dict[str, Any]) -> str:
    """Return how far a claim was checked, in brackets, where it was not read in the source."""
    checked = CHECKED[claim["evidence"]]
    return f" [{checked}]" if checked else ""


def _about(claim: dict[str, Any]) -> str:
    """Return the settings that a claim is about, where it is not about the trick as such."""
    values = ", ".join(f"{key} {_word(value)}" for key, value in claim["about"].items())
    return f"[{values}] " if values else ""


def _lines(cls: type[Trick], found: list[Found]) -> list[str]:
    shown = cls.card()
    lines = [
        f"{shown['name']}{' (a control)' if shown['control'] else ''}",
        "",
        shown["summary"],
        "",
        shown["doc"],
        "",
    ]
    for claim in shown["claims"]:
        lines += [
            f"claim   {_about(claim)}{claim['text']} ({claim['metric']}: {ARROWS[claim['direction']]}){_source(claim)}"
        ]
        lines += [f"        {claim['source']}{'  ' + claim['url'] if claim['url'] else ''}"]
    for what, sentence in _notes(cls):
        lines += ["", f"{what}: {sentence}"] if what == "ganhacks" else [f"{what}: {sentence}"]
    lines += [""] if shown["fields"] else []
    for field in shown["fields"]:
        off = f", off at {_word(field['off'])}" if field["off"] is not None else ""
        lines += [f"{field['kind']:7} {field['name']} = {_word(field['default'])}  ({_allowed(field)}{off})"]
        lines += [f"        {field['doc']}"]
    if found:
        lines += ["", "what our grids found (with it against without it; below 1 is better):"]
        lines += [f"  {seen.grid}: {seen}" for seen in found]
    return [line.rstrip() for line in lines]


def readme(root: Path | None = None) -> str:
    """Return tricks/README.md; what was found is read from results/ beside the folder of the tricks."""
    import tricks

    root = root or Path(tricks.__path__[0]).parent
    found = verdicts(root / "results")
    lines = [
        "# Tricks",
        "",
        "Written by `bench tricks --write` from the files in this folder and from [results](../results); a test fails "
        "when it is stale.",
        "",
        "A claim is as the source has it, read there, unless it says: *as quoted by others*, or *not checked* (from "
        "memory). A verdict of ours is of its grid's network, data and budget; ratios are of scores with the trick to "
        "scores without, below 1 is better, with a 95 % interval (97.5 % where a grid has two looks).",
        "",
        "| trick | what it does | our verdicts |",
        "|---|---|---|",
    ]
    for name, cls in registry().items():
        said = "<br>".join(_linked(root, seen, name) for seen in found.get(name, []))
        lines.append(f"| [`{name}`](#{name}) | {_cell(cls.card()['summary'])} | {said} |")
    for name, cls in registry().items():
        lines += _section(root, cls, found.get(name, []))
    return "\n".join(lines) + "\n"


def _section(root: Path, cls: type[Trick], found: list[Found]) -> list[str]:
    """Return a trick's card as Markdown."""
    shown = cls.card()
    control = " (control)" if shown["control"] else ""
    lines = ["", f"## {shown['name']}", "", f"[`{shown['name']}.py`]({shown['name']}.py){control}"]
    lines += ["", shown["summary"], "", *([shown["doc"], ""] if shown["doc"] else [])]
    for claim in shown["claims"]:
        source = f"[{claim['source']}]({claim['url']})" if claim["url"] else claim["source"]
        checked = f"; *{CHECKED[claim['evidence']]}*" if CHECKED[claim["evidence"]] else ""
        text = f"{_about(claim)}{claim['text']} ({claim['metric']}: {ARROWS[claim['direction']]}). {source}{checked}"
        lines.append(f"* claim: {text}")
    lines += [f"* {what}: {sentence}" for what, sentence in _notes(cls)]
    for field in shown["fields"]:
        off = f", off at {_word(field['off'])}" if field["off"] is not None else ""
        values = f"default {_word(field['default'])}, allowed {_allowed(field)}{off}"
        lines.append(f"* {field['kind']} `{field['name']}`: {field['doc']} ({values})")
    lines += [f"* found: {_linked(root, seen, '')}" for seen in found]
    return lines


def _linked(root: Path, seen: Found, short: str) -> str:
    """Return a finding with a link to its report; with `short`, a trick whose name needs no saying, in few words."""
    page = f"reports/{seen.grid}/index.md"
    grid = f"[{seen.grid}](../{page})" if (root / page).exists() else seen.grid
    if not short:
        return f"{grid}: {seen}"
    which = seen.arm.removeprefix(short).lstrip(".")
    return f"{f'{which}: ' if which else ''}{seen.verdict} ({seen.ratio:.3g}, {grid})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write() -> Path:
    """Write tricks/README.md beside the tricks and return its path."""
    import tricks

    path = Path(tricks.__path__[0]) / "README.md"
    write_atomically(path, readme().encode())
    return path
