"""The report of a results folder: a Markdown page with its charts, and the same as one HTML file."""

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import pages, stats
from bench.analyse import (
    Analysis,
    Arm,
    Effect,
    analyse,
    as_expected,
    caveats,
    interquartile_score,
    median,
    median_score,
    names,
    readouts,
    verdict_table,
)
from bench.errors import Refused
from bench.pages import (
    Block,
    Code,
    Heading,
    Items,
    Picture,
    Table,
    Text,
    code,
    link,
    number,
    plain,
    ratio_text,
)
from bench.results import STATUSES, load

CHARTS = ("ratio", "score_by_arm", "along_budget", "losses", "samples")
VERB = {
    "helps": ("helps", "help"),
    "hurts": ("hurts", "hurt"),
    "equivalent": ("makes no practical difference", "make no practical difference"),
    "unstable": ("is unstable", "are unstable"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
}


def report(results: Path, reports: Path) -> Path:
    """Write reports/<name>/ (index.md, index.html, charts as SVG and PNG) from results/<name>/; return it.

    The same results give the same bytes. Raises Refused where the results are broken or the folder cannot be
    written.
    """
    analysis = analyse(load(results))
    markdown, page, drawn = _blocks(analysis)
    files: dict[str, bytes] = {
        "index.md": pages.to_markdown(markdown).encode(),
        "verdicts.csv": verdict_table(analysis).to_csv(index=False, lineterminator="\n").encode(),
        "index.html": pages.to_html(f"{analysis.results.name}: DCGAN tricks, measured", page).encode(),
    }
    for picture in drawn:
        files[f"{picture.name}.png"] = picture.png
        if picture.svg:
            files[f"{picture.name}.svg"] = picture.svg.encode()
    folder = Path(reports) / analysis.results.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write(folder / name, content)
        for name in CHARTS:  # of an earlier report: a chart that is no longer drawn must not lie about
            for old in (folder / f"{name}.svg", folder / f"{name}.png"):
                if old.name not in files:
                    old.unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"{folder}: the report cannot be written: {error.strerror}") from None
    return folder


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once, so that nobody reads half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _blocks(analysis: Analysis) -> tuple[list[Block], list[Block], list[Picture]]:
    """Return the document for Markdown and for HTML (they differ in the sample grids), and its pictures."""
    from bench import charts  # here, because seaborn takes seconds to import

    drawn = [Picture(c.name, c.title, c.caption, c.alt, c.svg, c.png) for c in charts.draw(analysis)]
    by_name = {picture.name: picture for picture in drawn}
    top = [Heading(1, f"{plain(analysis.results.name)}: which DCGAN tricks help?"), *_finding(analysis)]
    main = [by_name.pop(name) for name in ("ratio", "score_by_arm") if name in by_name]
    middle: list[Block] = [
        *[Text(f"**Note.** {note}", "note") for note in caveats(analysis)],
        *_verdict_table(analysis),
        *_words(analysis),
        *([Heading(2, "Charts")] if drawn else []),
        *main,
        *by_name.values(),
    ]
    end = [
        *_all_arms(analysis),
        *_readouts(analysis),
        *_how_to_read(analysis),
        *_setting(analysis),
        *_reproduce(analysis),
    ]
    found = charts.pictures(analysis)
    if not found:
        return [*top, *middle, *end], [*top, *middle, *end], drawn
    seed, grids = found
    missing = {arm.name: _why_no_picture(arm, seed) for arm in analysis.arms if arm.name not in grids}
    sheet = charts.montage(analysis, seed, grids, missing)
    tiles: list[tuple[str, bytes | str]] = [
        (_tile_label(analysis, name, seed), png) for name, png in grids.items()
    ]
    tiles += [(code(name), f"no picture: {plain(why)}") for name, why in missing.items()]
    file = Picture("samples", sheet.title, sheet.caption, sheet.alt, "", sheet.png)
    tiled = Picture("samples", sheet.title, sheet.caption, sheet.alt, "", sheet.png, tiles)
    return [*top, *middle, file, *end], [*top, *middle, tiled, *end], [*drawn, file]


