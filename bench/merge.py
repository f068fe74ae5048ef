"""`bench merge OUT A B ...`: result folders of one grid, made on several machines, become one."""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.compare import refuse_different
from bench.errors import Refused
from bench.results import LATER, MACHINE_FAILURES, Results, load
from bench.store import CURVES, Store, read_table, reading, write_atomically
from bench.verify import Subject, subject

SAME = ("data", "recipe", "budget", "score")
# Columns in which a run may differ from itself: where, when and beside how many others it was made.
OF_MACHINE = (
    "arm", "mode", "runs_per_array", "threads", "device", "train_seconds", "score_seconds", "peak_memory_mb",
    "environment", "source",
)  # fmt: skip
ROUNDING = 1e-3  # by how much the cap, the untrained generator's score, may differ between machines


def merge(out: Path, parts: Sequence[Path]) -> list[str]:
    """Write the union of result folders to `out`, so that `bench run` can go on in it; return what there is to say.

    A run in several parts is kept once, as the first has it in which no machine failed. Raises `Refused` where `out` is
    there, a `bench run` is at work in a part or was stopped before its tables were written, the parts are not of one
    grid (naming the key), or one run has other numbers in two of them (naming both).
    """
    if len(parts) < 2:
        raise Refused("merge: at least two result folders are needed")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"{out} is there already; nothing is overwritten: give another name, or move it away")
    with ExitStack() as held:
        for part in parts:
            held.enter_context(reading(part))
            if behind := Store(part).behind():
                raise Refused(
                    f"{part}: {len(behind)} runs are in its journal.jsonl and not so in runs.csv; `bench run` there"
                    " once more writes them"
                )
        return _united(out, parts)


def _united(out: Path, parts: Sequence[Path]) -> list[str]:
    subjects = [subject(part) for part in parts]
    loaded = [s.results for s in subjects]
    first = loaded[0]
    for other in loaded[1:]:
        for key in SAME:
            sides = (first.environment[key], other.environment[key])
            refuse_different(first.path, other.path, key, *sides, why="merged")
        dtypes = [{"dtype": r.environment.get("dtype")} for r in (first, other)]
        refuse_different(first.path, other.path, "environment.json", *dtypes, why="merged")
    merged = dict(first.environment)
    declared = [r.environment.get("seeds") for r in loaded]
    if all(isinstance(seeds, list) for seeds in declared):
        merged["seeds"] = sorted(set().union(*declared))
    else:
        merged.pop("seeds", None)
    merged["arms"] = _arms(loaded)
    for key in ("environments", "protocols"):
        merged[key] = _union(loaded, key)
    _one_protocol(loaded)
    merged["cap"] = _cap(loaded)
    merged = {key: value for key, value in merged.items() if value is not None}
    cards = {name: card for r in reversed(loaded) for name, card in r.tricks.items()}
    rows, twice = _rows(subjects, {_key(arm): arm["arm"] for arm in merged["arms"]})
    curves = _curves(loaded, rows)
    files = {name: path for r in reversed(loaded) for name, path in _files(r, rows).items()}
    chosen = max(subjects, key=lambda s: len(s.planned.keys() & rows.keys()))
    beyond, missing = len(rows.keys() - chosen.planned.keys()), len(chosen.planned.keys() - rows.keys())

    with Store(out) as store:
        for name, path in files.items():
            write_atomically(out / name, path.read_bytes())
        write_atomically(out / "grid.yaml", (chosen.folder / "grid.yaml").read_bytes())
        write_atomically(
            out / "environment.json", (json.dumps(merged, indent=1, sort_keys=True) + "\n").encode()
        )
        write_atomically(
            out / "tricks.json", (json.dumps(dict(sorted(cards.items())), indent=1) + "\n").encode()
        )
        store.commit(
            [row for _, row in rows.values()], [tuple(line[key] for key in CURVES) for line in curves]
        )
        store.export()
    load(out)  # what was written is what everything else reads
    counts = " + ".join(str(len(r.runs)) for r in loaded)
    lines = [f"{out}: {len(rows)} runs of {counts}, {twice} of them in more than one folder"]
    if beyond:
        lines.append(
            f"grid.yaml is that of {chosen.folder}; it plans {beyond} of the rows not: widen its seeds or arms"
        )
    if missing:
        lines.append(f"{missing} of {len(chosen.planned)} planned runs are still to be made")
    name = merged.get("grid", out.name)
    if out.resolve().name != name:
        lines.append(f"the grid is called {name}: `bench run` goes on in a folder of that name only")
    return lines


def _arms(loaded: list[Results]) -> list[dict[str, Any]]:
    """Return the arms of all parts; one set of tricks has one name, the first's."""
    made: dict[str, dict[str, Any]] = {}
    names: dict[str, tuple[Results, str]] = {}
    reference = next(a["arm"] for a in loaded[0].environment["arms"] if a["role"] == "baseline")
    for r in loaded:
        for arm in r.environment["arms"]:
            tricks = _key(arm)
            there, other = names.setdefault(arm["arm"], (r, tricks))
            if other != tricks:
                raise Refused(
                    f"{there.path} and {r.path} cannot be merged: arm {arm['arm']} is {other} in the first and "
                    f"{tricks} in the second"
                )
            known = made.setdefault(tricks, arm)
            if known["role"] != arm["role"] and "baseline" in (known["role"], arm["role"]):
                raise Refused(
                    f"{loaded[0].path} and {r.path} cannot be merged: the arms of the first are compared with "
                    f"{reference}, those of the second with another (arm {arm['arm']} is {arm['role']})"
                )
    baselines = [arm["arm"] for arm in made.values() if arm["role"] == "baseline"]
    if len(baselines) > 1:
        raise Refused(
            f"{loaded[0].path} and the others cannot be merged: their arms are compared with "
            f"{' and with '.join(baselines)}"
        )
    return list(made.values())


