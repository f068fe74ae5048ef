"""A results folder as typed pandas tables; whatever is broken in it is refused in one line."""

import csv
import io
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.detect import Limits
from bench.errors import Refused, nearest

STATUSES = ("ok", "diverged", "no_learn", "collapsed", "late_collapse", "failed", "timeout")
METHOD_FAILURES = ("diverged", "no_learn", "collapsed", "late_collapse")  # findings: the worst rank
MACHINE_FAILURES = ("failed", "timeout")  # no finding: the pair is left out, and counted
ROLES = ("baseline", "trick", "control")
PROBED = (  # bench.probe
    "d_accuracy", "d_gap", "d_overfit", "d_floor", "g_signal",
    "d_gradient", "d_gradient_held", "g_gradient", "g_gradient_held",
)  # fmt: skip
METRICS = (
    "fd", "fid", "kid", "is", "precision", "recall", "coverage", "loss_d", "loss_g", *PROBED,
    # and bench.looks, and bench.score:
    "flat", "saturated", "saturated_real", "spread", "pairs", "classes", "classes_real", "kl", "within", "duplicates",
    "nearest_trained", "fd_spread",
)  # fmt: skip


class Column(NamedTuple):
    """What a column may hold: text, integer or number, within limits."""

    kind: str
    low: float = -math.inf
    high: float = math.inf
    among: tuple[str, ...] | None = None
    required: bool = False


TEXT, NEEDED = Column("text"), Column("text", required=True)
COUNT, AMOUNT, SHARE = Column("integer", low=0), Column("number", low=0), Column("number", low=0, high=1)
BEFORE_TRICKS = {
    "run": NEEDED,
    "arm": NEEDED,
    "seed": Column("integer", low=0, required=True),
    "status": Column("text", among=STATUSES, required=True),
    "reason": TEXT,
    "detectors": TEXT,
}
AFTER_TRICKS = {
    "images": COUNT,
    "steps": COUNT,
    "fd": Column("number", low=-1e-3),  # of two equal sets it may print as a tiny negative number
    "fid": Column("number", low=-1e-3),
    "fd_best": Column("number", low=-1e-3),
    "failed_at": COUNT,
    "kid": Column("number"),
    "is": AMOUNT,
    "precision": SHARE,
    "recall": SHARE,
    "extractor": TEXT,
    "samples": COUNT,
    "protocol": TEXT,
    "mode": TEXT,
    "dtype": TEXT,
    "runs_per_array": COUNT,
    "threads": COUNT,
    "device": TEXT,
    "train_seconds": AMOUNT,
    "score_seconds": AMOUNT,
    "peak_memory_mb": AMOUNT,
    "probes": COUNT,
    "probe_images": COUNT,
    "parameters": COUNT,
    "multiply_adds": COUNT,
    "environment": TEXT,
    "source": TEXT,
}
LATER = ("failed_at", "probes", "probe_images")  # rows made before they came have no such columns
CURVES = {
    "run": NEEDED,
    "images": Column("integer", low=0, required=True),
    "readout": TEXT,
    "metric": Column("text", among=METRICS, required=True),
    "samples": COUNT,
    "value": Column("number"),
}
ENVIRONMENT = ("data", "budget", "recipe", "score", "arms", "environments", "protocols")
SHAPES = (  # what is used of environment.json, where it is there
    ("cap", "fd", object, "a number"),
    ("score", "extractor", str, "text"),
    ("score", "metrics", list, "an array"),
    ("budget", "unit", str, "text"),
    ("data", "set", str, "text"),
)
RUN_ID = r"[0-9A-Za-z]{1,64}"
REPAIR = "restore the file from version control, or delete it and let `bench run` write it again"


