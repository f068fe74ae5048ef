"""Whatever is fed to what reads grids and results: taken whole, or refused in one line; never a traceback."""

import contextlib
import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fake_results
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench import design as designs
from bench import exports, pages, plan, report, run, sensitivity, store, tune
from bench import grid as grids
from bench.analyse import analyse
from bench.errors import Refused
from bench.store import Store

FAST = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
FEW = settings(FAST, max_examples=40)  # of those that write and read a folder
MANY = settings(FAST, max_examples=50_000, derandomize=False)
CELLS = 500  # runs of the grids that are planned whole


def one_line(refused: Refused) -> None:
    message = str(refused)
    assert message
    assert message.isprintable(), message
    assert len(message) < 3_000, message


def survives(text: str) -> None:
    """Read grids from a text and plan them, or be refused in one line."""
    try:
        for grid in grids.read_all(text, "fuzz.yaml"):
            count = len(grid.arms) * len(grid.seeds)
            if count <= CELLS:
                assert len(plan.runs(grid)) == count
    except Refused as refused:
        one_line(refused)


# --- what is fed: odd values, trees of them, packaged grids with nodes deleted, replaced, swapped, wrapped, doubled

ODD = [
    None, True, False, 0, -1, 1, 2, 16, 10**9, 10**30, -(10**400), 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"),
    "", " ", "0", "1e5", "nan", "~", "null", "yes", "../..", "/etc/passwd", "a/b", "..", "a\0b", "\x07", "\x1b[2J",
    "\u202e", "\udcff", "é", "🦄", "<script>alert(1)</script>", "$(reboot)", "`x`", "a\nb", "\r\n", "x" * 5_000,
    [], {}, [[]], [{}], {"": None}, {"a": {}}, [1, "a"], {"count": 3}, {"kind": "fractional"}, list(range(300)),
]  # fmt: skip
WORDS = sorted({"all", "arms", "first", "count", "set", *grids.KEYS, *designs.KINDS})
scalars = st.one_of(
    st.sampled_from([odd for odd in ODD if not isinstance(odd, list | dict)]),
    st.sampled_from(WORDS),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=4),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(scalars, inner, max_size=4)),
    max_leaves=12,
)
PACKAGED = {
    name: list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for name, path in grids.packaged().items()
}


