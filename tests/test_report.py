"""What the report must never get wrong, on made-up results."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import fake_results
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench import drawing, pages, sheets, stats
from bench.analyse import analyse
from bench.background import failed, grid_of, reproduce
from bench.cli import main
from bench.curves import along
from bench.errors import Refused
from bench.grid import read_all
from bench.maps import failure_table, groups
from bench.report import report
from bench.results import load
from bench.sections import _change, claimed, findings, headline, light, meant, verdict_table
from bench.survival import sound

FEW = {name: fake_results.ARMS[name] for name in ("baseline", "label_smoothing", "placebo")}
ODD = {
    "baseline": FEW["baseline"],
    "a|b `tick` $x$ <b>&amp; **no** [l](u)": FEW["label_smoothing"],
    "_under" * 12: FEW["placebo"],
}


class Page(HTMLParser):
    """Everything that an HTML page would load, its text, and its tables, images and ids."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.words, self.tables, self.ids, self.unclosed = [], [], [], [], []
        self.images, self.style, self.script = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        of = dict(attributes)
        if tag not in ("meta", "link", "img", "br", "path", "use", "rect"):
            self.unclosed.append(tag)
        self.ids += [of["id"]] if "id" in of else []
        loads = [of.get(key) for key in ("src", "srcset", "data", "poster", "xlink:href") if key in of]
        loads += [of["href"]] if tag in ("link", "use", "image") and "href" in of else []
        self.loads += loads
        self.style += of.get("style", "") + (of.get("clip-path") or "")
        if tag == "source":
            self.unclosed.remove("source")
        if tag in ("img", "svg"):
            self.images.append(of.get("alt") or of.get("aria-label"))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        if tag in self.unclosed:
            assert self.unclosed.pop() == tag

    def handle_data(self, data):
        if self.unclosed and self.unclosed[-1] == "style":
            self.style += data
            return
        if self.unclosed and self.unclosed[-1] == "script":
            self.script += data
            return
        self.words.append(data)
        if {"td", "th"} & set(self.unclosed):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fake_results.write(tmp_path_factory.mktemp("all") / "results" / "digits")


@pytest.fixture(scope="module")
def folder(results):
    return report(results, results.parent.parent / "reports")


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "index.html").read_text())


def tables(folder):
    """The Markdown tables: lists of rows of cells."""
    found, inside = [], False
    for line in (folder / "index.md").read_text().splitlines():
        if line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found[-1].append(cells) if inside else found.append([cells])
        inside = line.startswith("|")
    return found


def test_every_planned_arm_is_in_every_table_and_chart(folder, page):
    verdicts, _, _, equal, arms, _ = page.tables  # and the words, the failures, and the setting
    for arm in fake_results.ARMS:
        assert [row for row in arms if row[0] == arm], arm
        if arm != "baseline":
            assert [row for row in verdicts if row[0].split(" ")[0] == arm], arm
            assert [row for row in equal if row[0] == arm], arm
        for chart in (
            "ratio",
            "pairs",
            "score_by_arm",
            "failures",
            "fd_along_images",
            "fd_along_time",
            "losses",
            "losses_along_time",
        ):
            assert f">{arm}<" in (folder / f"{chart}.svg").read_text() or (
                chart in ("ratio", "pairs") and arm == "baseline"
            ), (arm, chart)
        assert any(arm in alt for alt in page.images), arm


def test_the_two_pages_hold_the_same_tables(folder, page):
    markdown = tables(folder)
    assert [len(t) - 1 for t in markdown] == [
        len(t) for t in page.tables
    ]  # Markdown has a ruler below each header
    strip = re.compile(r"\\|`|\*\*|\]\([^)]*\)|\[|\xa0| ")
    for ours, theirs in zip(markdown, page.tables, strict=True):
        for row, other in zip(ours[:1] + ours[2:], theirs, strict=True):
            assert [strip.sub("", cell) for cell in row] == [strip.sub("", cell) for cell in other]


