"""The results folder: a journal that survives any crash, and the sorted CSVs that are made from it."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from functools import cache
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

from bench.errors import Refused
from bench.results import AFTER_TRICKS, BEFORE_TRICKS, LATER, REPAIR

EXPORTED, SHORT = b"exported", 400  # a line that says so is a short one
CHECKED = ("runs.csv", "curves.csv", "environment.json", "tricks.json")
LOCK, TAKEN = ".lock", (errno.EWOULDBLOCK, errno.EACCES)
CURVES = ("run", "images", "readout", "metric", "samples", "value")
# Lines of curves.csv as `Store` writes them, and those that follow each other of one run.
PLAIN = re.compile(rf'(?:[^,"\r\n]*+(?:,[^,"\r\n]*+){{{len(CURVES) - 1}}}\n)*+')
OF_ONE_RUN = re.compile(r"([^,\n]*+),[^\n]*+\n(?:\1,[^\n]*+\n)*+")
BLOCK = 2**22  # characters


def cell(value: Any) -> str:
    """Return a value as its CSV cell: floats so that they read back equal, an absent value empty."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Put `data`, whole or in parts, at `path`: a reader sees the old file or the new one, whenever the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _name_lasts(path.parent)
    except BaseException as error:  # a stop by hand too
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a full disk does not say where it is
        raise


def _name_lasts(folder: Path) -> None:
    """Make the names in a folder last: else a later write may survive the power cut that brings the old file back."""
    with contextlib.suppress(OSError):  # a file system that cannot
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's content; raise `Refused` with line and column where it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        where = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Refused(
            f"{path}{where}: not whole JSON ({error}); restore it (git checkout {path}) or move it away and run again"
        ) from None


class Row(MutableMapping):
    """A row of runs.csv, a mapping of columns to cells: `places` says where, and is one object for all rows.

    As a dict each, a hundred thousand rows would take several times the memory.
    """

    __slots__ = ("cells", "places")

    def __init__(self, places: dict[str, int], cells: list[str]) -> None:
        self.places, self.cells = places, cells

    def __getitem__(self, column: str) -> str:
        return self.cells[self.places[column]]

    def __setitem__(self, column: str, cell: str) -> None:
        self.cells[self.places[column]] = cell

    def __delitem__(self, column: str) -> None:
        raise TypeError("a row keeps its columns")

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.cells)


@cache
def _places(columns: tuple[str, ...]) -> dict[str, int]:
    return {column: place for place, column in enumerate(columns)}


