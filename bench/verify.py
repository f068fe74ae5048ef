"""`bench verify NAME`: are checked-in files whole, consistent, and derived from one another?

No GPU and no torch, unless rows are trained again (bench/rerun.py).
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import grid as grids
from bench import plan, source, tiny
from bench.checks import Check, checked
from bench.data import SETS
from bench.errors import Refused
from bench.grid import Grid
from bench.program import Run
from bench.results import MACHINE_FAILURES, METHOD_FAILURES, PROBED, Results, load
from bench.run import description
from bench.sensitivity import doubtful, failed_at, judgeable
from bench.spec import file_hash, protocol_id
from bench.store import Store, cell, read_table
from bench.trick import make

READOUT = "raw-eval"  # what runs.csv holds (bench.worker, which imports torch)
SCORES = ("fd", "kid", "is", "precision", "recall")
TILES = (4, 8)  # rows and columns of a sample grid
WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Subject:
    """A results folder with what its grid plans; `rows` are the cells of runs.csv as they stand, by run."""

    folder: Path
    results: Results
    rows: dict[str, dict[str, str]]
    grid: Grid
    planned: dict[str, Run]

    @property
    def environment(self) -> dict[str, Any]:
        return self.results.environment


def subject(folder: Path) -> Subject:
    """Read a results folder and plan its grid, tiny where the folder is that of a tiny run; raises `Refused`."""
    results = load(folder)
    grid = grids.load(str(folder / "grid.yaml"))
    if results.environment.get("grid") == grid.name + tiny.SUFFIX:
        grid = tiny.tiny(grid)  # the file is that of the full grid, with a header
    planned = [replace(one, seed=seed) for _, one in plan.first_runs(grid) for seed in grid.seeds]
    rows = {row["run"]: row for row in read_table(folder / "runs.csv", ("run",))}
    return Subject(folder, results, rows, grid, {run.id: run for run in planned})


def verify(folder: Path, reports: Path) -> list[Check]:
    """Return what every check found; where the tables or the grid cannot be read, that alone.

    reports: where reports/NAME is. Raises `Refused` where the folder is not there.
    """
    if not folder.is_dir():
        load(folder)  # which says what there is instead
    try:
        s = subject(folder)
    except Refused as refused:
        return [Check("files", "failed", str(refused)), *_git(folder, reports)]
    found = [Check("files", "ok", f"{len(s.rows)} runs, {len(s.results.curves)} values along training")]
    for check in (*CHECKS, lambda s: _report(s, reports)):
        try:
            found.append(check(s))
        except Refused as refused:
            found.append(Check("refused", "failed", str(refused)))
    return [*found, *_git(folder, reports)]


# --- the plan


def _plan(s: Subject) -> Check:
    """Every planned run is a row; every row is planned, or of an arm or seed that an earlier grid had."""
    missing = [f"{run.arm}, seed {run.seed} ({run.id}) has no row" for run in s.planned.values()]
    missing = [text for run, text in zip(s.planned, missing, strict=True) if run not in s.rows]
    earlier = _earlier(s)
    strange = [run for run in s.rows if run not in s.planned and run not in earlier]
    problems = missing + [f"row {run} ({_where(s, run)}) is of no run that the grid plans" for run in strange]
    beyond = sum(run in earlier for run in s.rows)
    if beyond and not problems:
        text = (
            f"all {len(s.planned)} planned runs are rows; {beyond} rows more are of an earlier, larger grid"
        )
        return Check("plan", "note", text)
    return checked(
        "plan", problems, f"{len(s.planned)} runs are planned by grid.yaml, and these are the rows"
    )


def _earlier(s: Subject) -> dict[str, Run]:
    """Return the runs of environment.json's arms with the rows' seeds that the grid does not plan."""
    first = next(iter(s.planned.values()))
    seeds = sorted({int(row["seed"]) for row in s.rows.values()})
    found = {}
    for arm in s.environment["arms"]:
        tricks = tuple(make(name, dict(values)) for name, values in arm["tricks"].items())
        on = tuple(trick for trick in tricks if not trick.is_off)
        runs = (replace(first, arm=arm["arm"], tricks=on, seed=seed) for seed in seeds)
        found |= {run.id: run for run in runs if run.id not in s.planned}
    return found


def _rows(s: Subject) -> Check:
    """What a row says of its run is what the run is: arm, seed, dtype and the tricks' settings."""
    runs = s.planned | _earlier(s)
    settings = [name for name in next(iter(s.rows.values()), {}) if "." in name]
    problems = []
    for row in s.rows.values():
        run = runs.get(row["run"])
        if run is None:
            continue  # told by _plan
        wanted = {"arm": run.arm, "seed": run.seed, "dtype": run.dtype, "samples": s.grid.score.samples}
        wanted |= {"extractor": s.grid.score.extractor} | dict.fromkeys(settings)
        wanted |= {f"{t.name()}.{key}": value for t in run.tricks for key, value in t.values.items()}
        unscored = {"samples", "extractor"} if row["status"] in MACHINE_FAILURES else set()
        for key, value in wanted.items():
            if row.get(key, "") != cell(value) and key not in unscored:
                there, right = row.get(key) or "empty", cell(value) or "empty"
                problems.append(
                    f"row {row['run']} ({_where(s, row['run'])}): {key} is {there}, its run has {right}"
                )
    return checked("rows", problems, "arm, seed, dtype and settings of every row are those of its run id")