def _why_no_picture(arm: Arm, seed: int) -> str:
    if seed not in arm.runs.index:
        return "not run"
    status = str(arm.runs["status"][seed])
    return "file missing" if status == "ok" else status


def _tile_label(analysis: Analysis, name: str, seed: int) -> str:
    if not name:
        return "**real images**"
    run = next(arm for arm in analysis.arms if arm.name == name).runs.loc[seed]
    score = f" · {analysis.score.short} {number(run['fd'])}" if not math.isnan(run["fd"]) else ""
    return f"{code(name)}{score}" + (f" · {run['status']}" if run["status"] != "ok" else "")


# --- the finding


def _finding(analysis: Analysis) -> list[Block]:
    """Return the sentences that somebody reads who reads no more."""
    environment = analysis.results.environment
    data, budget, score = (environment[key] for key in ("data", "budget", "score"))
    blocks: list[Block] = [Text(headline(analysis), "lead")]
    if analysis.scored and analysis.effects:
        blocks.append(Text(_power(analysis)))
    seeds = len(analysis.seeds)
    others = f"{', '.join(score.get('metrics', []))} in {score.get('extractor')} features"
    judged = analysis.score.long if analysis.scored else plain(others)
    blocks.append(
        Text(
            f"Setting: {plain(data.get('set', '?'))} at {data.get('size', '?')} pixels,"
            f" {_amount(budget.get('amount', '?'))} {plain(budget.get('unit', ''))} of training a run,"
            f" {len(analysis.arms)} arm{'s' * (len(analysis.arms) != 1)} × {seeds} seed{'s' * (seeds != 1)};"
            f" score: {judged}, {_amount(score.get('samples', '?'))} generated images a run."
        )
    )
    return blocks


def headline(analysis: Analysis) -> str:
    """Return the finding in words."""
    if not analysis.scored:
        return "These runs were not scored with a Fréchet distance, so no arm can be judged."
    sentences = []
    tricks = analysis.tricks
    if tricks:
        by = {v: [e for e in tricks if e.verdict == v] for v in stats.VERDICTS}
        parts = []
        for verdict, effects in by.items():
            if effects:
                shown = f" ({_shown(effects)})" if verdict in ("helps", "hurts") else ""
                count = len(effects)
                every = count == len(tricks) > 1
                told = ("both" if count == 2 else f"all {count}") if every else f"{count}"
                parts.append(f"{told} {VERB[verdict][count > 1]}{shown}")
        many, reference = "s" * (len(tricks) != 1), code(analysis.reference.name)
        if any(e.left_out for e in tricks):
            what = f"trick{many}, each judged inside {reference},"
        else:
            what = f"variant{many} of {reference},"
        sentences.append(f"Of {len(tricks)} {what} {_listed(parts)}.")
    elif not analysis.effects:
        sentences.append(
            f"One arm only, {code(analysis.reference.name)}: its median {analysis.score.short} over"
            f" {len(analysis.seeds)} seed{'s' * (len(analysis.seeds) != 1)} is"
            f" {number(median_score(analysis.reference))};"
            " there is nothing to compare it with."
        )
    for effect in analysis.controls:
        sentences.append(_control(effect, analysis))
    return " ".join(sentences)


def _control(effect: Effect, analysis: Analysis) -> str:
    placebo, fine = as_expected(effect, analysis.results.tricks)
    name, verdict = code(effect.arm.name), VERB[effect.verdict][0]
    if placebo:
        if fine:
            return f"The placebo {name} {verdict}: nothing is claimed where there is nothing."
        return f"WARNING: the placebo {name} {verdict}, which it cannot; distrust every verdict of this grid."
    if fine:
        return f"The control {name} {verdict}, as it should."
    return f"The control {name}, which is known to hurt, {verdict} here: this grid is weak."


def _shown(effects: Sequence[Effect]) -> str:
    ordered = sorted(effects, key=lambda e: e.comparison.effect.estimate)
    return ", ".join(f"{_called(e)} {_change(e.ratio.estimate)}" for e in ordered)