def nodes(tree, path=()):
    """Yield the path of every node below the top."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from nodes(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def mutate(draw, tree) -> None:
    """Change one node of a tree in place."""
    paths = list(nodes(tree))
    if not paths:
        return
    path = draw(st.sampled_from(paths))
    parent, key = at(tree, path[:-1]), path[-1]
    match draw(st.sampled_from(["delete", "replace", "odd", "swap", "wrap", "rename", "double"])):
        case "delete":
            del parent[key]
        case "replace":
            parent[key] = draw(trees)
        case "odd":
            parent[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        case "swap":
            other = draw(st.sampled_from(paths))
            if other[: len(path)] != path and path[: len(other)] != other:
                there = at(tree, other[:-1])
                parent[key], there[other[-1]] = there[other[-1]], parent[key]
        case "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"kind": parent[key]}]))
        case "rename" if isinstance(parent, dict):
            parent[draw(st.one_of(scalars, st.sampled_from(WORDS)))] = parent.pop(key)
        case "double":
            parent[key] = [parent[key], copy.deepcopy(parent[key])]


@st.composite
def mutated_grids(draw) -> str:
    documents = copy.deepcopy(PACKAGED[draw(st.sampled_from(sorted(PACKAGED)))])
    for document in documents:
        document["seeds"] = 2
    for _ in range(draw(st.integers(1, 4))):
        mutate(draw, documents)
    return yaml.dump_all(documents, allow_unicode=draw(st.booleans()))


TEXTS = {name: path.read_text(encoding="utf-8") for name, path in grids.packaged().items()}
BITS = [
    "\t", "\0", "\x85", "\ufeff", "&a ", "*a", "<<: *a", "!!python/object/apply:os.system [ls]", "!x", "%YAML 9.9\n",
    "---\n", "...\n", "- ", "? ", ": ", "{", "}", "[", "]", "|", ">", "'", '"', "#", "\n", "  ", "é", "0x", "1_0",
    "2001-01-01", "12:30:45", ".inf", "=", "<<",
]  # fmt: skip


@st.composite
def mutated_texts(draw) -> str:
    text = TEXTS[draw(st.sampled_from(sorted(TEXTS)))]
    for _ in range(draw(st.integers(1, 4))):
        a, b = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        b = min(b, a + draw(st.sampled_from([0, 1, 3, 40, 10**6])))
        text = text[:a] + draw(st.one_of(st.sampled_from(BITS), st.text(max_size=5))) + text[b:]
    return text


grid_texts = st.one_of(
    mutated_grids(),
    mutated_grids(),
    mutated_texts(),
    trees.map(lambda tree: yaml.dump(tree, allow_unicode=True)),
    trees.map(lambda tree: yaml.dump({"name": "g", "data": "digits", "tricks": tree})),
    st.text(max_size=200),
)

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HARD = {
    "a billion laughs": LAUGHS,
    "a name that holds itself": "a: &a [*a]",
    "a tree without end": "[" * 5_000,
    "a whole number without end": f"name: g\ndata: digits\ntricks: [placebo]\nseeds: {'9' * 5_000}",
    "a product of fractions": "name: g\ndata: digits\ntricks: {label_noise: {real: ["
    + ", ".join(f"0.{i:04}" for i in range(1, 900))
    + "], fake: ["
    + ", ".join(f"0.{i:04}" for i in range(1, 900))
    + "]}}",
    "more runs than anybody makes": "name: g\ndata: digits\nseeds: 10_000\ndesign: full-factorial\ntricks: ["
    + "label_smoothing, input_noise, pooling, noise_length, dropout, label_noise, spectral_norm]",
    "code": "name: !!python/object/apply:os.system ['exit 1']",
    "merge keys": "name: g\ndata: digits\ntricks: &t {placebo: }\ncontrols: {<<: *t}",
    "a control character": 'name: "\\e[2J"\ndata: digits\ntricks: [placebo]',
    "a control character in a key": '"\\e[2J": 1',
}


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
def test_what_is_meant_to_hurt_is_refused_in_one_line(text):
    with pytest.raises(Refused) as caught:
        grids.read(text, "hard.yaml")
    one_line(caught.value)


@FAST
@given(grid_texts)
@example("")
@example("\ufeff")
def test_a_grid_is_taken_or_refused_in_one_line(text):
    survives(text)


@FAST
@given(st.one_of(st.binary(max_size=80), mutated_texts().map(lambda t: t.encode("utf-16", "surrogatepass"))))
def test_bytes_are_taken_or_refused_in_one_line(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g.yaml"
        path.write_bytes(data)
        try:
            grids.load_all(str(path))
        except Refused as refused:
            one_line(refused)


@pytest.mark.slow
@MANY
@given(st.one_of(mutated_grids(), mutated_texts()))
def test_fifty_thousand_changed_grids(text):
    survives(text)


@pytest.mark.slow
@MANY
@given(grid_texts)
def test_fifty_thousand_grids_of_all_kinds(text):
    survives(text)


# --- results


GRID = grids.read(
    "name: g\ndata: digits\nseeds: 2\ntricks: {pooling: {kind: [max, average]}, placebo: }", "g.yaml"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The results folder of GRID, all of its runs made, with its journal."""
    planned = {(r.arm, r.seed): r.id for r in plan.runs(GRID)}
    arms = {arm.name: fake_results.ARMS[arm.name] for arm in GRID.arms}
    made = fake_results.write(tmp_path_factory.mktemp("fuzz") / "g", arms=arms, seeds=2, samples=False)
    environment = json.loads((made / "environment.json").read_text())
    environment |= run.description(GRID) | {"picked": {"slots": 2, "threads": 1, "runs_per_array": {"x": 2}}}
    (made / "environment.json").write_text(json.dumps(environment))
    runs, curves = (
        store.read_table(made / f"{name}.csv", keys)
        for name, keys in (("runs", ()), ("curves", store.CURVES))
    )
    for file in ("runs.csv", "curves.csv"):
        (made / file).unlink()
    with Store(made) as kept:
        for row in runs:
            made_as = planned[row["arm"], int(row["seed"])]
            own = [tuple((line | {"run": made_as}).values()) for line in curves if line["run"] == row["run"]]
            own += [
                (made_as, str(images), "raw-eval", metric, "2000", str(value))
                for images in fake_results.POINTS
                for metric, value in FIGURES.items()
            ]
            kept.commit([row | {"run": made_as}], own)
        kept.export()
    assert resumes(made) == 0  # all there, nothing to do
    return made


FIGURES = {"flat": 0.5, "saturated": 0.4, "saturated_real": 0.4, "spread": 0.9, "classes": 10, "classes_real": 10,
           "kl": 0.1, "fd_spread": 0.02, "pairs": 0.9, "within": 0.9, "coverage": 0.5}  # fmt: skip
FILES = ("runs.csv", "curves.csv", "environment.json", "tricks.json", "journal.jsonl")
CUTS = [",", '"', "\n", "\r", "\0", "-", "nan", "inf", "1e999", "0x1", " ", "''", "é", "\udcff", "ok", "baseline",
        "{", "]", "null", "NaN", "-1", "999999999999999999999999", "<b>", "a\nb", "\u2028", "[" * 3_000]  # fmt: skip


@st.composite
def damage(draw) -> tuple[str, bytes]:
    """A file of the folder, and what it holds after a few changes: drawn on the folder's own text later."""
    return draw(st.sampled_from(FILES)), draw(
        st.lists(
            st.tuples(
                st.floats(0, 1),
                st.sampled_from([0, 1, 2, 8, 60, 10**6]),
                st.one_of(st.sampled_from(CUTS), st.text(max_size=3)),
            ),
            min_size=1,
            max_size=3,
        )
    )