def _where(s: Subject, run: str) -> str:
    return f"{s.rows[run]['arm']}, seed {s.rows[run]['seed']}"


def _description(s: Subject) -> Check:
    """environment.json says of the grid what grid.yaml says."""
    now, problems = description(s.grid), []
    for key in ("grid", "data", "recipe", "budget", "score", "dtype", "design"):
        there = s.environment.get(key)
        if isinstance(there, dict):  # data holds the checksum besides; read-outs came later
            there = {k: v for k, v in there.items() if k in now[key]}
            there = {
                k: now[key][k] for k in ("readouts", "limits") if k in now[key] and k not in there
            } | there
        if there != now[key]:
            problems.append(
                f"{key} is {json.dumps(there)} in environment.json, {json.dumps(now[key])} in grid.yaml"
            )
    arms = {arm["arm"]: arm for arm in s.environment["arms"]}
    for arm in now["arms"]:
        if arms.get(arm["arm"]) != arm:
            problems.append(f"arm {arm['arm']} of grid.yaml is another in environment.json, or not there")
    return checked("grid", problems, "environment.json describes the grid of grid.yaml")


# --- the tables


def _journal(s: Subject) -> Check:
    """The journal's lines have their checksums, and the tables have what the journal has."""
    store = Store(s.folder)
    if not store.journal.exists():
        return Check("journal", "ok", "none (it is not checked in)")
    latest: dict[str, dict[str, str]] = {}
    for entry in store.entries():
        latest |= {row["run"]: row for row in entry.get("rows", ())}
    problems = []
    for run, row in latest.items():
        there = s.rows.get(run)
        if there is None:
            problems.append(
                f"run {run} ({row['arm']}, seed {row['seed']}) is in the journal, not in runs.csv"
            )
            continue
        other = [key for key, value in row.items() if key != "arm" and there.get(key, "") != value]
        if other:
            key = other[0]
            problems.append(
                f"row {run} ({_where(s, run)}): {key} is {there.get(key) or 'empty'} in runs.csv, "
                f"{row[key] or 'empty'} in the journal"
            )
    check = checked("journal", problems, f"{len(latest)} runs, every line with its checksum, as in runs.csv")
    if check.level == "failed":
        text = f"{check.text} (edited by hand; or the tables are newer, then delete journal.jsonl)"
        return check._replace(text=text)
    return check