class Store:
    """One results folder, held by one `bench run` at a time; use it in a `with` block.

    Done = CSV and journal together. Raises `Refused` where the folder cannot be written, is in use, or is broken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal.jsonl"
        self.rows: dict[str, Row] = {}
        self.curves: dict[str, str] = {}  # a run's lines of curves.csv
        self._words: dict[str, str] = {}  # one copy of every word that many cells hold
        self._sums: dict[str, str] = {}  # of the files, when the tables were last written
        self.dirty = False  # whether the journal has what the tables have not

    def __enter__(self) -> "Store":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / LOCK).open("w")
        except OSError as error:
            raise Refused(f"{self.folder}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            if error.errno in TAKEN:
                raise Refused(
                    f"{self.folder}: another `bench run` is writing here, or `bench merge` reading; wait for it or"
                    " stop it"
                ) from None
            raise Refused(
                f"{self.folder}: this file system gives no lock ({error.strerror}), so nothing would keep a second"
                " `bench run` away; take --results on another one, and `bench merge` or copy it afterwards"
            ) from None
        for path in (
            *self.folder.glob(".*.tmp"),
            *self.folder.glob("*/.*.tmp"),
        ):  # of a process that was killed
            with contextlib.suppress(OSError):
                path.unlink()
        try:
            self._read_tables()
            self._read_journal()
            self._words = {}  # those that are held are held by the rows; the look-up is large
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

    def behind(self) -> list[str]:
        """Return the ids of runs that the journal has and runs.csv has not, or not so, without taking the folder."""
        self._read_tables()
        written = dict(self.rows)
        self._read_journal(repair=False)
        same = {run for run, row in written.items() if self.rows[run].items() <= row.items()}
        return [run for run in self.rows if run not in same]

    def _read_tables(self) -> None:
        self.rows = {}
        for row in table_rows(self.folder / "runs.csv", BEFORE_TRICKS):
            self._put(row.places, row.cells)
        self.curves = {}
        for run, lines in _curves(self.folder / "curves.csv"):
            if run in self.rows:
                self.curves[run] = self.curves.get(run, "") + lines
            else:  # its row was deleted, so that the run is made again
                self.dirty = True

    def _read_journal(self, repair: bool = True) -> None:
        """Add what the journal has and the tables lack.

        A line {"exported": ...} says that all above it went into the tables: from there on the tables are right
        about those runs (a row may have been deleted, or come newer from a pull), unless a table is gone. A last
        line that a crash cut short is dropped, and so no result.
        """
        if not self.journal.exists():
            return
        gone = {name: not (self.folder / name).exists() for name in ("runs.csv", "curves.csv")}
        start, number, sums = self._exported()
        for after, entry in self._entries(repair, *((0, 0) if any(gone.values()) else (start, number))):
            if "rows" not in entry:
                continue
            rows, curves = entry["rows"], entry["curves"]
            self.dirty |= after > start
            if (
                after <= start and not gone["runs.csv"]
            ):  # curves.csv is gone: what it had of the rows that stand
                ours = {r["run"] for r in rows if r.items() <= dict(self.rows.get(r["run"], {})).items()}
                rows, curves = [r for r in rows if r["run"] in ours], [c for c in curves if c[0] in ours]
            self._take(rows, curves)
        self._sums = {} if self.dirty else sums
        self.dirty |= any(gone.values()) and bool(self.rows)

    def entries(self) -> list[dict[str, Any]]:
        """Return the journal's entries, checked by their sums, but for a last line that was cut short."""
        return [entry for _, entry in self._entries(False, 0, 0)]

    def _exported(self) -> tuple[int, int, dict[str, str]]:
        """Return where the last line that says so ends (byte and line number), and the sums of the files then."""
        found: tuple[int, int, dict[str, str]] = (0, 0, {})
        place = 0
        with self.journal.open("rb") as file:
            for number, line in enumerate(file, 1):
                place += len(line)
                if EXPORTED in line[:SHORT] and (entry := _entry(line)) and "exported" in entry:
                    sums = entry["exported"]
                    found = place, number, sums if isinstance(sums, dict) else {}
        return found

    def _entries(self, repair: bool, start: int, number: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the journal's entries from a line on, each with the byte where it ends."""
        size, good = self.journal.stat().st_size, start
        with self.journal.open("rb") as file:
            file.seek(start)
            for line in file:
                number += 1
                entry = _entry(line)
                if entry is None:
                    if good + len(line) == size:
                        break
                    raise Refused(
                        f"{self.journal}:{number}: a damaged line; delete that line: its runs are made again"
                    )
                good += len(line)
                yield good, entry
        if repair and good < size:
            os.truncate(self.journal, good)

    def _take(self, rows: Iterable[dict[str, str]], curves: Iterable[Sequence[str]]) -> None:
        for row in rows:
            self._put(_places(tuple(row)), list(row.values()))
            self.curves[row["run"]] = ""
        for run, lines in groupby(curves, key=itemgetter(0)):
            self.curves[run] = self.curves.get(run, "") + _csv(lines)

    def _put(self, places: dict[str, int], cells: list[str]) -> None:
        """Keep a row, with one copy of what is short or a word; long numbers are hardly ever the same."""
        words = self._words
        kept = [
            words.setdefault(cell, cell) if len(cell) < 14 or cell[-1:].isalpha() else cell for cell in cells
        ]
        self.rows[cells[places["run"]]] = Row(places, kept)

    def commit(self, rows: list[dict[str, Any]], curves: list[tuple]) -> None:
        """Append an array's rows and curves to the journal: all of them, durably, or none."""
        own = [{key: cell(value) for key, value in row.items()} for row in rows]
        lines = [[cell(value) for value in line] for line in curves]
        self._append({"rows": own, "curves": lines})
        self._take(own, lines)

    def _append(self, entry: dict[str, Any]) -> None:
        body = json.dumps(entry, separators=(",", ":"))
        size = self.journal.stat().st_size if self.journal.exists() else 0
        try:
            with self.journal.open("ab") as file:
                file.write(json.dumps({"sum": _sum(body), "body": body}).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if not size:
                _name_lasts(self.folder)
        except BaseException as error:  # a stop by hand too
            with contextlib.suppress(OSError):  # half a line must not stand before the next one
                os.truncate(self.journal, size)
            if isinstance(error, OSError):
                error.filename = error.filename or str(self.journal)  # a full disk does not say where it is
            raise
        self.dirty = True

    def export(self) -> None:
        """Write curves.csv and runs.csv, sorted by arm and seed, from what is done, each atomically."""
        runs_csv, curves_csv = self.folder / "runs.csv", self.folder / "curves.csv"
        if not self.dirty and runs_csv.exists() and curves_csv.exists():
            if self.journal.exists() and not self.as_written():
                self._append({"exported": self._file_sums()})
            return
        rows = sorted(self.rows.values(), key=lambda row: (row["arm"], int(row["seed"])))
        known = {*BEFORE_TRICKS, *AFTER_TRICKS}
        settings = {key for places in {id(r.places): r.places for r in rows}.values() for key in places}
        after = [column for column in AFTER_TRICKS if column not in LATER or column in settings]
        columns = [*BEFORE_TRICKS, *sorted(settings - known), *after]
        curves = (self.curves.get(row["run"], "").encode() for row in rows)
        write_atomically(curves_csv, chain([_csv([CURVES]).encode()], curves))
        lines = chain([columns], ([row.get(c, "") for c in columns] for row in rows))
        write_atomically(runs_csv, (_csv(part).encode() for part in _parts(lines, 1000)))
        if self.dirty:
            self._append({"exported": self._file_sums()})
            self.dirty = False

    def as_written(self) -> bool:
        """Return whether nobody touched the files since they were last exported, so that they need no checks."""
        return bool(self._sums) and self._sums == self._file_sums()

    def _file_sums(self) -> dict[str, str]:
        return {name: _file_sum(self.folder / name) for name in CHECKED}


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep every `bench run` out of a results folder while it is read; raise `Refused` where one is writing there.

    Any number of readers may be there. One needs no right to write: where there is no lock file, no `bench run` ever
    wrote, and on a file system that gives no lock none does.
    """
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):
            file = opened.enter_context((folder / LOCK).open())
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in TAKEN:
                    raise Refused(f"{folder}: `bench run` is writing there; wait for it or stop it") from None
        yield


def read_table(path: Path, wanted: Iterable[str]) -> list[dict[str, str]]:
    """Return a CSV's rows as they stand; raise `Refused` where it is cut short or lacks a `wanted` column."""
    return [dict(row) for row in table_rows(path, wanted)]


def table_rows(path: Path, wanted: Iterable[str]) -> Iterator[Row]:
    """Yield a CSV's rows as they stand; raise `Refused` where it is cut short or lacks a `wanted` column."""
    if not path.exists():
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise Refused(f"{path}: cannot be read as text ({error}); {REPAIR}") from None
    with io.StringIO(text, newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = [column for column in wanted if column not in header]
        if missing:
            raise Refused(f"{path}:1: no column {missing[0]!r}; {REPAIR}")
        places = _places(tuple(header))
        mend = (
            "delete the line: its run is made again"
            if path.name == "runs.csv"
            else "delete the file: it is written again as far as journal.jsonl goes"
        )
        if not text.endswith(("\n", "\r")):
            raise Refused(
                f"{path}:{text.count(chr(10)) + 1}: the last line has no end, the file looks cut off; restore it (git"
                f" checkout {path}) or {mend}"
            )
        for line in reader:
            if len(line) != len(header):
                raise Refused(
                    f"{path}:{reader.line_num}: {len(line)} fields where the header has {len(header)} (a cut or edited "
                    f"line); restore it (git checkout {path}) or {mend}"
                )
            yield Row(places, line)


def _curves(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of curves.csv, those that follow each other of one run together, with the run.

    Lines as `Store` writes them are taken as they are; in a file with any other, each is read and written anew.
    """
    if not path.exists():
        return
    header = ",".join(CURVES) + "\n"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            plain = file.readline() == header and all(PLAIN.fullmatch(block) for block in _blocks(file))
    except (UnicodeDecodeError, OSError):
        plain = False
    if plain:
        with path.open(encoding="utf-8", newline="") as file:
            file.readline()
            for block in _blocks(file):
                for found in OF_ONE_RUN.finditer(block):
                    yield found[1], found[0]
        return
    rows = ([row[column] for column in CURVES] for row in table_rows(path, CURVES))
    for run, lines in groupby(rows, key=itemgetter(0)):
        yield run, _csv(lines)


def _blocks(file: TextIO) -> Iterator[str]:
    """Yield the rest of a file in parts of some megabytes, each of whole lines."""
    while block := file.read(BLOCK):
        yield block if block.endswith("\n") else block + file.readline()


def _csv(lines: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _parts(lines: Iterable[Any], size: int) -> Iterator[list[Any]]:
    lines = iter(lines)
    while part := list(islice(lines, size)):
        yield part


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line of the journal holds, or None where it is not whole."""
    try:
        entry = json.loads(line)
        whole = line.endswith(b"\n") and entry["sum"] == _sum(entry["body"])
        body = json.loads(entry["body"]) if whole else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _file_sum(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