@st.composite
def replaced(draw) -> tuple[str, object]:
    """A JSON file of the folder, and a mutation of its tree."""
    return draw(st.sampled_from(FILES[2:4])), draw(st.randoms(use_true_random=False)), draw(trees)


holes = st.tuples(  # a table, what to take out of it or to write over, which, and what to write
    st.sampled_from(FILES[:2]),
    st.sampled_from(["column", "rows", "cell", "cells", "metric", "point"]),
    st.randoms(use_true_random=False),
    st.sampled_from(["", "", "0", "1", "-1", "1e300", "x", "ok", "collapsed", "failed"]),
)


@contextlib.contextmanager
def a_copy(folder: Path) -> Iterator[Path]:
    """A copy of a results folder, in memory where there is such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        yield Path(shutil.copytree(folder, Path(place) / "g"))


def reads(folder: Path) -> None:
    """Read a results folder in all ways, `bench run` last, or be refused in one line."""
    for way in (judges, lambda path: Store(path).peek(), resumes):
        try:
            way(folder)
        except Refused as refused:
            one_line(refused)


def judges(folder: Path) -> None:
    """`bench report` on the folder without its charts, and what `bench verify` judges again."""
    analysis = analyse(report.read(folder))
    blocks = report._blocks(analysis, {})
    assert pages.to_markdown(blocks)
    assert pages.to_html("g", blocks)
    assert exports.files(analysis)
    sensitivity.failed_at(analysis.results, set(analysis.results.runs["run"]))


def resumes(folder: Path) -> int | None:
    """`bench run` on the folder, up to where it would train what is missing: return its exit code, or None there."""

    def missing(grid, planned, done, options, devices, store, before, log):
        tune.choose(before, "cpu", 2, None, None)
        raise Train

    options = run.Options(results=folder.parent, device="cpu", stale="keep")
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Train):
        patch.setattr(run, "_prepare", missing)
        return run.run(GRID, options, one_line)
    return None


class Train(Exception):
    """A run is missing."""


def check_damage(folder: Path, change) -> None:
    """Change some bytes of a file."""
    name, changes = change
    with a_copy(folder) as to:
        text = (to / name).read_bytes()
        for place, length, new in changes:
            a = int(place * len(text))
            way = "surrogateescape" if "\udcff" in new else "surrogatepass"
            text = text[:a] + new.encode("utf-8", way) + text[a + length :]
        (to / name).write_bytes(text)
        reads(to)


def check_holes(folder: Path, name: str, what: str, random, value: str) -> None:
    """Take a column, rows or a metric out of a table, or write a value into a cell or into those of one run."""
    with a_copy(folder) as to:
        (to / "journal.jsonl").unlink()  # which would fill the holes
        table = pd.read_csv(to / name, dtype=str, keep_default_na=False)
        row, column = random.randrange(len(table)), random.choice(list(table))
        alike = [key for key in ("run", "metric") if key in table]
        match what:
            case "column":
                table = table.drop(columns=column)
            case "rows":
                table = table[[random.random() < 0.7 for _ in range(len(table))]]
            case "cell":
                table.loc[row, column] = value
            case "cells":
                table.loc[table["run"] == table["run"][row], column] = value
            case "metric":
                table = table[(table[alike] != table[alike].iloc[row]).any(axis=1)]
            case "point":
                table = table.drop(index=row)
        table.to_csv(to / name, index=False)
        reads(to)


def check_tree(folder: Path, name: str, random, tree) -> None:
    """Put a tree at a random node of a JSON file."""
    with a_copy(folder) as to:
        whole = json.loads((to / name).read_text())
        path = random.choice(list(nodes(whole)))
        at(whole, path[:-1])[path[-1]] = tree
        (to / name).write_text(json.dumps(whole, default=repr, skipkeys=True))
        reads(to)


@FEW
@given(change=damage())
def test_damaged_results_are_read_or_refused_in_one_line(folder, change):
    check_damage(folder, change)


@FEW
@given(change=replaced())
def test_results_with_another_value_somewhere_are_read_or_refused_in_one_line(folder, change):
    check_tree(folder, *change)


@settings(FEW, max_examples=20)  # most of these are whole reports
@given(change=holes)
def test_tables_with_holes_are_read_or_refused_in_one_line(folder, change):
    check_holes(folder, *change)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ["[" * 100_000, f'{{"run": {"9" * 5_000}}}'], ids=["brackets", "digits"])
def test_a_file_of_brackets_or_digits_without_end_is_refused_in_one_line(folder, name, text, tmp_path):
    shutil.copytree(folder, tmp_path / "g")
    (tmp_path / "g" / name).write_text(text)
    reads(tmp_path / "g")


@pytest.mark.slow
@MANY
@given(change=damage())
def test_fifty_thousand_damaged_results(folder, change):
    check_damage(folder, change)


@pytest.mark.slow
@MANY
@given(change=replaced())
def test_fifty_thousand_results_with_another_value_somewhere(folder, change):
    check_tree(folder, *change)


@pytest.mark.slow
@MANY
@given(change=holes)
def test_fifty_thousand_tables_with_holes(folder, change):
    check_holes(folder, *change)