@dataclass(frozen=True)
class Results:
    """A results folder, read.

    path, name: the folder and its name.
    runs: one row a run, sorted by arm (in the grid's order, an ordered categorical) and seed. Text columns
        are strings, `status` one of STATUSES, an absent value <NA> or NaN. Units: `images` = real
        images shown to D, `steps` = steps of G, `train_seconds`, `score_seconds` = wall-clock seconds,
        `peak_memory_mb` = 10^6 bytes, `parameters` = of G and D together, `multiply_adds` = of one forward
        pass of G and D per image. `fd` = Fréchet distance in the extractor's features (lower is better, no
        unit, depends on the extractor), `fid` = the same where the extractor is Inception, `fd_best` = the
        lowest along the budget, `failed_at` = images shown when a failed run had failed for good (of the points of
        the budget the first that no sound one follows; where a loss was not finite, that step), `kid` = kernel
        distance (lower is better, may be negative), `is` = Inception score in the extractor's classes (1 to their
        number, higher is better), `precision` and `recall` in [0, 1], `probes` = how often D and G were probed along
        the budget, with `probe_images` of each kind. `<trick>.<field>` = the arm's settings, in the unit of the
        trick's card.
    curves: one row a value along training: `run, images, readout, metric, samples, value`; `images` = real
        images shown to D so far, `samples` = generated images behind a score (absent for losses), the losses
        are means over the window that ends there.
    environment: `environment.json`: data, recipe, budget, score, cap, arms, design, environments, protocols; since
        designs are checked also `design_detail`: factors, cells, resolution, aliases and looks (bench.design).
    tricks: `tricks.json`: the cards of the tricks, by name.
    """

    path: Path
    name: str
    runs: pd.DataFrame
    curves: pd.DataFrame
    environment: dict[str, Any]
    tricks: dict[str, Any]


def load(path: str | Path) -> Results:
    """Read results/<name>/ as typed tables (columns and units: `Results`); raise Refused if it is broken."""
    path = Path(path)
    if not path.is_dir():
        raise Refused(_no_folder(path))
    environment = read_environment(path / "environment.json")
    tricks = read_cards(path / "tricks.json")
    arms = [arm["arm"] for arm in environment["arms"]]

    runs = _read_csv(path / "runs.csv", _runs_columns(tricks))
    _check_runs(path / "runs.csv", runs, environment, arms)
    runs["arm"] = pd.Categorical(runs["arm"], categories=arms, ordered=True)
    runs["status"] = pd.Categorical(runs["status"], categories=STATUSES)
    lines = runs.pop("line")
    for column in LATER:
        if column not in runs:
            runs[column] = pd.array([None] * len(runs), dtype="Int64")
    runs = runs.sort_values(["arm", "seed"], ignore_index=True)

    curves = _read_csv(path / "curves.csv", CURVES)
    stray = ~curves["run"].isin(runs["run"])
    if stray.any():
        row = curves[stray].iloc[0]
        raise Refused(
            f'{path / "curves.csv"}, line {row["line"]}: run "{row["run"]}" is not in runs.csv'
            f"{nearest(row['run'], runs['run'])}, which has {len(lines)} runs; {REPAIR}"
        )
    for column in ("readout", "metric"):
        curves[column] = curves[column].astype("category")
    return Results(path, path.resolve().name, runs, curves.drop(columns="line"), environment, tricks)


def _no_folder(path: Path) -> str:
    """Say what is missing and what there is instead."""
    beside = path.parent
    there = sorted(p.name for p in beside.iterdir() if (p / "runs.csv").is_file()) if beside.is_dir() else []
    what = "is a file, not a results folder" if path.exists() else "is not there"
    offer = f"{beside}/ has: {', '.join(there)}" if there else f"{beside}/ has no results yet"
    return f"{path}: {what}{nearest(path.name, there)}; {offer}; `bench run GRID` makes results"


# --- JSON


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.iterdir())
        hint = nearest(path.name, there) or f"; the folder has: {', '.join(there) or 'nothing'}"
        raise Refused(f"{path}: this file of the results is missing{hint}; {REPAIR}") from None
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: byte {error.start} is not UTF-8 text; {REPAIR}") from None
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}") from None


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        cut = ", as if cut off" if error.pos >= len(text.rstrip()) - 1 else ""
        raise Refused(f"{path}, line {error.lineno}: not valid JSON{cut}: {error.msg}; {REPAIR}") from None
    except ValueError as error:
        raise Refused(f"{path}: {error}; {REPAIR}") from None
    except RecursionError:
        raise Refused(f"{path}: brackets within brackets without end; {REPAIR}") from None
    if not isinstance(value, dict):
        raise Refused(f"{path}: holds a {type(value).__name__}, allowed is an object {{...}}; {REPAIR}")
    return value