def _called(effect: Effect) -> str:
    """Return the name of what is judged: the arm, or what it leaves out."""
    return names(list(effect.tricks)) if effect.left_out else code(effect.arm.name)


def _change(ratio: float) -> str:
    """Return a ratio as a change in percent, or as a factor where that is clearer."""
    return f"× {ratio:.1f}" if ratio >= 3 else f"{100 * (ratio - 1):+.0f} %".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _power(analysis: Analysis) -> str:
    """Say what this grid could and could not detect."""
    n = len(analysis.seeds)
    against = f"{analysis.family} contrasts" if analysis.family > 1 else "one contrast"
    if math.isinf(analysis.detectable):
        return (
            f"What it could detect: nothing. With {n} seed{'s' * (n != 1)} and {against}, no exact test"
            " can reach"
            " p < .05 after Holm's correction, however large the effect."
        )
    up = math.exp(analysis.detectable)
    return (
        f"What it could detect: with {n} seeds and {against}, a typical trick that changes the score by a"
        " factor of"
        f" {up:.2f} or more (or {1 / up:.2f} or less) is found in 4 of 5 such grids; smaller effects"
        " mostly end as"
        " inconclusive, which is not the same as no effect."
    )


# --- the product


def _verdict_table(analysis: Analysis) -> list[Block]:
    """Return the table: trick, claim, measurement, failures, cost, verdict; best first, controls last."""
    if not analysis.effects:
        return []

    def best_first(effect: Effect) -> tuple[bool, float]:
        middle = effect.comparison.effect.estimate
        return math.isnan(middle), middle

    effects = sorted(analysis.tricks, key=best_first) + sorted(analysis.controls, key=best_first)
    measured = f"we measured ({analysis.score.short} ratio, 95 % interval, n)"
    return [
        Heading(2, "Verdicts"),
        Table(
            ["trick", "the literature says", measured, "failures", "cost", "verdict"],
            [
                [
                    _who(effect, analysis),
                    _claims(effect.tricks, analysis),
                    _measured(effect),
                    _failures(effect),
                    _cost(effect),
                    _verdict(effect),
                ]
                for effect in effects
            ],
            kind="cards",
            marks=[effect.verdict for effect in effects],
        ),
    ]


def _who(effect: Effect, analysis: Analysis) -> str:
    """Return the arm with the values that its name does not show."""
    tricks = analysis.reference.tricks if effect.left_out else effect.arm.tricks
    values = [
        f"{field} {_value(value)}"
        for trick in effect.tricks
        for field, value in tricks.get(trick, {}).items()
        if f"{field}={value}" not in effect.arm.name
    ]
    more = [f"({plain(', '.join(values))})"] if values and len(values) <= 4 else []
    if effect.left_out:
        more.append(f"on top of the others: arm {code(effect.arm.name)}")
    if effect.arm.role == "control":
        more.append("· control")
    return " ".join([_called(effect), *more])


def _claims(tricks: Sequence[str], analysis: Analysis) -> str:
    """Return what the papers say about tricks: the claims about the score first."""
    told = []
    for trick in tricks:
        claims = analysis.results.tricks.get(trick, {}).get("claims", [])
        for claim in sorted(claims, key=lambda c: c.get("metric") not in ("fid", "fd")):
            source = claim.get("source", "")
            source = f" ({link(source, claim.get('url') or '')})" if source else ""
            unchecked = " [from memory, not checked]" if claim.get("evidence") == "recalled" else ""
            told.append(f"{plain(claim.get('text', ''))}{source}{unchecked}")
    return "; ".join(told) or "–"


def _measured(effect: Effect) -> str:
    n = effect.comparison.n
    if not n:
        return "no pair of runs"
    r = effect.ratio
    infinite = ": too few pairs for a 95 % interval" if math.isinf(r.high) else ""
    return f"**{ratio_text(r.estimate)}** ({ratio_text(r.low)} to {ratio_text(r.high)}), n = {n}{infinite}"


