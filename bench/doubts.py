"""Where files of a results folder contradict each other, without torch: an edited or mixed-up file must not pass."""

import hashlib
import json
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from bench.pages import code
from bench.results import Results
from bench.sensitivity import doubtful
from bench.spec import DataSpec

DISTRUST = "no verdict here can be trusted"


def doubts(results: Results) -> list[str]:
    """Return what makes every verdict of a folder worthless, one sentence each; nothing where its files agree."""
    notes = []
    if torn := unlike_curves(results):
        run, row, curve = torn[0]
        notes.append(
            f"runs.csv and curves.csv disagree on the last distance of {_runs(torn)} (first"
            f" {code(run)}: {row:.6g} and {curve:.6g}): one of the files was edited or is of other runs. `bench verify`"
            f" names them all; {DISTRUST}."
        )
    if other := doubtful(results):
        run, there, wanted = other[0]
        notes.append(
            f"The status of {_runs(other)} in runs.csv is not what curves.csv or the row's own detectors say (first"
            f" {code(run)}: {there}, not {wanted}): one of the files was edited, or another version of the code judged"
            f" it. `bench verify` tells which; {DISTRUST}."
        )
    if strange := strangers(results):
        run, why = strange[0]
        notes.append(
            f"The rows of {_runs(strange)} in runs.csv are not what their ids stand for (first {code(run)}: {why}): one"
            f" of the files was edited or is of other runs. `bench verify` names them; {DISTRUST}."
        )
    return notes


def _runs(some: list) -> str:
    return f"{len(some)} run{'s' * (len(some) > 1)}"


def unlike_curves(results: Results) -> list[tuple[str, float, float]]:
    """Return (run, its distance in runs.csv, the last one in curves.csv) where the two are not the same."""
    last = _last_points(results)["value"].astype("float64")
    own = results.runs.set_index("run")["fd"].astype("float64").dropna()
    both = pd.concat({"row": own, "curve": last}, axis=1, join="inner")
    off = both[~np.isclose(both["row"], both["curve"], rtol=1e-5, atol=1e-9)]
    return [(str(run), float(row), float(curve)) for run, row, curve in off.itertuples()]


def _last_points(results: Results) -> pd.DataFrame:
    """Return the last distance along training of every run that has one, by run: images and value."""
    curves = results.curves
    points = curves[(curves["metric"] == "fd") & (curves["readout"] == "raw-eval") & curves["value"].notna()]
    return points.sort_values("images", kind="stable").groupby("run")[["images", "value"]].last()


def strangers(results: Results) -> list[tuple[str, str]]:
    """Return (run, what is wrong with its row): id, settings and images are not those of one run.

    Where no id at all is what environment.json gives, ids are not judged: another version of the code made them.
    """
    arms = {arm["arm"]: _on(arm["tricks"], results.tricks) for arm in results.environment["arms"]}
    runs = results.runs
    ids = [
        run_id(results.environment, arms[arm], int(seed), None if pd.isna(dtype) else str(dtype))
        for arm, seed, dtype in zip(runs["arm"], runs["seed"], runs["dtype"], strict=True)
    ]
    other = runs["run"] != pd.Series(ids, runs.index, dtype=object)
    found = (
        {}
        if other.all()
        else dict.fromkeys(runs.loc[other, "run"], "its id is of another arm, seed or dtype")
    )
    known = {f"{name}.{field['name']}" for name, card in results.tricks.items() for field in card["fields"]}
    for arm, rows in runs.groupby("arm", observed=True):
        for run, name in _other_settings(rows, arms[arm], known):
            found.setdefault(run, f"{code(name)} is not what environment.json says of its arm")
    scored = runs[runs["fd"].notna()].set_index("run")
    both = pd.concat(
        {"row": scored["images"], "curve": _last_points(results)["images"]}, axis=1, join="inner"
    )
    for run in both.index[(both["row"] != both["curve"]).fillna(True)]:
        found.setdefault(run, "its images are not those of its last point in curves.csv")
    return [(str(run), why) for run, why in found.items()]


def run_id(
    environment: dict[str, Any], tricks: dict[str, dict[str, Any]], seed: int, dtype: str | None = None
) -> str:
    """Return what bench.program.Run.id is of the arm with these tricks, none of them off, from environment.json."""
    spec = {
        "data": {field.name: environment["data"].get(field.name) for field in fields(DataSpec)},
        "recipe": environment["recipe"],
        "tricks": tricks,
        "budget": environment["budget"],
        "seed": seed,
        "dtype": dtype or environment.get("dtype"),
    }
    return hashlib.sha256(json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _on(tricks: dict[str, dict[str, Any]], cards: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Leave out the tricks that are off: every dial that has an off value is at it, as `Trick.is_off` says."""

    def off(name: str, values: dict[str, Any]) -> bool:
        known = [field for field in cards.get(name, {}).get("fields", ()) if field.get("off") is not None]
        return bool(known) and all(values.get(field["name"]) == field["off"] for field in known)

    return {name: values for name, values in tricks.items() if not off(name, values)}


def _other_settings(
    rows: pd.DataFrame, tricks: dict[str, dict[str, Any]], known: set[str]
) -> list[tuple[str, str]]:
    """Return (run, column) where the rows of an arm have other settings than its tricks, of `known` columns."""
    wanted = {f"{name}.{field}": value for name, values in tricks.items() for field, value in values.items()}
    found = []
    for name in sorted(known):
        value = wanted.get(name)
        there = rows[name] if name in rows else pd.Series(pd.NA, rows.index, dtype="object")
        if value is None:
            bad = there.notna()
        elif isinstance(value, int | float) and pd.api.types.is_numeric_dtype(there):
            bad = ~(there == float(value))
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            bad = ~(there.astype("string") == text).fillna(False)
        found += [(run, name) for run in rows.loc[bad, "run"]]
    return found