def _no_constant(word: str) -> float:
    raise ValueError(f"the value {word} is not a finite number")


def read_environment(path: Path) -> dict[str, Any]:
    """Return environment.json; raise `Refused` where anything that is used of it is not what it must be."""
    environment = _read_json(path)
    for key in ENVIRONMENT:
        if key not in environment:
            raise Refused(f'{path}: the key "{key}" is missing{nearest(key, environment)}; {REPAIR}')
        kind = list if key == "arms" else dict
        if not isinstance(environment[key], kind):
            raise Refused(f'{path}: "{key}" must be a JSON {"array" if kind is list else "object"}; {REPAIR}')
    seen = set()
    for i, arm in enumerate(environment["arms"]):
        place = f"{path}: arms[{i}]"
        if not isinstance(arm, dict) or not {"arm", "role", "tricks"} <= set(arm):
            raise Refused(f"{place}: an arm needs the keys arm, role, tricks; {REPAIR}")
        if (
            not isinstance(arm["arm"], str)
            or not isinstance(arm["role"], str)
            or not _holds(arm["tricks"], dict)
        ):
            raise Refused(f"{place}: arm and role are text, tricks are an object of objects; {REPAIR}")
        if arm["role"] not in ROLES:
            hint = nearest(arm["role"], ROLES)
            raise Refused(f'{place}: role "{arm["role"]}" is not one of {", ".join(ROLES)}{hint}')
        if arm["arm"] in seen:
            raise Refused(f'{place}: the arm "{arm["arm"]}" is there twice; {REPAIR}')
        seen.add(arm["arm"])
    references = [arm["arm"] for arm in environment["arms"] if arm["role"] == "baseline"]
    if len(references) != 1:
        have = ", ".join(references) or "none"
        raise Refused(f'{path}: exactly one arm must have the role "baseline", here: {have}; {REPAIR}')
    for key, name, kind, what in SHAPES:
        part = environment.get(key) or {}
        if not isinstance(part, dict) or not isinstance(part.get(name, kind()), kind):
            raise Refused(f'{path}: "{key}" must be an object, and its "{name}" {what}; {REPAIR}')
    for key in ("environments", "protocols"):
        if not _holds(environment[key], dict):
            raise Refused(f'{path}: "{key}" must hold objects only; {REPAIR}')
    if not _holds(dict(enumerate(environment["score"].get("metrics", ()))), str):
        raise Refused(f'{path}: "metrics" of "score" must be words; {REPAIR}')
    cap = (environment.get("cap") or {}).get("fd")
    if cap is not None and not (type(cap) in (int, float) and 0 < cap < 1e300):
        raise Refused(f"{path}: cap.fd is {json.dumps(cap)}, allowed is a number above 0; {REPAIR}")
    _check_picked(path, environment.get("picked"))
    _check_score(path, environment["score"])
    detail = environment.get("design_detail")
    if detail is not None and not isinstance(detail, dict):
        raise Refused(f'{path}: "design_detail" must be an object; {REPAIR}')
    return environment


def _check_score(path: Path, score: dict[str, Any]) -> None:
    """Refuse points, read-outs and limits that are none."""
    points, readouts = score.get("points", []), score.get("readouts", [])
    if not isinstance(points, list) or not all(type(point) in (int, float) for point in points):
        raise Refused(
            f"{path}: score.points is {json.dumps(points)[:80]}, allowed are the parts of the budget where runs are "
            f"scored, such as [0.5, 1.0]; {REPAIR}"
        )
    if not _pairs(readouts) or not all(_pairs(values) for _, values in readouts):
        raise Refused(
            f"{path}: score.readouts is {json.dumps(readouts)[:80]}, allowed are pairs of a read-out and its values, "
            f'such as [[NAME, [["decay", 0.999]]]]; {REPAIR}'
        )
    _check_limits(path, score.get("limits"))


def _pairs(value: Any) -> bool:
    """Return whether a value is a list of [name, value] pairs."""
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in value
    )