def test_the_product_is_the_first_table(page):
    assert page.tables[0][0][0] == "trick"
    assert [cell.split(" (")[0] for cell in page.tables[0][0]] == [
        "trick",
        "the literature says",
        "we measured",
        "failures",
        "cost",
        "verdict",
    ]


def test_failed_runs_are_counted_and_drawn_and_never_dropped(results, page):
    row = next(row for row in page.tables[0] if row[0].startswith("pooling.kind=max"))
    assert row[3].startswith("3/10 (11")
    assert "n = 10" in row[2].replace("\xa0", " ")
    arms = next(row for row in page.tables[4] if row[0] == "pooling.kind=max")
    assert arms[3] == "7 ok, 2 diverged, 1 collapsed"
    effect = next(e for e in analyse(load(results)).effects if e.arm.name == "pooling.kind=max")
    assert np.isclose(np.exp(effect.pairs["with"].max()), fake_results.CAP)
    assert effect.comparison.n == 10
    assert "3 of 10 failed" in "".join(page.words)


def test_a_run_lost_by_the_machine_leaves_its_pair_out_and_says_so(page):
    row = next(row for row in page.tables[0] if row[0].startswith("batch_size.size=16"))
    assert "n = 9" in row[2].replace("\xa0", " ")
    assert "1 of 100 runs stopped by the machine" in "".join(page.words).replace("\xa0", " ")


def test_the_page_loads_nothing_from_outside(folder, page):
    assert page.loads
    for address in page.loads:
        assert address.startswith(("data:", "#")), address[:80]
    assert not re.search(r"@import|url\((?!#)", page.style)
    assert (folder / "index.html").read_text().count("<script") == 1
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML|http", page.script)
    assert not page.unclosed