def _failures(effect: Effect) -> str:
    (k, n), (k0, n0) = effect.failures_with, effect.failures_without
    share = stats.wilson(k, n)
    interval = f" ({100 * share.low:.0f} to {100 * share.high:.0f} %)" if n else ""
    return f"{k}/{n}{interval}; without: {k0}/{n0}"


def _cost(effect: Effect) -> str:
    cost = effect.cost
    parts = [f"time × {ratio_text(cost.seconds)}" if not math.isnan(cost.seconds) else "time not comparable"]
    for what, ratio in (("parameters", cost.parameters), ("multiply-adds", cost.multiply_adds)):
        if not math.isnan(ratio) and abs(ratio - 1) > 0.005:
            parts.append(f"{what} × {ratio_text(ratio)}")
    return ", ".join(parts)


def _verdict(effect: Effect) -> str:
    if effect.verdict in ("helps", "hurts"):
        return f"**{effect.verdict}** (p = {_p(effect.p_holm)})"
    if effect.verdict == "unstable":
        return f"**unstable** (p = {_p(effect.p_failures)})"
    if effect.verdict == "equivalent":
        return "**equivalent** (within ±5 %)"
    if not effect.comparison.n:
        return "inconclusive (no pairs)"
    if math.isinf(effect.detectable):
        return "inconclusive (too few pairs)"
    return f"inconclusive (could see × {math.exp(effect.detectable):.2f})"


def _words(analysis: Analysis) -> list[Block]:
    """Say what each verdict means, in the numbers of this grid."""
    if not analysis.effects:
        return []
    family = analysis.family
    correction = (
        f"corrected by Holm for the {family} contrasts of this grid" if family > 1 else "one contrast only"
    )
    score = analysis.score.short
    return [
        Heading(3, "What the words mean"),
        Table(
            ["verdict", "means"],
            [
                [
                    "**helps**",
                    f"lower {score} than without the trick: exact signed-rank p < .05, {correction}",
                ],
                ["**hurts**", f"higher {score}, by the same test"],
                [
                    "**equivalent**",
                    "any effect is within ±5 %: the 90 % interval of the ratio lies inside it",
                ],
                [
                    "inconclusive",
                    "neither could be shown with this many seeds; “could see × 1.30” = the smallest true"
                    " factor that"
                    " this contrast would have called in 4 of 5 grids",
                ],
            ],
            kind="pairs",
        ),
        Text(
            "The ratio is the Hodges-Lehmann estimate of (with ÷ without), paired by seed on the log"
            " scale, with its"
            " exact 95 % interval; below 1 is better. Runs that diverged, collapsed or did not learn count"
            " as the"
            f" worst score ({_cap(analysis)}) and are never dropped; failures are k of n runs with"
            " Wilson's 95 %"
            " interval. Cost is the median over seeds of the ratio of training times on equal terms, and"
            " of sizes"
            " where they differ. Controls test the harness: they are outside the family and keep their own p."
        ),
    ]


def _cap(analysis: Analysis) -> str:
    if analysis.cap_is_measured:
        return f"the cap, {number(analysis.cap)}: the score of an untrained generator"
    return f"{number(analysis.cap)}, the worst of this grid"


# --- all arms