def _check_limits(path: Path, limits: Any) -> None:
    """Refuse limits of detectors that are none: [name, number] pairs are allowed."""
    known = [field.name for field in fields(Limits)]
    for pair in limits if isinstance(limits, list) else [] if limits is None else [limits]:
        if not (
            isinstance(pair, list) and len(pair) == 2 and pair[0] in known and type(pair[1]) in (int, float)
        ):
            hint = nearest(str(pair[0]), known) if isinstance(pair, list) and pair else ""
            raise Refused(
                f"{path}: score.limits has {json.dumps(pair)}, allowed are pairs of a limit's name and a number{hint}; "
                f"{REPAIR}"
            )


def _check_picked(path: Path, picked: Any) -> None:
    """Refuse what `bench run` cannot go on from: slots, threads and devices are counts, measurements are objects."""
    for key, value in picked.items() if isinstance(picked, dict) else ():
        if key in ("slots", "threads", "devices") and (type(value) is not int or value < 1):
            raise Refused(
                f"{path}: picked.{key} is {json.dumps(value)}, allowed is a whole number above 0; {REPAIR}"
            )
        if key in ("runs_per_array", "rates") and not isinstance(value, dict):
            raise Refused(f'{path}: "{key}" of "picked" must be an object; {REPAIR}')
        for name, count in value.items() if key == "runs_per_array" else ():
            if type(count) is not int or count < 1:
                raise Refused(
                    f"{path}: picked.{key}.{name} is {json.dumps(count)}, allowed is a whole number above 0; {REPAIR}"
                )
    if picked is not None and not isinstance(picked, dict):
        raise Refused(f'{path}: "picked" must be an object; {REPAIR}')


def _holds(value: Any, kind: type) -> bool:
    """Return whether a value is an object whose values are all of a kind."""
    return isinstance(value, dict) and all(isinstance(inside, kind) for inside in value.values())


def read_cards(path: Path) -> dict[str, Any]:
    """Return tricks.json; raise `Refused` where a card is not one."""
    cards = _read_json(path)
    _check_cards(path, cards)
    return cards


OF_CARD = dict.fromkeys(("summary", "doc", "cost"), str) | dict.fromkeys(
    ("requires", "conflicts", "inert_if", "interacts"), dict
)
OF_CLAIM = dict.fromkeys(("text", "metric", "source", "url", "evidence"), str) | {"about": dict}


def _check_cards(path: Path, tricks: dict[str, Any]) -> None:
    """Refuse a card without the keys that the report reads, or with something else there."""
    for name, card in tricks.items():
        for key in ("fields", "claims"):
            if not isinstance(card, dict) or not isinstance(card.get(key), list):
                raise Refused(f'{path}: the card of "{name}" has no list "{key}"; {REPAIR}')
        if not all(isinstance(claim, dict) for claim in card["claims"]):
            raise Refused(f'{path}: a claim of "{name}" is no object; {REPAIR}')
        for field in card["fields"]:
            if not isinstance(field, dict) or not all(
                isinstance(field.get(k), str) for k in ("name", "kind")
            ):
                raise Refused(f'{path}: a field of "{name}" lacks its name or kind; {REPAIR}')
        _check_kinds(path, f'the card of "{name}"', card, OF_CARD)
        for key in ("requires", "conflicts", "inert_if", "interacts"):
            if not _holds(card.get(key) or {}, str):
                raise Refused(f'{path}: "{key}" of the card of "{name}" must hold text only; {REPAIR}')
        for field in card["fields"]:
            _check_kinds(path, f'a field of "{name}"', field, {"doc": str})
            span = field.get("span")
            if span is not None and not (isinstance(span, list) and len(span) == 2):
                raise Refused(
                    f'{path}: "span" of a field of "{name}" is {json.dumps(span)[:80]}, allowed is [lowest, highest]; '
                    f"{REPAIR}"
                )
        for claim in card["claims"]:
            _check_kinds(path, f'a claim of "{name}"', claim, OF_CLAIM)
            if claim.get("direction") not in (None, -1, 0, 1):
                raise Refused(
                    f'{path}: a claim of "{name}" has the direction {json.dumps(claim["direction"])}, allowed are -1, '
                    f"0, 1; {REPAIR}"
                )