def test_ids_of_the_page_are_unique_and_everything_used_is_there(page):
    assert len(page.ids) == len(set(page.ids))
    used = {address[1:] for address in page.loads if address.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", page.style))
    assert used
    assert used <= set(page.ids)


def test_every_picture_has_words_for_those_who_do_not_see_it(folder, page):
    charts_ = len(list(folder.glob("*.svg")))
    assert charts_ >= 9
    assert len(page.images) == charts_ + 1 + len(fake_results.ARMS)
    assert all(alt and len(alt) > 15 for alt in page.images)
    for alt, file in re.findall(r"!\[(.*?)\]\((.*?)\)\n", (folder / "index.md").read_text()):
        assert len(alt) > 15
        assert (folder / file).is_file()


def test_the_claim_about_the_settings_that_were_tested_comes_first(tmp_path):
    folder = fake_results.write(tmp_path / "g")
    cards = json.loads((folder / "tricks.json").read_text())
    [claim] = cards["batch_size"]["claims"]
    cards["batch_size"]["claims"] = [claim | {"text": f"of {n}", "about": {"size": n}} for n in (8, 16)]
    (folder / "tricks.json").write_text(json.dumps(cards))
    analysis = analyse(load(folder))
    first, other = (claimed({"batch_size": {"size": size}}, analysis) for size in (16, 128))
    assert first.startswith("**said to help** for size 16: of 16")
    assert other.startswith("not of these settings: **said to help** for size 8: of 8")


def without_claims(text):
    for card in fake_results.CARDS.values():
        for claim in card["claims"]:
            text = text.replace(pages.plain(claim["text"]), "").replace(claim["text"], "")
    return text


def test_a_value_that_stands_for_something_else_is_shown_in_its_tricks_words(tmp_path):
    written = fake_results.write(tmp_path / "x", arms=FEW, samples=False, curves=False)
    path = written / "tricks.json"
    path.write_text(
        path.read_text().replace('"doc": "x"', '"doc": "largest target; 0.9 is the usual one: of old"')
    )
    analysis = analyse(load(written))
    rows = " ".join(verdict_table(analysis)[1].rows[0])
    assert "(target the usual one)" in rows


SAID = {
    ("D's rate; 0 is the usual one: the recipe's", 0.0): "the usual one",
    ("channels of D's hidden maps; 0: as published", 0): "as published",
    ("D's rate; 0 keeps the recipe's", 0.0): "keeps the recipe's",
    ("D's rate; 0 keeps the recipe's", 0.1): "",
    ("whether; 1 is odd", True): "",
    ("the least; try powers of ten", 0): "",
    ("standard deviation", 0): "",
    (None, 0): "",
}


@pytest.mark.parametrize(("doc", "value"), SAID)
def test_what_a_value_means_is_read_from_the_fields_own_doc(doc, value):
    card = {"fields": [{"name": "other", "doc": "x; 0 is odd"}, {"name": "d", "doc": doc}]}
    assert meant(card, "d", value) == SAID[doc, value]
    assert meant(None, "d", value) == ""


def test_the_bare_word_fid_means_inception(folder, tmp_path):
    files = [folder / "index.md", folder / "index.html", *sorted(folder.glob("*.svg"))]
    for file in files:
        text = without_claims(file.read_text())
        assert re.findall(r".{20}\bFID\b.{0,20}", text.replace("Inception FID", "")) == [], file.name
    other = fake_results.write(
        tmp_path / "i", arms=FEW, seeds=6, extractor="inception-v3-compat", samples=False
    )
    assert "FID of every run" in (report(other, tmp_path) / "index.md").read_text()


def test_the_same_results_give_the_same_bytes(results, folder, tmp_path):
    again = report(results, tmp_path)
    names = sorted(p.name for p in folder.iterdir())
    assert names == sorted(p.name for p in again.iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


def test_the_report_stays_small_enough_to_check_in(folder):
    assert sum(p.stat().st_size for p in folder.iterdir()) < 3_200_000


def test_large_sample_grids_are_cut_to_rows_that_fit(tmp_path):
    folder = fake_results.write(tmp_path / "big", arms=FEW, seeds=1, curves=False)
    random = np.random.default_rng(0)
    for path in (folder / "samples").iterdir():
        Image.fromarray(random.integers(0, 256, (256, 512, 3), dtype=np.uint8)).save(path)
    analysis = analyse(load(folder))
    seed, grids = sheets.pictures(analysis)
    assert {Image.open(io.BytesIO(png)).size for png in grids.values()} == {
        (512 + 7 * 4, 64)
    }  # 8 images of 64 pixels, with gaps of 4 between them
    assert seed == 0


def test_the_images_of_one_seed_are_shown_as_they_are_with_gaps_between_them(results, folder):
    html = (folder / "index.html").read_text()
    pictures = [base64.b64decode(x) for x in re.findall(r'src="data:image/png;base64,([^"]+)"', html)]
    shown = {tiles(Image.open(io.BytesIO(picture)), gap=1) for picture in pictures}
    runs = load(results).runs
    of_seed = [f"{run}.png" for run in runs[runs["seed"] == 0]["run"]]
    for name in ("real.png", *of_seed):
        assert tiles(Image.open(results / "samples" / name), gap=0) in shown, name


def tiles(sheet: Image.Image, gap: int) -> tuple[bytes, ...]:
    """The 32 images of a sample grid, whose gaps are `gap` pixels wide."""
    width, height = (sheet.width - 7 * gap) // 8, (sheet.height - 3 * gap) // 4
    corners = [(c * (width + gap), r * (height + gap)) for r in range(4) for c in range(8)]
    return tuple(sheet.convert("L").crop((x, y, x + width, y + height)).tobytes() for x, y in corners)


def test_no_torch_and_no_tricks_are_imported(results, tmp_path):
    code = (
        "import sys, pathlib; from bench.report import report;"
        f"report(pathlib.Path({str(results)!r}), pathlib.Path({str(tmp_path)!r}));"
        "print([m for m in ('torch', 'torchvision', 'tricks') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


EDGES = {
    "one seed": {"seeds": 1},
    "five seeds": {"seeds": 5},
    "an arm that always fails": {"every": "label_smoothing"},
    "a reference that always fails": {"every": "baseline"},
    "leave one out": {"arms": fake_results.leave_one_out()},
    "one arm": {"arms": {"baseline": FEW["baseline"]}},
    "no samples": {"samples": False},
    "no curves": {"curves": False},
    "no primary score": {"metrics": ("is", "kid")},
    "only the primary score": {"metrics": ("fid",)},
    "names that are markup": {"arms": ODD},
    "seeds that are all the same": {"spread": 0.0},
}


@pytest.mark.parametrize("edge", EDGES)
def test_an_odd_grid_has_a_report_that_says_what_it_is(edge, tmp_path):
    written = fake_results.write(tmp_path / "x", **{"arms": FEW, "seeds": 6, "samples": False} | EDGES[edge])
    folder = report(written, tmp_path / "reports")
    page = Page((folder / "index.html").read_text())
    text = " ".join("".join(page.words).replace("\xa0", " ").split())
    for arm in load(written).environment["arms"]:
        assert arm["arm"] in text
    assert not re.search(r"\bnan\b|\binf\b|None|<NA>|Traceback", text)
    say = {
        "one seed": "too few pairs for an interval",
        "five seeds": "With 5 seeds no exact test can reach p < .05",
        "an arm that always fails": "6/6",
        "a reference that always fails": "The reference arm baseline is itself unstable",
        "leave one out": "each judged inside all",
        "one arm": "there is nothing to compare it with",
        "no primary score": "no arm can be judged",
        "seeds that are all the same": "may not be independent",
    }
    assert say.get(edge, "Verdicts") in text


def test_names_that_are_markup_stay_names(tmp_path):
    folder = report(
        fake_results.write(tmp_path / "x", arms=ODD, seeds=1, samples=False), tmp_path / "reports"
    )
    name = list(ODD)[1]
    page = Page((folder / "index.html").read_text())
    assert any(row[0].startswith(name) for row in page.tables[0])
    assert {len(row) for row in tables(folder)[0]} == {6}


def test_leave_one_out_tells_what_a_trick_adds(tmp_path):
    analysis = analyse(
        load(fake_results.write(tmp_path / "x", arms=fake_results.leave_one_out(), samples=False))
    )
    effects = {e.tricks: e for e in analysis.effects}
    assert effects["label_smoothing",].verdict == "helps"  # the stack is better with it: .7 against 1.0
    assert effects["label_smoothing",].ratio.estimate < 0.8
    assert effects["pooling",].verdict == "hurts"
    assert all(e.left_out for e in analysis.effects)


def test_controls_are_outside_the_family_and_keep_their_own_p(results):
    analysis = analyse(load(results))
    assert analysis.family == 7
    assert {e.arm.name for e in analysis.controls} == {"learning_rate", "placebo"}
    for effect in analysis.controls:
        assert effect.p_holm == effect.comparison.p
    assert any(e.p_holm > e.comparison.p for e in analysis.tricks)
    for effect in analysis.effects:
        family = 7 if effect.arm.role == "trick" else 1
        assert effect.detectable == stats.detectable(effect.comparison.spread, effect.comparison.n, family)


def test_the_headline_counts_every_verdict_and_judges_the_controls(results):
    analysis = analyse(load(results))
    text = headline(analysis)
    counts = {v: sum(e.verdict == v for e in analysis.tricks) for v in ("helps", "hurts", "inconclusive")}
    assert counts == {"helps": 3, "hurts": 2, "inconclusive": 2}
    assert text == "Of 7 variants of `baseline`, 3 help, 2 hurt and 2 are inconclusive."
    helps, hurts = findings(analysis)
    assert helps.startswith("**3 help** (change of FD, 95 % interval): `batch_size.size=16` −43 % (−")
    assert hurts.startswith("**2 hurt**")
    shown = light(analysis)
    assert shown.kind == "good"
    assert "The placebo `placebo` is inconclusive" in shown.text
    assert re.search(r"The control `learning_rate` hurts, .*, as it should", shown.text)


def many(analysis, verdict, count):
    """The analysis with so many tricks of one verdict, all of them different."""
    one = analysis.tricks[0]
    made = [
        replace(
            one,
            arm=replace(one.arm, name=f"arm{i}"),
            tricks=(f"trick{i}",),
            verdict=verdict,
            failures_with=(9, 10),
        )
        for i in range(count)
    ]
    return replace(analysis, effects=(*made, *analysis.controls))


@pytest.mark.parametrize("verdict", ["helps", "hurts", "equivalent", "unstable"])
@pytest.mark.parametrize("count", [1, 5, 6, 40])
def test_the_findings_name_a_few_of_each_verdict_and_count_the_rest(results, verdict, count):
    [point] = findings(many(analyse(load(results)), verdict, count))
    assert point.count("`arm") == min(count, 5)
    assert ("and " in point) == (count > 5)
    assert count <= 5 or f"; and {count - 5} more, see the table." in point
    assert len(point) < 500


def test_the_findings_name_the_strongest_and_a_trick_once_with_its_other_values(results):
    analysis = analyse(load(results))
    sizes = [replace(e, verdict="hurts") for e in analysis.tricks if e.tricks == ("batch_size",)]
    [point] = findings(replace(analysis, effects=(*sizes, *analysis.controls)))
    weak, strong = sorted(sizes, key=lambda e: abs(np.log(e.ratio.estimate)))
    assert f": `{strong.arm.name}`" in point
    assert f"(its other value: {_change(weak.ratio.estimate)})" in point
    assert weak.arm.name not in point


def test_what_the_findings_say_is_what_the_table_says(results, folder):
    analysis = analyse(load(results))
    for effect in analysis.tricks:
        said = [point for point in findings(analysis) if f"`{effect.arm.name}`" in point]
        assert len(said) == (effect.verdict in ("helps", "hurts"))
        if said:
            low, high = (_change(x) for x in effect.ratio[1:])
            assert f"{_change(effect.ratio.estimate)} ({low} to {high})" in said[0]
            assert said[0] in (folder / "index.md").read_text()


def test_a_small_change_is_never_called_zero():
    assert [_change(x) for x in (0.997, 1.004, 0.5, 2.0, 3.46, 640.0)] == [
        *("−0.3 %", "+0.4 %", "−50 %", "+100 %", "× 3.5", "× 640"),
    ]


def test_a_placebo_that_works_is_an_alarm(tmp_path):
    role, tricks, _, *rest = FEW["placebo"]
    arms = FEW | {"placebo": (role, tricks, 0.6, *rest)}
    shown = light(analyse(load(fake_results.write(tmp_path / "x", arms=arms, samples=False))))
    assert shown.kind == "alarm"
    assert "Warning light: ON.** The placebo `placebo` helps" in shown.text


def test_a_placebo_without_pairs_checks_nothing(tmp_path):
    few = analyse(load(fake_results.write(tmp_path / "few", seeds=3, samples=False)))
    assert light(few).text.startswith(
        "**Warning light: unknown.** The placebo has 3 pairs of runs and a test needs 6"
    )
    role, tricks, factor, _, *rest = FEW["placebo"]
    lost = FEW | {"placebo": (role, tricks, factor, dict.fromkeys(range(10), "failed"), *rest)}
    none = analyse(load(fake_results.write(tmp_path / "none", arms=lost, samples=False)))
    assert "The placebo has 0 pairs of runs" in light(none).text


def test_the_curve_of_an_arm_that_failed_stands_at_its_own_points_and_then_at_the_cap(tmp_path):
    """Its runs diverge after 8,000 images; another arm has points elsewhere, which are none of its own."""
    role, tricks, factor, _, *rest = FEW["label_smoothing"]
    arms = FEW | {"label_smoothing": (role, tricks, factor, dict.fromkeys(range(10), "diverged"), *rest)}
    analysis = analyse(load(fake_results.write(tmp_path / "g", arms=arms, samples=False)))
    longer = analysis.results.curves
    moved = longer["run"].isin(analysis.results.runs.query("arm == 'placebo'")["run"])
    longer = longer.assign(images=longer["images"].where(~moved, longer["images"] * 3 + 7))
    spreads = along(replace(analysis, results=replace(analysis.results, curves=longer)), "fd")
    points = list(spreads["baseline"].index)
    assert list(spreads["label_smoothing"].index) == points
    ended = spreads["label_smoothing"]["middle"][[x for x in points if x > 8000]]
    assert ended.to_numpy() == pytest.approx(analysis.cap)
    assert not set(spreads["placebo"].index) & set(points)


def test_codes_are_right_of_the_bar_though_one_is_called_as_a_status_is(tmp_path):
    found = load(fake_results.write(tmp_path / "g", arms=FEW, samples=False))
    runs = found.runs.assign(status="ok", detectors=None)
    runs.loc[runs.index[:2], ["status", "detectors"]] = "no_learn", "no_learn;late_collapse"
    analysis = analyse(replace(found, runs=runs))
    assert list(failure_table(analysis).columns) == ["no_learn", "late_collapse"]
    assert groups(analysis) == (1, 1, 0)


def test_a_grid_without_a_placebo_says_so(tmp_path):
    arms = {name: fake_results.ARMS[name] for name in ("baseline", "label_smoothing", "learning_rate")}
    shown = light(analyse(load(fake_results.write(tmp_path / "x", arms=arms, samples=False))))
    assert "no placebo" in shown.text


def test_cost_is_paired_and_only_between_runs_timed_alike(tmp_path):
    folder = fake_results.write(tmp_path / "x", samples=False, curves=False)
    effects = {e.arm.name: e for e in analyse(load(folder)).effects}
    assert effects["batch_size.size=16"].cost.seconds == pytest.approx(2.1, rel=0.05)
    assert effects["pooling.kind=max"].cost.parameters == pytest.approx(0.8)
    lines = (folder / "runs.csv").read_text().replace(",fast,float32,1,1,cpu,", ",fast,float32,5,1,cpu,", 10)
    (folder / "runs.csv").write_text(lines)  # the baseline comes first: now timed in arrays of five
    for effect in analyse(load(folder)).effects:
        assert np.isnan(effect.cost.seconds)
        assert effect.cost.parameters > 0


def test_rows_of_two_sources_in_one_arm_are_marked(tmp_path):
    folder = fake_results.write(tmp_path / "x", arms=FEW, seeds=6, samples=False, curves=False)
    text = (folder / "runs.csv").read_text()
    (folder / "runs.csv").write_text(text.replace("0123456789abcdef", "feedfeedfeedfeed", 1))
    text = (report(folder, tmp_path / "reports") / "index.md").read_text()
    assert "Rows of different source digests stand side by side in `baseline`" in text


def test_missing_runs_are_told(tmp_path):
    folder = fake_results.write(tmp_path / "x", arms=FEW, seeds=6, samples=False, curves=False)
    lines = (folder / "runs.csv").read_text().splitlines()
    (folder / "runs.csv").write_text("\n".join(x for x in lines if ",placebo," not in x) + "\n")
    text = (report(folder, tmp_path / "reports") / "index.md").read_text()
    assert "12 of 18 runs are here; runs are missing in `placebo`" in text
    assert "| `placebo` | control | 0 | not run |" in text


def test_a_missing_cap_is_told_and_failures_still_come_last(tmp_path):
    folder = fake_results.write(tmp_path / "x", samples=False, curves=False)
    environment = json.loads((folder / "environment.json").read_text())
    environment["cap"] = {}
    (folder / "environment.json").write_text(json.dumps(environment))
    analysis = analyse(load(folder))
    arm = next(a for a in analysis.arms if a.name == "pooling.kind=max")
    assert np.exp(arm.logs[arm.failed]).to_numpy() == pytest.approx(analysis.cap)
    assert analysis.cap >= load(folder).runs["fd"].max()


def test_a_chart_that_is_no_longer_drawn_is_taken_away(tmp_path):
    folder = fake_results.write(tmp_path / "x", arms=FEW, seeds=2)
    reports = tmp_path / "reports"
    assert (report(folder, reports) / "samples.png").is_file()
    for path in (folder / "samples").iterdir():
        path.unlink()
    (reports / "x" / "notes.txt").write_text("mine")
    report(folder, reports)
    assert not (reports / "x" / "samples.png").exists()
    assert (reports / "x" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("more", [(), ("b", "--together", "both")])
def test_a_set_without_rows_is_refused_in_one_line(tmp_path, more):
    """Its runs.csv is a header, and so is its curves.csv."""
    for name in ("a", "b"):
        fake_results.write(tmp_path / name, samples=False)
        for table in ("runs.csv", "curves.csv"):
            header = (tmp_path / name / table).read_text().splitlines()[0]
            (tmp_path / name / table).write_text(header + "\n")
    words = ["report", "a", *more, "--results", str(tmp_path), "--reports", str(tmp_path / "reports")]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 2
    assert told.output.splitlines() == [f"bench: {tmp_path / 'a' / 'runs.csv'}: no rows; nothing to report"]


def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    folder = fake_results.write(tmp_path / "x", arms=FEW, seeds=1, samples=False, curves=False)
    (tmp_path / "reports").write_text("a file, not a folder")
    with pytest.raises(Refused, match="cannot be written"):
        report(folder, tmp_path / "reports")


@pytest.mark.parametrize("every", [False, True])
def test_where_images_are_empty_failures_are_told_without_a_curve(tmp_path, every):
    arms = FEW | {"pooling.kind=max": fake_results.ARMS["pooling.kind=max"]}
    found = load(fake_results.write(tmp_path / "x", arms=arms, samples=False))
    runs = found.runs
    sound_run = (runs["arm"] == "pooling.kind=max") & (runs["status"] == "ok")
    runs["images"] = runs["images"].mask(sound_run | every)
    analysis = analyse(found)
    assert sound(next(arm for arm in analysis.arms if arm.name == "pooling.kind=max")).empty
    [_, table, text] = failed(analysis)
    assert table.rows[0][1] == "3 of 10"
    assert ("images at most" in text.text) != every


@pytest.mark.parametrize("seeds", [[0, 1, 2], [0, 1, 10**9]])
def test_an_arms_command_has_a_name_that_bench_run_takes(tmp_path, seeds):
    found = load(fake_results.write(tmp_path / "x", arms=ODD, seeds=3, samples=False))
    runs = found.runs.assign(seed=found.runs["seed"].replace({2: seeds[2]}))
    found.environment["recipe"].pop("betas")
    analysis = analyse(replace(found, runs=runs))
    for arm in analysis.arms:
        grids = read_all(grid_of(arm, analysis), "again.yaml")
        assert [seed for grid in grids for seed in grid.seeds] == seeds
        assert len({grid.name for grid in grids}) == len(grids)


@pytest.mark.parametrize("commit", ["c0ffee", "$(reboot)", ["c0ffee"], None])
def test_a_command_holds_no_commit_but_a_hash(tmp_path, commit):
    found = load(fake_results.write(tmp_path / "x", arms=FEW, seeds=1, samples=False))
    found.environment["environments"]["env1"]["git_commit"] = commit
    [script] = [block.text for block in reproduce(analyse(found)) if isinstance(block, pages.Code)]
    assert script.startswith("git checkout c0ffee\n" if commit == "c0ffee" else "pip install")


def test_text_survives_the_way_to_html():
    for text in ("a_b*c", "x | y", "1 < 2 & 3", "[l](http://u)", "back`tick", "$x$", "\\n", "**b**"):
        assert (
            Page(pages.inline(pages.plain(text))).words == [text]
            or "".join(Page(pages.inline(pages.plain(text))).words) == text
        )
        assert "".join(Page(pages.inline(pages.code(text))).words) == text


def test_only_web_addresses_become_links():
    assert pages.link("paper", "https://x.org/a(b)") == "[paper](https://x.org/a%28b%29)"
    assert pages.link("paper", "javascript:alert(1)") == "paper"
    assert pages.link("paper", "") == "paper"


@pytest.mark.parametrize(
    ("low", "high"), [(0.8, 1.3), (0.95, 1.06), (1, 1000), (20, 700), (37, 45), (1e-3, 1e5)]
)
def test_log_ticks_are_inside_and_neither_too_few_nor_too_many(low, high):
    found = drawing.ticks(low, high)
    assert 3 <= len(found) <= 10
    assert all(low <= tick <= high for tick in found)
    assert found == sorted(set(found))