def _all_arms(analysis: Analysis) -> list[Block]:
    """Return one row an arm with everything that was measured; a column without any value is left out."""
    score = analysis.score.short
    columns: list[tuple[str, Callable[[Arm], float]]] = [
        (f"{score}, median", median_score),
        (f"{score}, IQM", interquartile_score),
        (f"best {score} on the way", lambda arm: median(arm, "fd_best")),
        ("KID × 1000", lambda arm: 1000 * median(arm, "kid")),
        ("IS", lambda arm: median(arm, "is")),
        ("precision", lambda arm: median(arm, "precision")),
        ("recall", lambda arm: median(arm, "recall")),
        ("train s", lambda arm: median(arm, "train_seconds")),
        ("score s", lambda arm: median(arm, "score_seconds")),
        ("memory MB", lambda arm: median(arm, "peak_memory_mb")),
        ("parameters", lambda arm: median(arm, "parameters")),
        ("multiply-adds", lambda arm: median(arm, "multiply_adds")),
    ]
    values = {title: [column(arm) for arm in analysis.arms] for title, column in columns}
    values = {title: cells for title, cells in values.items() if not all(math.isnan(x) for x in cells)}
    correlation = {e.arm.name: e.comparison.correlation for e in analysis.effects}
    rows = []
    for i, arm in enumerate(analysis.arms):
        rho = correlation.get(arm.name, math.nan)
        rows.append(
            [code(arm.name), arm.role, str(len(arm.runs)), _statuses(arm)]
            + [number(cells[i]) for cells in values.values()]
            + ["–" if math.isnan(rho) else f"{rho:.2f}".replace("-", "−")]
        )
    return [
        Heading(2, "All arms"),
        Text(
            "Medians over seeds. In the first two columns of scores a failed run counts as the cap; the"
            " other columns"
            " are medians of the runs that have a value. IQM = mean of the middle half. ρ = correlation of"
            " the arm's log"
            " scores with the reference's over seeds: what pairing gains. Multiply-adds are of one forward"
            " pass of"
            " both networks for one image."
        ),
        Table(["arm", "role", "runs", "status", *values, "ρ"], rows, kind="wide", numeric=True),
    ]


def _readouts(analysis: Analysis) -> list[Block]:
    """Return what sampling the same generators in other ways would have given."""
    found = readouts(analysis)
    if not found:
        return []
    rows = []
    for readout in found:
        ratio = [ratio_text(math.exp(x)) for x in readout.reference.effect]
        lowest, highest = readout.arms.idxmin(), readout.arms.idxmax()
        rows.append(
            [
                code(readout.name),
                _claims([readout.name.partition("-")[0]], analysis),
                f"**{ratio[0]}** ({ratio[1]} to {ratio[2]}), n = {readout.reference.n}",
                "–" if "best point" in readout.name else readout.verdict,
                ratio_text(readout.arms.median()),
                f"{ratio_text(readout.arms[lowest])} ({code(lowest)})",
                f"{ratio_text(readout.arms[highest])} ({code(highest)})",
            ]
        )
    score, reference = analysis.score.short, code(analysis.reference.name)
    return [
        Heading(2, "Read-outs"),
        Text(
            f"The same trained generators, sampled in another way: {score} as a ratio to {code('raw-eval')} (a"
            " generator's own weights after the last step, BatchNorm with its running statistics), run by run, without"
            f" any further training. {code('train')} = BatchNorm with the statistics of each batch of samples. The"
            " verdict is of one test each, not corrected. The best point of the budget is chosen by the very score it"
            " is judged by, so it cannot be worse: it is described, not tested."
        ),
        Table(
            [
                "read-out",
                "claim",
                f"in {reference} (95 % interval)",
                "verdict",
                "median of all arms",
                "lowest",
                "highest",
            ],
            rows,
            kind="wide",
        ),
    ]


def _statuses(arm: Arm) -> str:
    counts = arm.runs["status"].value_counts()
    return ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts.get(s, 0)) or "not run"


# --- words around it


def _how_to_read(analysis: Analysis) -> list[Block]:
    budget = analysis.results.environment["budget"]
    spread = stats.robust_spread(analysis.reference.logs.dropna()[~analysis.reference.failed])
    points = [
        "**n counts seeds**, that is complete trainings from new random numbers, not generated images: how"
        " much"
        " a score moves when the same recipe is trained again is what the intervals are about."
        + (
            ""
            if math.isnan(spread)
            else f" Here one seed differs from the next by about {100 * spread:.0f} %."
        )
    ]
    if analysis.scored and analysis.score.short != "FID":
        points.append(
            f"**{analysis.score.long} is not Inception FID.** It is the same formula (Fréchet distance"
            " between two"
            " clouds of features), but the features come from another network; its size means nothing"
            " outside this"
            " score protocol and cannot be set beside published numbers. Ratios between arms of this grid"
            " are what it is"
            " for. The same holds for the other scores: they are computed from the same features."
        )
    elif analysis.scored:
        points.append(
            "**FID depends on the number of images** behind it; compare it only with numbers of the same"
            " protocol."
        )
    points += [
        f"**A verdict holds for this setting**: this data, this network, this budget of"
        f" {_amount(budget.get('amount', '?'))} {plain(budget.get('unit', ''))}. A trick that hurts in"
        " short runs may help"
        " in long ones.",
        "**Inconclusive is not “no effect”**: it says that these runs cannot tell. Only “equivalent” says"
        " that"
        " there is no effect worth having.",
        "**Each arm is compared with the reference arm alone**; what two tricks do together is not in"
        " these verdicts.",
        "**The other scores are described, not tested**: one primary score keeps the false alarms at 5 %.",
        "**Times** may have been taken while other runs trained beside: trust differences above some 10 %.",
    ]
    return [Heading(2, "How to read this"), Items(points)]


