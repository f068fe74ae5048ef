"""The results folder: a journal that survives any crash, and the sorted CSVs that are made from it."""

import csv
import fcntl
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.errors import Refused
from bench.results import AFTER_TRICKS, BEFORE_TRICKS

CURVES = ("run", "images", "readout", "metric", "samples", "value")


def cell(value: Any) -> str:
    """Return a value as its CSV cell: floats so that they read back equal, an absent value empty."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader sees the old file or the new one, whenever the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's content; raise `Refused` with line and column where it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        where = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Refused(
            f"{path}{where}: not whole JSON ({error}); restore it (git checkout {path}) or move it away and run again"
        ) from None


class Store:
    """One results folder, held by one `bench run` at a time; use it in a `with` block.

    Done = CSV and journal together. Raises `Refused` where the folder cannot be written, is in use, or is broken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal.jsonl"
        self.rows: dict[str, dict[str, str]] = {}
        self.curves: dict[str, list[tuple[str, ...]]] = {}
        self.dirty = False  # whether the journal has what the tables have not

    def __enter__(self) -> "Store":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise Refused(f"{self.folder}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise Refused(
                f"{self.folder}: another `bench run` is writing here; wait for it or stop it"
            ) from None
        try:
            self._read_tables()
            self._read_journal()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def peek(self) -> set[str]:
        """Return the ids of the runs that are done, without taking the folder."""
        self._read_tables()
        self._read_journal(repair=False)
        return set(self.rows)

    def _read_tables(self) -> None:
        self.rows = {row["run"]: row for row in read_table(self.folder / "runs.csv", BEFORE_TRICKS)}
        for row in read_table(self.folder / "curves.csv", CURVES):
            if row["run"] in self.rows:
                self.curves.setdefault(row["run"], []).append(tuple(row[key] for key in CURVES))
            else:  # its row was deleted, so that the run is made again
                self.dirty = True

    def _read_journal(self, repair: bool = True) -> None:
        """Add what the journal has and the tables lack.

        A line {"exported": true} says that all above it went into the tables: from there on the tables are right
        about those runs (a row may have been deleted, or come newer from a pull), unless a table is gone. A last
        line that a crash cut short is dropped, and so no result.
        """
        if not self.journal.exists():
            return
        entries = self.entries(repair)
        exported = max((i + 1 for i, entry in enumerate(entries) if "exported" in entry), default=0)
        self.dirty |= exported < len(entries)
        gone = {name: not (self.folder / name).exists() for name in ("runs.csv", "curves.csv")}
        for i, entry in enumerate(entries):
            if "rows" not in entry:
                continue
            if i >= exported or gone["runs.csv"]:
                self._take(entry["rows"], entry["curves"])
            elif gone["curves.csv"]:
                ours = {
                    row["run"]
                    for row in entry["rows"]
                    if row.items() <= self.rows.get(row["run"], {}).items()
                }
                self._take(
                    [row for row in entry["rows"] if row["run"] in ours],
                    [line for line in entry["curves"] if line[0] in ours],
                )
        self.dirty |= any(gone.values()) and bool(self.rows)

    def entries(self, repair: bool = False) -> list[dict[str, Any]]:
        """Return the journal's lines, checked by their sums; with `repair`, a last line that was cut is cut off."""
        whole, good, entries = self.journal.read_bytes(), 0, []
        for number, line in enumerate(whole.split(b"\n")[:-1], 1):
            try:
                entry = json.loads(line)
                assert entry["sum"] == _sum(entry["body"])
                entries.append(json.loads(entry["body"]))
            except (ValueError, KeyError, TypeError, AssertionError):
                if good + len(line) + 1 == len(whole):
                    break
                raise Refused(
                    f"{self.journal}:{number}: a damaged line; delete that line: its runs are made again"
                ) from None
            good += len(line) + 1
        if repair and good < len(whole):
            os.truncate(self.journal, good)
        return entries

    def _take(self, rows: Iterable[dict[str, str]], curves: Iterable[Iterable[str]]) -> None:
        for row in rows:
            self.rows[row["run"]] = row
            self.curves[row["run"]] = []
        for line in curves:
            self.curves[line[0]].append(tuple(line))

    def commit(self, rows: list[dict[str, Any]], curves: list[tuple]) -> None:
        """Append an array's rows and curves to the journal: all of them, durably, or none."""
        own = [{key: cell(value) for key, value in row.items()} for row in rows]
        lines = [[cell(value) for value in line] for line in curves]
        self._append({"rows": own, "curves": lines})
        self._take(own, lines)

    def _append(self, entry: dict[str, Any]) -> None:
        body = json.dumps(entry, separators=(",", ":"))
        with self.journal.open("ab") as file:
            file.write(json.dumps({"sum": _sum(body), "body": body}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.dirty = True

    def export(self) -> None:
        """Write curves.csv and runs.csv, sorted by arm and seed, from what is done, each atomically."""
        rows = sorted(self.rows.values(), key=lambda row: (row["arm"], int(row["seed"])))
        known = {*BEFORE_TRICKS, *AFTER_TRICKS}
        settings = sorted({key for row in rows for key in row if key not in known})
        columns = [*BEFORE_TRICKS, *settings, *AFTER_TRICKS]
        lines = (line for row in rows for line in self.curves.get(row["run"], ()))
        write_atomically(self.folder / "curves.csv", _csv(CURVES, lines))
        write_atomically(
            self.folder / "runs.csv", _csv(columns, ([row.get(c, "") for c in columns] for row in rows))
        )
        if self.dirty:
            self._append({"exported": True})
            self.dirty = False


def read_table(path: Path, wanted: Iterable[str]) -> list[dict[str, str]]:
    """Return a CSV's rows as they stand; raise `Refused` where it is cut short or lacks a `wanted` column."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise Refused(f"{path}: cannot be read as text ({error}); restore it: git checkout {path}") from None
    with io.StringIO(text, newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = [column for column in wanted if column not in header]
        if missing:
            raise Refused(f"{path}:1: no column {missing[0]!r}; restore it: git checkout {path}")
        rows = []
        for line in reader:
            if len(line) != len(header):
                raise Refused(
                    f"{path}:{reader.line_num}: {len(line)} fields where the header has {len(header)} (a cut or edited "
                    f"line); restore it (git checkout {path}) or delete the line: its run is made again"
                )
            rows.append(dict(zip(header, line, strict=True)))
    return rows


def _csv(header: Iterable[str], lines: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue().encode()


def _sum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
