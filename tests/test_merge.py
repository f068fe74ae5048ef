"""`bench merge`: parts of one grid become the whole they were cut from; what cannot stand together is refused."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.errors import Refused
from bench.merge import merge
from bench.results import load
from bench.store import CURVES, Store, read_table, reading

ROOT = Path(__file__).parents[1]
WHOLE = ROOT / "results" / "fashion-mnist"


def part(folder: Path, keep, change=lambda row: row) -> Path:
    """Copy the whole, less the rows that are not kept, with their curves and pictures."""
    shutil.copytree(WHOLE, folder)
    gone = set()
    rows = read_table(folder / "runs.csv", ("run",))
    kept = [change(dict(row)) for row in rows if keep(row)]
    gone = {row["run"] for row in rows} - {row["run"] for row in kept}
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    lines = (folder / "curves.csv").read_text().splitlines(keepends=True)
    (folder / "curves.csv").write_text("".join(x for x in lines if x.split(",")[0] not in gone))
    for run in gone:
        (folder / "samples" / f"{run}.png").unlink()
        shutil.rmtree(folder / "samples" / run, ignore_errors=True)
    return folder


def even(row) -> bool:
    return int(row["seed"]) % 2 == 0


def describe(folder: Path, change) -> None:
    path = folder / "environment.json"
    environment = json.loads(path.read_text())
    change(environment)
    path.write_text(json.dumps(environment))


@pytest.fixture
def halves(tmp_path):
    return part(tmp_path / "a", even), part(tmp_path / "b", lambda row: not even(row))


def test_halves_become_the_whole_to_the_byte(halves, tmp_path):
    out = tmp_path / "fashion-mnist"
    assert merge(out, halves) == [f"{out}: 32 runs of 16 + 16, 0 of them in more than one folder"]
    for path in WHOLE.rglob("*"):
        if path.is_file() and path.name != "environment.json" and ".lock" not in path.name:
            assert (out / path.relative_to(WHOLE)).read_bytes() == path.read_bytes(), path
    assert load(out).environment == load(WHOLE).environment


def test_bench_run_can_go_on_in_it_and_its_journal_has_every_run(halves, tmp_path):
    out = tmp_path / "results" / "fashion-mnist"
    merge(out, halves)
    (out / "runs.csv").unlink()
    (out / "curves.csv").unlink()
    assert len(Store(out).peek()) == 32
    with Store(out) as store:
        store.export()
    assert (out / "runs.csv").read_bytes() == (WHOLE / "runs.csv").read_bytes()
    told = CliRunner().invoke(
        main, ["run", str(out / "grid.yaml"), "--results", str(out.parent), "--stale", "keep"]
    )
    assert "all 32 runs are there" in told.output


def test_runs_in_both_are_kept_once_with_the_firsts_times(tmp_path):
    a = part(tmp_path / "a", lambda row: True)
    b = part(tmp_path / "b", even, lambda row: row | {"train_seconds": "1.0", "device": "another"})
    lines = merge(tmp_path / "out", [a, b])
    assert lines[0].endswith("32 runs of 32 + 16, 16 of them in more than one folder")
    assert "`bench run` goes on in a folder of that name only" in lines[1]
    assert (tmp_path / "out" / "runs.csv").read_bytes() == (WHOLE / "runs.csv").read_bytes()


def test_a_run_with_other_numbers_is_refused_by_run_and_column(tmp_path):
    a, b = part(tmp_path / "a", even), part(tmp_path / "b", even, lambda row: row | {"kid": "0.5"})
    with pytest.raises(
        Refused, match=r"run dccf65ded723462a \(baseline, seed 0\) has kid 0\.03\d+ in .* and 0\.5 "
    ):
        merge(tmp_path / "out", [a, b])
    assert not (tmp_path / "out").exists()


def test_a_run_with_other_values_along_training_is_refused(tmp_path):
    a, b = part(tmp_path / "a", even), part(tmp_path / "b", even)
    text = (b / "curves.csv").read_text()
    (b / "curves.csv").write_text(text.replace(",loss_d,,0.", ",loss_d,,1.", 1))
    assert (b / "curves.csv").read_text() != text
    with pytest.raises(Refused, match=r"run \w{16} \(.*\) has other values in curves.csv"):
        merge(tmp_path / "out", [a, b])


def test_lines_of_a_run_that_lie_apart_all_come_along(tmp_path):
    a, b = part(tmp_path / "a", even), part(tmp_path / "b", lambda row: not even(row))
    header, first, *others = (b / "curves.csv").read_text().splitlines(keepends=True)
    (b / "curves.csv").write_text("".join([header, *others, first]))
    merge(tmp_path / "out", [a, b])
    assert sorted((tmp_path / "out" / "curves.csv").read_text().splitlines()) == sorted(
        (WHOLE / "curves.csv").read_text().splitlines()
    )


def test_tracebacks_come_along(tmp_path):
    a, b = part(tmp_path / "a", even), part(tmp_path / "b", lambda row: not even(row))
    run = next(csv.DictReader((b / "runs.csv").read_text().splitlines()))["run"]
    (b / "failures").mkdir()
    (b / "failures" / f"{run}.txt").write_text("why")
    merge(tmp_path / "out", [a, b])
    assert (tmp_path / "out" / "failures" / f"{run}.txt").read_text() == "why"


def test_a_run_that_a_machine_failed_to_make_gives_way(tmp_path):
    failed = {"status": "failed", "reason": "killed", "fd": "", "fd_best": "", "kid": "", "is": ""}
    a = part(tmp_path / "a", even, lambda row: row | failed)
    b = part(tmp_path / "b", lambda row: True)
    for parts in ([a, b], [b, a]):
        out = tmp_path / "".join(p.name for p in parts)
        merge(out, parts)
        assert (out / "runs.csv").read_bytes() == (WHOLE / "runs.csv").read_bytes()


@pytest.mark.parametrize(
    ("key", "inner", "value", "told"),
    [
        ("data", "checksum", "beef", "data differs in checksum"),
        ("recipe", "lr", 1.0, "recipe differs in lr"),
        ("budget", "amount", 1, "budget differs in amount"),
        ("score", "samples", 7, "score differs in samples"),
        ("cap", "fd", 7.0, "cap.fd is"),
    ],
)
def test_parts_of_other_grids_are_refused_by_the_key(halves, tmp_path, key, inner, value, told):
    describe(halves[1], lambda e: e[key].update({inner: value}))
    with pytest.raises(Refused, match=told):
        merge(tmp_path / "out", halves)


def test_other_protocols_dtypes_arms_and_references_are_refused(halves, tmp_path):
    def other_protocol(e):
        (key,) = e["protocols"]
        e["protocols"][key]["weights"] = "beef"

    def other_trick(e):
        e["arms"][1]["tricks"] = {"label_smoothing": {"target": 0.7}}

    def other_reference(e):
        e["arms"][0]["role"], e["arms"][1]["role"] = "trick", "baseline"

    cases = (
        (other_protocol, "of protocols differs"),
        (lambda e: e.update(dtype="float64"), r"dtype \(float32 against float64\)"),
        (other_trick, "arm label_smoothing is"),
        (other_reference, "are compared with"),
    )
    for change, told in cases:
        broken = tmp_path / "broken"
        shutil.copytree(halves[1], broken)
        describe(broken, change)
        with pytest.raises(Refused, match=told):
            merge(tmp_path / "out", [halves[0], broken])
        shutil.rmtree(broken)


def test_nothing_is_overwritten_and_what_is_no_results_folder_is_named(halves, tmp_path):
    with pytest.raises(Refused, match="is there already"):
        merge(halves[0], halves)
    with pytest.raises(Refused, match="at least two"):
        merge(tmp_path / "out", halves[:1])
    told = CliRunner().invoke(main, ["merge", str(tmp_path / "out"), str(halves[0]), "nowhere"])
    assert (told.exit_code, "nowhere" in told.output) == (2, True)


def test_the_command_takes_names_in_the_results_folder(halves, tmp_path):
    told = CliRunner().invoke(main, ["merge", "fashion-mnist", "a", "b", "--results", str(tmp_path)])
    assert told.exit_code == 0
    assert (tmp_path / "fashion-mnist" / "journal.jsonl").is_file()


def test_what_is_missing_still_is_said(tmp_path):
    parts = [part(tmp_path / f"{seed}", lambda row, seed=seed: row["seed"] == seed) for seed in "01"]
    assert "24 of 32 planned runs are still to be made" in merge(tmp_path / "fashion-mnist", parts)


def test_a_part_in_which_bench_run_is_at_work_is_refused_and_readers_are_no_bother(halves, tmp_path):
    """The lock is held by another process; two merges at once read the same parts."""
    holds = "import sys; from pathlib import Path; from bench.store import Store\n"
    holds += "with Store(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", holds, str(halves[1])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as busy:
        busy.stdout.readline()
        told = CliRunner().invoke(main, ["merge", str(tmp_path / "out"), *map(str, halves)])
        busy.communicate()
    assert told.exit_code == 2
    assert told.output.splitlines() == [
        f"bench: {halves[1]}: `bench run` is writing there; wait for it or stop it"
    ]
    assert not (tmp_path / "out").exists()
    with reading(halves[0]), reading(halves[1]):
        assert (halves[1] / ".lock").exists()
        assert not (halves[0] / ".lock").exists()  # a part may be on a disk that is only read
        with pytest.raises(Refused, match="`bench merge` reading"), Store(halves[1]):
            pass
        merge(tmp_path / "out", halves)
    with Store(halves[1]):
        pass


def test_a_part_whose_tables_lack_what_its_journal_has_is_refused(halves, tmp_path):
    rows = read_table(halves[1] / "runs.csv", ("run",))[:2]
    curves = read_table(halves[1] / "curves.csv", CURVES)
    curves = [tuple(line.values()) for line in curves if line["run"] in {row["run"] for row in rows}]
    with Store(halves[0]) as store:
        store.commit(rows, curves)  # as bench run does, and is killed before it writes the tables
    with pytest.raises(Refused, match=r"2 runs are in its journal.jsonl and not so in runs.csv"):
        merge(tmp_path / "out", halves)
    with Store(halves[0]) as store:
        store.export()
    assert "2 of them in more than one folder" in merge(tmp_path / "out", halves)[0]