def _key(arm: dict[str, Any]) -> str:
    return json.dumps(arm["tricks"], sort_keys=True)


def _union(loaded: list[Results], what: str) -> dict[str, Any]:
    """Return all records of environment.json by key; one key must be one record."""
    union: dict[str, tuple[Results, Any]] = {}
    for r in loaded:
        for key, record in r.environment[what].items():
            there, known = union.setdefault(key, (r, record))
            if known != record:
                raise Refused(
                    f"{there.path} and {r.path} cannot be merged: {key} of {what} differs between them"
                )
    return {key: record for key, (_, record) in union.items()}


def _one_protocol(loaded: list[Results]) -> None:
    """Refuse rows whose scores do not mean the same, naming the keys."""
    used: dict[str, Results] = {}
    for r in loaded:
        for key in r.runs["protocol"].dropna().unique():
            used.setdefault(key, r)
    (a, first), *others = used.items() or [("", loaded[0])]
    for b, r in others:
        sides = (first.environment["protocols"][a], r.environment["protocols"][b])
        refuse_different(first.path, r.path, "protocol", *sides, why="merged")


def _cap(loaded: list[Results]) -> dict[str, Any] | None:
    """Return the first cap; another machine's may differ by rounding."""
    caps = [(r, r.environment["cap"]["fd"]) for r in loaded if (r.environment.get("cap") or {}).get("fd")]
    for r, cap in caps[1:]:
        if not math.isclose(cap, caps[0][1], rel_tol=ROUNDING):
            raise Refused(
                f"{caps[0][0].path} and {r.path} cannot be merged: cap.fd is {caps[0][1]:.6g} in the first "
                f"and {cap:.6g} in the second"
            )
    return {"fd": caps[0][1]} if caps else None


def _rows(
    subjects: list[Subject], names: dict[str, str]
) -> tuple[dict[str, tuple[Results, dict[str, str]]], int]:
    """Return the rows by run, each with where it is from, and how many runs were in several parts.

    names: of the arms by their tricks. Equal numbers are kept once, other numbers refused; a run that a machine
    failed to make gives way to one that was made.
    """
    rows: dict[str, tuple[Results, dict[str, str]]] = {}
    twice = set()
    for s in subjects:
        renamed = {arm["arm"]: names[_key(arm)] for arm in s.environment["arms"]}
        for run, cells in s.rows.items():
            row = cells | {"arm": renamed[cells["arm"]]}
            origin, there = rows.setdefault(run, (s.results, row))
            if origin is s.results:
                continue
            twice.add(run)
            if row["status"] in MACHINE_FAILURES:
                continue
            if there["status"] in MACHINE_FAILURES:
                rows[run] = (s.results, row)
                continue
            keys = {**there, **row}
            if not (there.get("probes") and row.get("probes")):  # one is from before these columns came
                keys = keys.keys() - LATER
            for key in keys:
                if key not in OF_MACHINE and there.get(key, "") != row.get(key, ""):
                    one, other = (cells.get(key) or "empty" for cells in (there, row))
                    raise Refused(
                        f"{origin.path} and {s.folder} cannot be merged: run {run} ({row['arm']}, seed "
                        f"{row['seed']}) has {key} {one} in the first and {other} in the second; "
                        "delete its row and its lines of curves.csv in one of the two"
                    )
    return rows, len(twice)


def _curves(loaded: list[Results], rows: dict[str, tuple[Results, dict[str, str]]]) -> list[dict[str, str]]:
    """Return the values along training of every run, from where its row is; other values elsewhere are refused."""
    by_part: list[dict[str, list[dict[str, str]]]] = [{} for _ in loaded]
    for r, own in zip(loaded, by_part, strict=True):
        for line in read_table(r.path / "curves.csv", CURVES):  # in whatever order somebody left them
            own.setdefault(line["run"], []).append(line)
    place = {id(r): i for i, r in enumerate(loaded)}
    for run, (origin, row) in rows.items():
        kept = by_part[place[id(origin)]].get(run, [])
        for r, own in zip(loaded, by_part, strict=True):
            if r is not origin and run in own and own[run] != kept:
                failed = r.runs.loc[r.runs["run"] == run, "status"].isin(MACHINE_FAILURES)
                if not failed.all():
                    raise Refused(
                        f"{origin.path} and {r.path} cannot be merged: run {run} ({row['arm']}, seed {row['seed']}) has"
                        " other values in curves.csv; delete its row and its lines in one of the two"
                    )
    return [line for run, (r, _) in rows.items() for line in by_part[place[id(r)]].get(run, [])]


def _files(r: Results, rows: dict[str, tuple[Results, dict[str, str]]]) -> dict[str, Path]:
    """Return the pictures and tracebacks of a part's rows and its classifier, by their names within the folder."""
    files = {}
    own = ("samples/**/*.png", "failures/*.txt", "classifier.safetensors")
    for path in sorted(path for pattern in own for path in r.path.glob(pattern)):
        name = path.relative_to(r.path)
        run = Path(name.parts[1]).stem if len(name.parts) > 1 else ""
        if run not in rows or rows[run][0] is r:
            files[str(name)] = path
    return files