def _curves(s: Subject) -> Check:
    """The last value of every curve is the row's, fd_best is the lowest, and an arm's curves have the same points."""
    curves = s.results.curves
    scores = curves[(curves["readout"] == READOUT) & curves["metric"].isin(SCORES)]
    runs = s.results.runs.set_index("run")
    last = scores[scores["images"] == scores["run"].map(runs["images"])]
    last = last.pivot_table(index="run", columns="metric", values="value", observed=True).reindex(runs.index)
    problems = []

    def compare(column: str, wanted: pd.Series, what: str) -> None:
        there = runs[column].astype("float64")
        bad = ~((there == wanted) | (there.isna() & wanted.isna()))
        for run in runs.index[bad]:
            told = f"{column} is {_number(there[run])} in runs.csv, {what} is {_number(wanted[run])}"
            problems.append(f"row {run} ({_where(s, run)}): {told}")

    for metric in SCORES:
        compare(metric, last.get(metric, pd.Series(np.nan, runs.index)), "the last value in curves.csv")
    distances = scores[scores["metric"] == "fd"].groupby("run")["value"].min().reindex(runs.index)
    compare("fd_best", distances, "the lowest in curves.csv")
    inception = s.grid.score.extractor.startswith("inception")
    none = pd.Series(np.nan, runs.index)
    compare("fid", runs["fd"].astype("float64") if inception else none, "by the extractor it")
    finished = runs.index[~runs["status"].isin((*MACHINE_FAILURES, "diverged"))]
    plain = curves[
        curves["run"].isin(finished) & (curves["readout"].isin([READOUT]) | curves["readout"].isna())
    ]
    plain = plain[~plain["metric"].isin(PROBED)]  # of these one that is not finite is left out
    points = plain.groupby("run", observed=True)["images"].agg(lambda x: tuple(sorted(x)))
    for arm, own in points.groupby(points.index.map(runs["arm"]), observed=True):
        usual = own.mode().iloc[0]
        for run in own.index[own != usual]:
            told = f"{len(own[run])} values in curves.csv where other runs of {arm} have {len(usual)}"
            problems.append(f"row {run} ({_where(s, run)}): {told}")
    lost = finished.difference(points.index)
    problems += [f"row {run} ({_where(s, run)}) has no curves" for run in lost]
    fine = "last values and best distances of runs.csv are those of curves.csv"
    return checked("curves", problems, fine)


def _number(value: Any) -> str:
    return "empty" if pd.isna(value) else repr(float(value))


def _status(s: Subject) -> Check:
    """A run that is not ok says why, one that is ok does not; curves.csv, judged again, gives the same status."""
    problems = []
    for run, row in s.rows.items():
        status, where = row["status"], f"row {run} ({_where(s, run)}): status {row['status']}"
        if status == "ok" and row["reason"]:
            problems.append(f'{where}, but a reason: "{row["reason"]}"')
        if status != "ok" and not row["reason"]:
            problems.append(f"{where} without a reason")
        if status in METHOD_FAILURES and not row["detectors"]:
            problems.append(f"{where} without a detector")
        if (status == "diverged") != ("nan" in row["detectors"].split(";")):
            problems.append(f"{where}, detectors {row['detectors'] or 'none'}: diverged and nan go together")
        if row["fd"] and status in (*MACHINE_FAILURES, "diverged"):
            problems.append(f"{where}, but a score")
        told = row.get("failed_at", "")
        if told and status not in METHOD_FAILURES:
            problems.append(f"{where}, but failed_at {told}")
        if row.get("probes") and not told and status in METHOD_FAILURES:
            problems.append(f"{where}, but failed_at is empty")
    again = judgeable(s.results) - _stale(s)
    problems += [
        f"row {run} ({_where(s, run)}): status {there}, but {wanted} by its detectors or curves.csv"
        for run, there, wanted in doubtful(s.results, again)
        if "diverged" not in (there, wanted)  # told above
    ]
    timed = {run for run in again if s.rows[run].get("probes") and s.rows[run]["status"] in METHOD_FAILURES}
    problems += [
        f"row {run} ({_where(s, run)}): failed_at is {s.rows[run]['failed_at']}, but {wanted} by curves.csv"
        for run, wanted in failed_at(s.results, timed).items()
        if s.rows[run].get("failed_at", "") not in ("", cell(wanted))
    ]
    failed = sum(row["status"] != "ok" for row in s.rows.values())
    fine = f"{failed} of {len(s.rows)} runs are not ok, each with its reason; {len(again)} judged again from curves.csv"
    if len(again) < len(s.rows):
        fine += ", the others cannot be: diverged, failed by the machine, or of another version of the code"
    return checked("status", problems, fine)


# --- pictures


