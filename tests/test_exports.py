"""What people paste into papers and machines read: CSV, LaTeX, PDF, animations, several sets, commands."""

import json
import re
import subprocess
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import fake_results
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from bench import charts, curves, grid, maps, pages, plan, sheets
from bench.analyse import analyse
from bench.background import grid_of
from bench.cli import main
from bench.drawing import wrapped
from bench.errors import Refused
from bench.exports import verdicts
from bench.factorial import main_effects
from bench.qualify import settings
from bench.report import report
from bench.results import load
from bench.together import Row, across, rows_of, together, treatments

FEW = {
    name: fake_results.ARMS[name] for name in ("baseline", "label_smoothing", "pooling.kind=max", "placebo")
}
HOSTILE = r"\input{/etc/passwd} & $x$ _a_ #1 %"
FACTORIAL = {
    "baseline": FEW["baseline"],
    "a": ("trick", {"label_smoothing": {"target": 0.9}}, 0.7, {}, 1.0, 1.0),
    "b": ("trick", {"input_noise": {"sigma": 0.1}}, 0.7, {}, 1.0, 1.0),
    "ab": ("trick", {"label_smoothing": {"target": 0.9}, "input_noise": {"sigma": 0.1}}, 0.98, {}, 1.0, 1.0),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    arms = FEW | {HOSTILE: fake_results.ARMS["noise_length"]}
    return fake_results.write(tmp_path_factory.mktemp("exports") / "results" / "digits", arms=arms)


@pytest.fixture(scope="module")
def folder(results):
    return report(results, results.parent.parent / "reports")


def test_every_chart_has_four_files_and_its_data_is_what_is_drawn(results, folder):
    names = {path.stem for path in folder.glob("*.svg")}
    assert {"ratio", "pairs", "score_by_arm", "cost", "failures", "other_scores", "losses"} <= names
    for name in names:
        for ending in ("png", "pdf", "csv"):
            assert (folder / f"{name}.{ending}").stat().st_size > 50, (name, ending)
    drawn = pd.read_csv(folder / "ratio.csv").set_index("arm")
    for effect in analyse(load(results)).effects:
        assert drawn.loc[effect.arm.name, "ratio"] == pytest.approx(effect.ratio.estimate, rel=1e-4)
        assert drawn.loc[effect.arm.name, "verdict"] == effect.verdict
    dots = pd.read_csv(folder / "score_by_arm.csv")
    assert len(dots) == 10 * (len(FEW) + 1)
    assert dots["failed"].sum() == 3


def test_the_pdfs_embed_their_fonts_as_truetype(folder):
    for path in folder.glob("*.pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content, path.name  # TrueType, embedded
        assert b"/Type3" not in content, path.name
        assert b"/CreationDate" not in content, path.name


def test_the_verdicts_for_machines_are_the_analysis(results, folder):
    rows = pd.read_csv(folder / "verdicts.csv")
    effects = analyse(load(results)).effects
    assert list(rows["arm"]) == [effect.arm.name for effect in effects]
    assert list(rows["verdict"]) == [effect.verdict for effect in effects]
    row = rows.set_index("arm").loc["pooling.kind=max"]
    assert (row["failures"], row["runs"], row["failures_baseline"]) == (3, 10, 0)
    assert row["values"] == "pooling.kind=max"


def test_no_name_is_markup_in_latex(folder):
    text = (folder / "verdicts.tex").read_text()
    row = next(line for line in text.splitlines() if "passwd" in line)
    assert row.startswith(r"\textbackslash input\{/etc/passwd\} \& \$x\$ \_a\_ \#1 \% &")
    widths = {len(re.findall(r"(?<!\\)&", line)) for line in text.splitlines() if line.endswith(r"\\")}
    assert widths == {7}
    assert r"\toprule" in text
    names = [line.split(" & ")[0] for line in text.splitlines() if line.endswith(r"\\")]
    marked = [name.endswith("(control)") for name in names[1:]]
    assert any(marked)
    assert marked == sorted(marked)  # controls last


def test_interactions_are_what_misses_the_product(tmp_path):
    written = fake_results.write(tmp_path / "x", arms=FACTORIAL, samples=False, curves=False, spread=0.02)
    [row] = maps.interaction_table(analyse(load(written))).itertuples()
    assert (row.first, row.second, row.n) == ("label_smoothing", "input_noise", 10)
    assert row.ratio == pytest.approx(0.98 / (0.7 * 0.7), rel=0.05)
    assert row.low > 1
    folder = report(written, tmp_path / "reports")
    assert "What two tricks do together" in (folder / "index.html").read_text()
    assert (folder / "interactions.svg").is_file()


def test_failures_and_codes_are_counted_by_arm(results):
    table = maps.failure_table(analyse(load(results)))
    assert list(table.columns) == ["diverged", "collapsed", "collapse_class", "collapse_pair"]
    assert list(table.loc["pooling.kind=max"]) == [2, 1, 1, 1]
    assert not table.loc["baseline"].any()


def test_failures_stand_before_symptoms_each_as_the_detectors_order_them(results):
    loaded = load(results)
    runs = loaded.runs.copy()
    ok = runs.index[runs["status"] == "ok"]
    runs.loc[ok[0], "detectors"] = "blowup;collapse_class_partial;new_code;const"
    runs.loc[ok[1], "detectors"] = "d_win;late_collapse"
    analysis = analyse(replace(loaded, runs=runs))
    assert list(maps.failure_table(analysis).columns) == [
        *("diverged", "collapsed"),
        *("const", "collapse_class", "collapse_pair", "late_collapse"),
        *("d_win", "blowup", "collapse_class_partial", "new_code"),
    ]
    assert maps.groups(analysis) == (2, 4, 4)
    assert f"fired in 1 of {len(runs)} runs and is no failure" in charts.draw(analysis)["failures"].caption


def test_long_names_of_different_combinations_stay_different():
    tricks = ("pooling", "least_squares", "spectral_norm", "input_noise", "label_smoothing")
    names = ["+".join(some) for n in range(1, 6) for some in combinations(tricks, n)]
    assert len({wrapped(name) for name in names}) == len(names)
    assert all(len(line) <= 30 for name in names for line in wrapped(name).splitlines())


def test_one_longer_arm_does_not_stretch_the_axis_of_the_budget_nor_leave_the_csv():
    one, longer = (pd.DataFrame({"middle": [9.0, 5.0]}, index=ends) for ends in ([100, 200], [300, 600]))
    assert curves._usual_end([one, one, longer], in_time=False) == 200
    assert curves._usual_end([one, longer, longer], in_time=False) == 600
    assert curves._usual_end([one], in_time=True) == 200


def test_losses_near_nothing_do_not_flatten_the_others_and_stay_in_the_csv(results):
    loaded = load(results)
    points = loaded.curves.copy()
    its = loaded.runs.loc[loaded.runs["arm"] == "placebo", "run"]
    lost = (points["metric"] == "loss_d") & points["run"].isin(its)
    assert lost.any()
    points.loc[lost, "value"] = 1e-4
    chart = curves.losses(analyse(replace(loaded, curves=points)))
    assert "losses down to 0.0001, which the CSV has" in chart.caption
    assert chart.data["middle"].min() == 1e-4


def test_an_animation_is_the_frames_in_order_and_ends_on_the_last(tmp_path):
    written = fake_results.write(tmp_path / "x", arms=FEW, seeds=2, curves=False)
    runs = load(written).runs
    run = runs[runs["seed"] == 1]["run"].iloc[0]
    (written / "samples" / run).mkdir()
    for images in (500, 1000, 20000):  # by number, not by name
        Image.new("L", (128, 64), images // 100).save(written / "samples" / run / f"{images}.png")
    seed, moving = sheets.animations(analyse(load(written)))
    assert seed == 1
    assert list(moving) == ["baseline"]
    folder = report(written, tmp_path / "reports")
    [file] = (folder / "animations").glob("*.webp")
    with Image.open(file) as film:
        assert film.n_frames == 3
        shades = []
        for i in range(3):
            film.seek(i)
            shades.append(int(np.asarray(film.convert("L"))[4, 4]))
    assert shades == sorted(shades)
    (written / "samples" / run / "1000.png").write_bytes(b"no picture")
    with pytest.raises(Refused, match=r"1000\.png: not a picture"):
        report(written, tmp_path / "reports")


def test_an_arms_command_is_a_grid_of_that_arm(results):
    name = "pooling.kind=max"
    analysis = analyse(load(results))
    analysis.results.environment["recipe"].pop("betas")
    text = grid_of(next(arm for arm in analysis.arms if arm.name == name), analysis)
    again = grid.read(text, "again.yaml")
    assert [arm.name for arm in again.arms] == ["baseline", name]
    assert again.arms[1].tricks[0].values["kind"] == "max"
    assert again.seeds == tuple(range(10))
    assert (again.budget.unit, again.budget.amount) == ("images", 20000)
    assert "\n" not in text


def test_an_arms_command_names_its_limits_and_exactly_its_seeds(tmp_path):
    folder = fake_results.write(tmp_path / "x", arms=FEW, seeds=3, samples=False)
    found = load(folder)
    found.environment["score"]["limits"] = [["flat", 0.02]]
    found.environment["recipe"].pop("betas")
    seeds = found.runs["seed"].replace({2: 107})
    analysis = analyse(replace(found, runs=found.runs.assign(seed=seeds)))
    grids = grid.read_all(grid_of(analysis.arms[1], analysis), "again.yaml")
    assert [one.seeds for one in grids] == [(0, 1), (107,)]
    assert len({one.name for one in grids}) == 2
    assert all(dict(one.score.limits) == {"flat": 0.02} for one in grids)


def test_a_command_carries_no_command_from_a_name(folder):
    text = (folder / "index.md").read_text()
    scripts = [block for block in re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL) if "again-" in block]
    assert len(scripts) == len(FEW) + 1
    for script in scripts:
        first, _, last, run = script.split("\n")
        assert re.fullmatch(r"cat > again-[\w.=+-]+\.yaml <<'END'", first)
        assert last == "END"
        assert re.fullmatch(r"bench run again-[\w.=+-]+\.yaml", run)
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_markup_in_any_text_of_a_result_stays_text(tmp_path):
    evil = '</code></script><script>alert(1)</script><img src=x onerror="alert(1)">'
    written = fake_results.write(tmp_path / "x", arms=FEW, seeds=6, samples=False, curves=False)
    environment = json.loads((written / "environment.json").read_text())
    environment["data"]["set"] = environment["recipe"]["evil"] = environment["budget"]["unit"] = evil
    (written / "environment.json").write_text(json.dumps(environment))
    cards = json.loads((written / "tricks.json").read_text())
    card = cards["label_smoothing"]
    card["summary"] = card["doc"] = card["claims"][0]["text"] = card["claims"][0]["source"] = evil
    card["fields"][0]["doc"] = evil
    (written / "tricks.json").write_text(json.dumps(cards))
    html = (report(written, tmp_path / "reports") / "index.html").read_text()
    assert html.count("<script") == 1
    assert "<img" not in html
    assert html.count("&lt;script&gt;") >= 5


def test_several_sets_stand_side_by_side_and_never_in_one_number(results, tmp_path):
    arms = FEW | {"label_smoothing": ("trick", {"label_smoothing": {"target": 0.9}}, 1.4, {}, 1.0, 1.0)}
    other = fake_results.write(tmp_path / "other", arms=arms, extractor="inception-v3-compat", samples=False)
    analyses = [analyse(load(path)) for path in (results, other)]
    rows = {row.label: row for row in rows_of(across(analyses), analyses)}
    assert rows["label_smoothing target=0.9"].agreement == "signs disagree"
    assert rows["noise_length length=32"].agreement == "one set only"
    folder = together([results, other], tmp_path / "reports", "both")
    text = (folder / "index.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| `label_smoothing"))
    for analysis, cell in zip(analyses, row.split("|")[2:4], strict=True):
        effect = next(e for e in analysis.effects if e.tricks == ("label_smoothing",))
        assert f"**{effect.verdict}** {pages.ratio_text(effect.ratio.estimate)}" in cell
    shared = len({*load(results).runs["run"]} & {*load(other).runs["run"]})
    assert (f"`digits` and `other` share {shared}" in text) == (shared > 0)
    assert "`digits` (FD ratio)" in text
    assert "`other` (FID ratio)" in text
    assert len(pd.read_csv(folder / "verdicts.csv")) == 4 + 3
    for ending in ("svg", "png", "pdf", "csv"):
        assert (folder / f"by_set.{ending}").is_file()


def test_the_exports_of_a_design_that_averages_have_what_its_page_has():
    analysis = analyse(load(Path(__file__).parents[1] / "results" / "factorial"))
    table = verdicts(analysis).set_index("arm")
    for e in main_effects(analysis):
        row = table.loc[e.name]
        assert row["cost"] == e.cost.seconds
        assert row["p_failures"] == e.p_failures
        assert (row["needed"] if e.needed else None) == e.needed
        assert row["values"] == ";".join(settings({e.factor: e.values}))


def test_a_design_that_averages_stands_beside_others_by_its_main_effects():
    folders = [Path(__file__).parents[1] / "results" / name for name in ("factorial", "quick")]
    analyses = [analyse(load(folder)) for folder in folders]
    table = across(analyses)
    own = table[(table["results"] == "factorial") & (table["context"] == "averaged over the others")]
    mains = {e.factor: e for e in main_effects(analyses[0])}
    assert set(own["trick"]) == set(mains)
    for one in own.itertuples():
        e = mains[one.trick]
        assert (one.n, one.ratio, one.verdict) == (e.comparison.n, e.ratio.estimate, e.verdict)
    assert set(table[(table["results"] == "factorial") & (table["context"] == "alone")]["trick"]) == {
        trick for e in analyses[0].controls for trick in e.tricks
    }
    for one in treatments(analyses[0]):
        having = [arm for arm in analyses[0].arms if one.runs & set(arm.runs["run"])]
        assert len(having) in (1, 8)
        assert all(one.trick in arm.tricks for arm in having)


@pytest.mark.parametrize(
    ("names", "name", "why"),
    [
        (["digits"], "both", "give two or more"),
        (["digits", "digits"], "both", "digits stands twice"),
        (["digits", "other"], "../x", "cannot name a folder"),
        (["digits", "other"], "digits", "would be overwritten"),
    ],
)
def test_what_cannot_stand_together_is_refused_in_one_line(results, names, name, why):
    done = CliRunner().invoke(main, ["report", *names, "--together", name, "--results", str(results.parent)])
    assert done.exit_code == 2
    assert why in done.output
    assert len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["digits", "quick", "fashion-mnist"])
def test_the_commands_for_the_checked_in_results_make_the_runs_that_are_there(name):
    analysis = analyse(load(f"results/{name}"))
    for arm in analysis.arms:
        made = plan.runs(grid.read(grid_of(arm, analysis), "again.yaml"))
        wanted = {*arm.runs["run"], *analysis.reference.runs["run"]}
        assert {run.id for run in made} == wanted, arm.name


def test_a_treatment_of_one_set_only_is_folded_away_and_not_drawn():
    one = object()
    assert Row("both", False, (one, one, None)).shared
    assert not Row("alone", False, (None, one, None)).shared


def test_agreement_of_the_same_runs_is_no_agreement():
    one = SimpleNamespace(verdict="helps", disagree=False)
    a, b, c = frozenset("ab"), frozenset("bc"), frozenset("d")
    assert Row("x", False, (one, one), (a, b)).agreement == "same runs"
    assert Row("x", False, (one, one), (a, c)).agreement == "agree"
    assert Row("x", False, (one, one, one), (a, b, c)).agreement == "agree"