def _setting(analysis: Analysis) -> list[Block]:
    """Return everything that fixes what the numbers mean, as name and value."""
    results = analysis.results
    environment, runs = results.environment, results.runs
    rows: list[list[str]] = []

    def row(name: str, value: Any) -> None:
        text = _value(value)
        if text:
            rows.append([plain(name), plain(text)])

    for key, value in environment["data"].items():
        row(f"data: {key}", value)
    row(
        "budget",
        f"{_amount(environment['budget'].get('amount', '?'))} {environment['budget'].get('unit', '')}",
    )
    row("design", environment.get("design"))
    row("seeds", _value(list(analysis.seeds)))
    for key, value in environment["recipe"].items():
        row(f"recipe: {key}", value)
    for key, value in environment["score"].items():
        row(f"score: {key}", value)
    for name in sorted(runs["protocol"].dropna().unique()):
        row(f"protocol {name}", environment["protocols"][name])
    if analysis.cap_is_measured:
        row("cap (score of the untrained generator)", number(analysis.cap))
    for name, count in runs["environment"].value_counts(sort=False).sort_index().items():
        row(f"made in {name} ({count} runs)", environment["environments"][name])
    for column in ("mode", "dtype", "device", "threads", "runs_per_array"):
        counts = runs[column].astype("string").value_counts().sort_index()
        row(
            column.replace("_", " "),
            ", ".join(f"{v} ({n} runs)" if len(counts) > 1 else v for v, n in counts.items()),
        )
    digests = runs["source"].value_counts().sort_index()
    listed = [f"{digest} ({n} runs)" for digest, n in digests.items()]
    more = [f"and {len(listed) - 30} more"] if len(listed) > 30 else []
    row("source digests (of the code behind a row)", ", ".join(listed[:30] + more))
    row("made by", environment.get("created_by"))
    return [Heading(2, "Setting"), Table(["what", "value"], rows, kind="pairs")]


def _reproduce(analysis: Analysis) -> list[Block]:
    name, environment = analysis.results.name, analysis.results.environment
    used = analysis.results.runs["environment"].dropna()
    commits = [environment["environments"][key].get("git_commit") for key in sorted(used.unique())]
    commits = sorted({commit for commit in commits if commit})
    lines = [f"git checkout {commit}" for commit in commits[:1]]
    lines += [
        "pip install -c constraints.txt .",
        "mkdir again",
        f"cp results/{name}/grid.yaml again/",
        "cd again",
        "bench run grid.yaml",
        f"bench report {name}",
    ]
    loading = code(f'bench.load("results/{name}")')
    return [
        Heading(2, "Reproduce"),
        Text("Every number again, from nothing:"),
        Code("\n".join(lines)),
        Text(
            f"This report again, from the checked-in results: {code(f'bench report {name}')}. The tables"
            " in Python:"
            f" {loading}."
        ),
    ]


# --- numbers in words


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def _amount(x: Any) -> str:
    return f"{x:,}".replace(",", " ") if isinstance(x, int | float) else plain(x)


def _value(value: Any) -> str:
    """Return a setting for people: lists without brackets, mappings as name value."""
    if value is None or value == [] or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, item in value.items() if (text := _value(item)))
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