def _check_kinds(path: Path, what: str, part: dict[str, Any], kinds: dict[str, type]) -> None:
    """Refuse values that are there and of another kind than these."""
    for key, kind in kinds.items():
        if part.get(key) is not None and not isinstance(part[key], kind):
            wanted = "text" if kind is str else "an object"
            raise Refused(
                f'{path}: "{key}" of {what} is {json.dumps(part[key])[:80]}, allowed is {wanted}; {REPAIR}'
            )


# --- CSV


def _runs_columns(tricks: dict[str, Any]) -> dict[str, Column]:
    settings = {
        f"{name}.{field['name']}": Column("number" if field["kind"] == "dial" else "choice")
        for name, card in tricks.items()
        for field in card["fields"]
    }
    return BEFORE_TRICKS | settings | AFTER_TRICKS


def _read_csv(path: Path, columns: dict[str, Column]) -> pd.DataFrame:
    """Return the table, typed, with the column `line` (of the file) for messages."""
    text = _read_text(path)
    if not text.strip():
        raise Refused(f"{path}: the file is empty; {REPAIR}")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines, rows = [], []
    try:
        for row in reader:
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise Refused(f"{path}, line {reader.line_num}: not valid CSV: {error}; {REPAIR}") from None
    header = rows[0]
    _check_header(path, header, columns)
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            cut = " (the file looks cut off)" if line == lines[-1] and len(row) < len(header) else ""
            raise Refused(f"{path}, line {line}: {len(row)} fields where {len(header)} belong{cut}; {REPAIR}")
    if not text.endswith("\n"):
        raise Refused(f"{path}, line {lines[-1]}: the last line has no end, the file looks cut off; {REPAIR}")
    lines = lines[1:]
    raw = zip(header, zip(*rows[1:], strict=True), strict=True) if lines else ((name, ()) for name in header)
    table = {
        name: _typed(path, lines, name, np.array(column, dtype=object), columns[name]) for name, column in raw
    }
    return pd.DataFrame(table | {"line": np.array(lines, dtype="int64")})


def _check_header(path: Path, header: list[str], columns: dict[str, Column]) -> None:
    for name in header:
        if name not in columns:
            missing = [c for c in columns if c not in header]
            hint = nearest(name, missing) or nearest(name, columns)
            raise Refused(
                f'{path}, line 1: the column "{name}" is not known{hint}; allowed are the columns of'
                f" DESIGN.md section 4 and the settings of the tricks in tricks.json; {REPAIR}"
            )
        if header.count(name) > 1:
            raise Refused(f'{path}, line 1: the column "{name}" is there twice; {REPAIR}')
    settings = {name for name in columns if "." in name}  # a trick that is in no row yet may have no column
    for name in columns:
        if name not in header and name not in settings and name not in LATER:
            raise Refused(f'{path}, line 1: the column "{name}" is missing{nearest(name, header)}; {REPAIR}')


def _typed(path: Path, lines: list[int], name: str, raw: np.ndarray, column: Column) -> Any:
    """Return one column of texts in its type, or refuse its first bad value."""

    def refuse(bad: np.ndarray, allowed: str, hint: str = "") -> None:
        if bad.any():
            i = int(bad.argmax())
            value = f'"{raw[i]}"' if raw[i] else "empty"
            place = f"{path}, line {lines[i]}, column {name}"
            raise Refused(f"{place}: {value}, allowed is {allowed}{hint}; {REPAIR}")

    def texts() -> Any:
        return pd.array(np.where(empty, None, raw), dtype="string")

    empty = raw == ""
    if column.required:
        refuse(empty, "a value in every row")
    if column.among:
        bad = np.array([word not in column.among for word in raw], dtype=bool) & ~empty
        hint = nearest(raw[bad][0], column.among) if bad.any() else ""
        refuse(bad, f"one of {', '.join(column.among)}", hint)
    if column.kind == "text":
        return texts()

    numbers = pd.to_numeric(raw, errors="coerce").astype("float64")
    odd = ~np.isfinite(numbers) & ~empty
    if column.kind == "choice":
        # the choices of a trick are words or numbers: numbers where all of them are
        return texts() if odd.any() else numbers
    nan = odd.copy()
    nan[odd] = [text.lower().strip().lstrip("+-") == "nan" for text in raw[odd]]
    refuse(nan | np.isinf(numbers), "a finite number; a run without a score leaves the field empty")
    refuse(odd, "a whole number" if column.kind == "integer" else "a number")
    refuse(
        (numbers < column.low) | (numbers > column.high),
        f"at least {column.low:g}" if column.high == math.inf else f"{column.low:g} to {column.high:g}",
    )
    if column.kind == "integer":
        refuse((numbers % 1 != 0) & ~empty, "a whole number")
        refuse(np.abs(numbers) >= 2**53, f"a whole number below {2**53:,}")
        return pd.array(numbers).astype("Int64")
    return numbers


