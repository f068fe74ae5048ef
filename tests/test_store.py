"""The results folder's files: whole or as they were, whatever the disk says; what nobody may believe is refused."""

import csv
import errno
import fcntl
import os
import pickle
import shutil
import stat

import fake_results
import pytest

from bench import store
from bench.analyse import analyse, caveats
from bench.errors import Refused
from bench.results import load
from bench.store import Store, write_atomically


def test_a_write_that_fails_leaves_the_old_file_alone_and_says_which(tmp_path, monkeypatch):
    path = tmp_path / "runs.csv"
    write_atomically(path, b"old")

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["runs.csv"]
    assert path.read_bytes() == b"old"


def synced(monkeypatch) -> list[str]:
    """What is made to last from now on, in order: files, folders, and when a file took another's place."""
    done, sync, replace = [], os.fsync, os.replace

    def fsync(number):
        folder = stat.S_ISDIR(os.fstat(number).st_mode)
        done.append("folder" if folder else "file")
        if folder:
            raise OSError(errno.EINVAL, "a file system that cannot")
        sync(number)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("place"), replace(*paths)))
    return done


def test_the_tables_have_their_names_for_good_before_the_journal_says_so(tmp_path, monkeypatch):
    done = synced(monkeypatch)
    with Store(tmp_path / "g") as kept:
        kept.commit([{"run": "a", "arm": "baseline", "seed": 0}], [])
        assert done == ["file", "folder"]  # the journal is new
        kept.commit([{"run": "b", "arm": "baseline", "seed": 1}], [])
        assert done[2:] == ["file"]
        kept.export()
    assert done[3:] == 2 * ["file", "place", "folder"] + ["file"]
    with Store(tmp_path / "g") as kept:
        assert sorted(kept.rows) == ["a", "b"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EWOULDBLOCK, "another `bench run` is writing here"),
        (errno.ENOLCK, "this file system gives no lock"),
        (errno.ENOTSUP, "this file system gives no lock"),
    ],
)
def test_no_lock_is_not_taken_for_somebody_elses(number, said, tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(Refused, match=said), Store(tmp_path / "g"):
        pass


def edited(path, column, value, line=3):
    rows = list(csv.reader(path.read_text().splitlines()))
    rows[line][rows[0].index(column)] = value
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def test_a_whole_number_that_no_column_can_hold_is_refused(tmp_path):
    folder = fake_results.write(tmp_path / "g", samples=False)
    edited(folder / "runs.csv", "seed", "9" * 23)
    with pytest.raises(Refused, match=r"line 4, column seed: .*allowed is a whole number below 9,007"):
        load(folder)


def test_a_score_that_was_edited_is_told_where_the_curves_know_better(tmp_path):
    folder = fake_results.write(tmp_path / "g", samples=False)
    assert not any("disagree" in note for note in caveats(analyse(load(folder))))
    edited(folder / "runs.csv", "fd", "1.0")
    [note] = [note for note in caveats(analyse(load(folder))) if "disagree" in note]
    assert "the last distance of 1 run (first `" in note
    assert "no verdict here can be trusted" in note


def test_what_is_said_of_a_cut_line_of_the_curves_can_be_done(tmp_path):
    """A line of runs.csv may go, its run is made again; one of curves.csv may not: its run would stay without it."""
    folder = fake_results.write(tmp_path / "g", samples=False)
    curves = store.read_table(folder / "curves.csv", store.CURVES)
    shutil.move(folder / "runs.csv", tmp_path / "runs.csv")
    (folder / "curves.csv").unlink()
    with Store(folder) as kept:
        for row in store.read_table(tmp_path / "runs.csv", ()):
            kept.commit([row], [tuple(line.values()) for line in curves if line["run"] == row["run"]])
        kept.export()
    whole = (folder / "curves.csv").read_bytes()
    for cut in (9, 40):  # within the last value; within the fields before it
        (folder / "curves.csv").write_bytes(whole[:-cut])
        with pytest.raises(Refused, match="delete the file: it is written again as far as"), Store(folder):
            pass
    (folder / "curves.csv").unlink()
    with Store(folder) as kept:
        kept.export()
    assert (folder / "curves.csv").read_bytes() == whole


def test_a_spoilt_data_set_in_the_cache_is_made_again(tmp_path):
    from bench.data import load as data
    from bench.data import open_kept
    from bench.run import keep_images
    from bench.spec import DataSpec

    images = data(DataSpec("digits", 16))
    file = keep_images(images, tmp_path)
    for harm in (
        b"cut short",
        pickle.dumps(os.system),
    ):  # the second would run code, were it loaded as Python does
        file.write_bytes(harm)
        assert open_kept(keep_images(images, tmp_path)).checksum == images.checksum