def _pictures(s: Subject) -> Check:
    """Every run has its readable sample grid, those of the first seed their frames; the last frame is the grid."""
    from PIL import Image, UnidentifiedImageError

    info, folder, problems = SETS[s.grid.data.set], s.folder / "samples", []
    size = (TILES[1] * s.grid.data.size, TILES[0] * s.grid.data.size)
    seen = 0

    def look(path: Path) -> None:
        nonlocal seen
        shown = path.relative_to(s.folder)
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                picture.load()
                if picture.size != size or len(picture.getbands()) != info.channels:
                    problems.append(f"{shown} is {picture.size} {picture.mode}, not {size}")
        except FileNotFoundError:
            problems.append(f"{shown} is missing")
        except (OSError, SyntaxError, UnidentifiedImageError) as error:
            problems.append(f"{shown} is not a whole PNG ({' '.join(str(error).split())[:60]})")
        seen += 1

    look(folder / "real.png")
    known = {"real"}
    for run, row in s.rows.items():
        if row["status"] in MACHINE_FAILURES:
            continue
        known.add(run)
        look(folder / f"{run}.png")
        if int(row["seed"]) != s.grid.seeds[0] or run not in s.planned:
            continue
        frames = sorted((folder / run).glob("*.png"), key=lambda path: path.stem.zfill(20))
        for frame in frames:
            look(frame)
        if len(frames) != len(s.grid.score.points):
            told = f"{len(frames)} frames, the grid has {len(s.grid.score.points)} points"
            problems.append(f"samples/{run} ({_where(s, run)}) has {told}")
        elif _bytes(frames[-1]) != _bytes(folder / f"{run}.png"):
            problems.append(f"samples/{run}.png is not the last frame of samples/{run}")
    strays = [p.name for p in sorted(folder.iterdir()) if p.stem not in known] if folder.is_dir() else []
    if strays and not problems:
        return Check(
            "pictures", "note", f"{seen} are whole; {len(strays)} belong to no row ({strays[0]}, ...)"
        )
    return checked("pictures", problems, f"{seen} pictures are whole, one for every run")


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


# --- digests


def _environments(s: Subject) -> Check:
    """The key of an environment is the hash of its record, and every row has one that is there."""
    records = s.environment["environments"]
    problems = [
        f"the record of environment {key} has the hash {source.short_hash(record)}: it was edited"
        for key, record in records.items()
        if source.short_hash(record) != key
    ]
    problems += [
        f"row {run} ({_where(s, run)}) has no environment"
        for run, r in s.rows.items()
        if not r["environment"]
    ]
    cap = (s.environment.get("cap") or {}).get("fd")
    if cap is None and "fid" in s.grid.score.metrics:
        problems.append("environment.json names no cap, the score of the untrained generator")
    used = {row["environment"] for row in s.rows.values()}
    return checked(
        "environment", problems, f"{len(used)} environments, each the one that its key is the hash of"
    )


def _protocol(s: Subject) -> Check:
    """The protocol's id is the hash of the protocol, which names the data and the score of the grid."""
    problems = []
    for key, protocol in s.environment["protocols"].items():
        digest = protocol_id(protocol)
        if digest != key:
            problems.append(f"protocol {key} has the hash {digest}: it was edited")
        data, score = s.environment["data"], s.grid.score
        wanted = {"set": s.grid.data.set, "size": s.grid.data.size, "checksum": data.get("checksum")}
        wanted |= {"real": data.get("train"), "samples": score.samples, "extractor": score.extractor}
        for name, value in wanted.items():
            if protocol.get(name) != value:
                problems.append(f"protocol {key}: {name} is {protocol.get(name)}, the grid's is {value}")
    scored = [r for r in s.rows.values() if r["status"] not in MACHINE_FAILURES]
    problems += [
        f"row {r['run']} ({_where(s, r['run'])}) has no protocol" for r in scored if not r["protocol"]
    ]
    return checked("protocol", problems, f"{', '.join(s.environment['protocols'])}: the hash of what it says")


def _weights(s: Subject) -> Check:
    """The extractor's weights have the hash that the protocol says, where they are at hand."""
    own = s.folder / "classifier.safetensors"
    shipped = WEIGHTS / f"{s.grid.data.set}-{s.grid.data.size}.safetensors"
    path = next((p for p in (own, shipped) if p.is_file() and s.grid.score.extractor == "classifier"), None)
    if path is None:
        return Check(
            "weights", "note", f"not checked: those of {s.grid.score.extractor} are not in this checkout"
        )
    found = file_hash(path)
    wanted = {p.get("weights") for p in s.environment["protocols"].values()}
    problems = [f"{path.name} has the hash {found}, the rows were scored with {w}" for w in wanted - {found}]
    return checked("weights", problems, f"{path.name} has the protocol's hash {found}")