# --- consistency


def _check_runs(path: Path, runs: pd.DataFrame, environment: dict[str, Any], arms: list[str]) -> None:
    """Refuse rows that contradict each other or environment.json."""

    def refuse(bad: pd.Series, say: Any) -> None:
        if bad.any():
            row = runs[bad].iloc[0]
            raise Refused(f"{path}, line {row['line']}: {say(row)}")

    def double(keys: list[str]) -> pd.Series:
        return runs.duplicated(keys)

    refuse(  # it names files in samples/
        ~runs["run"].str.fullmatch(RUN_ID),
        lambda r: f'"{r["run"]}" is no run id, allowed are up to 64 letters and digits; {REPAIR}',
    )
    refuse(double(["run"]), lambda r: f'the run "{r["run"]}" is there twice; delete one of the two lines')
    refuse(
        double(["arm", "seed"]),
        lambda r: f'the arm "{r["arm"]}" has seed {r["seed"]} twice; delete one of the two lines',
    )
    refuse(
        ~runs["arm"].isin(arms),
        lambda r: f'the arm "{r["arm"]}" is not in environment.json{nearest(r["arm"], arms)}; {REPAIR}',
    )
    for column, known in (("environment", "environments"), ("protocol", "protocols")):
        options = list(environment[known])
        refuse(
            runs[column].notna() & ~runs[column].isin(options),
            lambda r, c=column, k=known, o=options: (
                f'{c} "{r[c]}" is not among the {k} of environment.json{nearest(r[c], o)}; {REPAIR}'
            ),
        )
    if "fid" in environment["score"].get("metrics", ()):
        refuse(
            (runs["status"] == "ok") & runs["fd"].isna(),
            lambda r: f'fd is empty in a run with status "ok", allowed is a number; {REPAIR}',
        )
    _check_protocols(path, runs, environment["protocols"])
    for column in ("extractor", "samples"):  # an average over rows of two kinds would mean nothing
        wanted = runs["protocol"].map(
            lambda key, c=column: environment["protocols"][key].get(c), na_action="ignore"
        )
        refuse(
            wanted.notna() & (runs[column].astype("string") != wanted.astype("string")).fillna(True),
            lambda r, c=column: (
                f'{c} of the run "{r["run"]}" is {"empty" if pd.isna(r[c]) else r[c]}, allowed is'
                f" {environment['protocols'][r['protocol']][c]}, as its protocol in environment.json has it; {REPAIR}"
            ),
        )
    refuse(
        runs["fd"].notna() & runs["protocol"].isna(),
        lambda r: (
            f'the run "{r["run"]}" has a score but no protocol, so nobody knows what it means; {REPAIR}'
        ),
    )


def _check_protocols(path: Path, runs: pd.DataFrame, protocols: dict[str, Any]) -> None:
    """Refuse scores that do not mean the same thing, naming the keys that differ."""
    counts = runs["protocol"].value_counts()
    if len(counts) < 2:
        return
    (first, n_first), (second, n_second) = list(counts.items())[:2]
    a, b = protocols[first], protocols[second]
    keys = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    differ = (
        ", ".join(f"{key} ({a.get(key)} against {b.get(key)})" for key in keys) or "nothing that they name"
    )
    raise Refused(
        f'{path}: scores of different protocols cannot be compared: "{first}" ({n_first} runs) and "{second}"'
        f" ({n_second} runs) differ in {differ}; keep one kind in this folder and give the other grid"
        " another name"
    )