def _stale(s: Subject) -> set[str]:
    """Return the runs whose rows another version of the code made."""
    runs, readouts = s.planned | _earlier(s), tuple(name for name, _ in s.grid.score.readouts)
    own = {run: source.digest(of, readouts) for run, of in runs.items() if run in s.rows}
    return {run for run, digest in own.items() if s.rows[run]["source"] != digest}


def _source(s: Subject) -> Check:
    """Which rows another version of the code made."""
    stale = _stale(s)
    if not stale:
        return Check("source", "ok", "all rows are of this version of the code")
    arms = list(dict.fromkeys(row["arm"] for run, row in s.rows.items() if run in stale))
    few = f"{', '.join(arms[:3])}{' ...' if len(arms) > 3 else ''}"
    return Check(
        "source", "note", f"{len(stale)} of {len(s.rows)} rows are of another version of the code ({few})"
    )


CHECKS: tuple[Callable[[Subject], Check], ...] = (
    _plan, _rows, _description, _journal, _curves, _status, _pictures, _environments, _protocol, _weights, _source,
)  # fmt: skip


# --- what was made from the results


def _report(s: Subject, reports: Path) -> Check:
    """The report is what the results give now: texts and tables to the letter, drawings by their names."""
    from bench.report import report  # here, because seaborn takes seconds to import

    there = reports / s.results.name
    if not there.is_dir():
        return Check("report", "note", f"no {there}; make it: bench report {s.results.name}")
    problems, drawn = [], 0
    with tempfile.TemporaryDirectory() as made:
        fresh = report(s.folder, Path(made))
        names = {p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file()}
        old = {p.relative_to(there) for p in there.rglob("*") if p.is_file()}
        problems += [f"{there / name} is missing" for name in sorted(names - old)]
        problems += [f"{there / name} is not made from these results" for name in sorted(old - names)]
        for name in sorted(names & old):
            a, b = (there / name).read_bytes(), (fresh / name).read_bytes()
            if a == b:
                continue
            told = _first_difference(a, b) if name.suffix in (".md", ".csv", ".html", ".tex") else ""
            problems += [f"{there / name}, {told}"] * bool(told)
            drawn += not told
    hint = f"; make it again: bench report {s.results.name}"
    check = checked("report", problems, f"{there} says what these results give now")
    if check.level == "failed":
        return check._replace(text=check.text + hint)
    if drawn:  # another font or version of the plotting library: other bytes of the same picture
        return check._replace(level="note", text=f"{check.text}; {drawn} drawings have other bytes")
    return check


def _first_difference(there: bytes, fresh: bytes) -> str:
    """Return where two texts differ, drawings inside them left out, or nothing."""
    a, b = (_DRAWN.sub("", t.decode("utf-8", "replace")).splitlines() for t in (there, fresh))
    for i, (old, new) in enumerate(zip(a, b, strict=False), 1):
        if old != new:
            at = next((k for k, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), 0)
            start = max(0, at - 20)
            return f"line {i}: “{old[start : start + 60]}”, the results give “{new[start : start + 60]}”"
    return "" if len(a) == len(b) else f"{len(a)} lines, the results give {len(b)}"


_DRAWN = re.compile(r"<svg.*?</svg>|data:[a-z]+/[a-z+.-]+;base64,[A-Za-z0-9+/=]*", re.DOTALL)


def _git(folder: Path, reports: Path) -> list[Check]:
    """Committed files are as they were committed; says nothing outside a checkout."""
    places = [folder.resolve(), (reports / folder.resolve().name).resolve()]
    found = []
    for place in places:
        if not place.is_dir():
            continue
        command = ["git", "-C", str(place), "status", "--porcelain", "--untracked-files=all", "--", "."]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            return [Check("git", "note", f"not checked: {error}")]
        if done.returncode:
            return [Check("git", "note", f"not checked: {folder} is in no git checkout")]
        found += done.stdout.splitlines()
    changed = [line[3:] for line in found if line[:2] != "??"]
    new = [line[3:] for line in found if line[:2] == "??"]
    if changed or not new:
        told = [f"{name} differs from what was committed" for name in changed]
        return [checked("git", told, "all files are as they were committed")]
    return [Check("git", "note", f"{len(new)} files are not committed ({new[0]}{', ...' * (len(new) > 1)})")]
