"""The report behind the verdicts: all arms, read-outs, trick cards, setting, and how to make it again."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from bench import stats
from bench.analyse import Analysis, Arm, interquartile_score, median, median_score, names, readouts
from bench.concordance import concordance
from bench.factorial import main_effects
from bench.pages import (
    Block,
    Code,
    Fold,
    Heading,
    Items,
    Table,
    Text,
    amount,
    code,
    number,
    p_value,
    plain,
    prose,
    ratio_text,
    slug,
    value_text,
)
from bench.qualify import EQUAL_SECONDS, axes_table, mistimed
from bench.results import STATUSES
from bench.sections import best_first, claim_text
from bench.sensitivity import sensitivity
from bench.survival import failure_rates


def all_arms(analysis: Analysis) -> list[Block]:
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
    paired = {
        e.arm.name: (e.comparison.correlation, *((1 - p if e.left_out else p) for p in (e.poi, e.poi_of_any)))
        for e in analysis.effects
    }
    rows = [
        [code(arm.name), arm.role, str(len(arm.runs)), _statuses(arm)]
        + [number(cells[i]) for cells in values.values()]
        + [
            "–" if math.isnan(x) else f"{x:.2f}".replace("-", "−")
            for x in paired.get(arm.name, (math.nan,) * 3)
        ]
        for i, arm in enumerate(analysis.arms)
    ]
    return [
        Heading(2, "All arms"),
        Text(
            "Medians over seeds. In the first two columns of scores a failed run counts as the cap; the other columns"
            " are medians of the runs that have a value. IQM = mean of the middle half. ρ = correlation of the arm's"
            " log scores with the reference's over seeds: what pairing gains. Better = probability of improvement:"
            " the share of pairs of one seed, and of any two seeds, in which the arm's score is lower than what it is"
            " compared with. Multiply-adds are of one forward pass of both networks for one image."
        ),
        Table(
            ["arm", "role", "runs", "status", *values, "ρ", "better, same seed", "better, any two"],
            rows,
            kind="wide",
            numeric=True,
        ),
    ]


def equal_terms(analysis: Analysis) -> list[Block]:
    """Return each effect at equal images, steps and seconds, and earlier in the budget."""
    table = axes_table(analysis)
    table = table[table["n"] > 0]
    if table.empty:
        return []
    places = list(dict.fromkeys(table["at"]))
    by_arm = {arm: rows.set_index("at") for arm, rows in table.groupby("arm", sort=False)}

    untimed = mistimed(analysis.effects, analysis.results.tricks, analysis.alpha)
    busy = " Times are too noisy here for such a word (see the note on top)." if untimed else ""

    def cell(rows: pd.DataFrame, at: str) -> str:
        if at not in rows.index:
            return "–"
        row = rows.loc[at]
        word = {"helps": "lower: ", "hurts": "higher: ", "equivalent": "equal: "}.get(row["verdict"], "")
        word = "" if untimed and at == EQUAL_SECONDS else word
        return f"{word}{ratio_text(row['ratio'])} ({ratio_text(row['low'])} to {ratio_text(row['high'])})"

    return [
        Heading(3, "At equal images, steps and time, and on the way"),
        Text(
            f"{analysis.score.short} ratio with its interval. Equal images is the comparison that the verdicts rest on"
            " (but for an arm that changes the budget itself: there it is read off a line between two points of its"
            " curve); at equal time the slower side is stopped where the faster one ends (linear in images within a"
            " run, at the arm's median time for an image). Lower, higher, equal: by one test each, not corrected; the"
            f" verdicts are.{busy}"
        ),
        Table(
            ["arm", *places],
            [[code(arm), *(cell(rows, at) for at in places)] for arm, rows in by_arm.items()],
            kind="wide",
            label="effects at equal images, steps and time",
            keys=[
                [None, *(float(rows["ratio"].get(at, math.nan)) for at in places)] for rows in by_arm.values()
            ],
        ),
    ]


def failed(analysis: Analysis) -> list[Block]:
    """Return how many runs of each arm failed and after how much training, where any did."""
    table = failure_rates(analysis)
    table = table[table["failures"] > 0]
    if table.empty:
        return []
    budget = analysis.results.runs["images"].max()

    def when(row: Any) -> str:
        if not row["timed"]:
            return "not recorded"
        first, middle, last = (amount(int(row[key])) for key in ("first", "middle", "last"))
        return f"{middle} ({first} to {last})" if first != last else middle

    timed = bool(table["timed"].any())
    rows = [
        [
            code(row["arm"]),
            f"{row['failures']} of {row['n']}",
            f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %",
            *([when(row), str(row["never_sound"]) if row["timed"] else "–"] if timed else []),
        ]
        for _, row in table.iterrows()
    ]
    more = ["failed after so many images: median (range)", "never sound"] if timed else []
    text = "Wilson's 95 % interval of the share."
    if timed:
        text += (
            " A run is judged at every point of the budget; it had failed at the first of those that no sound one"
            " follows (where a loss was not finite: at that step)"
            + ("" if pd.isna(budget) else f", of {amount(int(budget))} images at most")
            + ". Never sound: failed at the first point already, as what never learned is."
        )
    return [
        Heading(3, "How often and when training fails"),
        Table(["arm", "failed", "95 % interval", *more], rows, kind="cards", label="failures"),
        Text(text),
    ]


def symptoms(analysis: Analysis) -> list[Block]:
    """Return whether a run that shows a symptom fails more often: the table symptom x failure."""
    table = concordance(analysis.results)
    counts = ["with_failed", "with_ok", "without_failed", "without_ok"]
    unseen = list(table.loc[table[counts].sum(axis=1) == 0, "symptom"])
    table = table[table["with_failed"] + table["with_ok"] > 0]
    if table.empty:
        return []

    def share(row: Any, side: str) -> str:
        k, n = row[f"{side}_failed"], row[f"{side}_failed"] + row[f"{side}_ok"]
        if not n:
            return "no run"
        low, high = (100 * row[f"failed_{side}_{end}"] for end in ("low", "high"))
        return f"{k} of {n} ({low:.0f} to {high:.0f} %)"

    own_loss = (
        f" {code('d_loss_zero')} is D's loss near the least that its labels allow (0.325 where real ones are 0.9), so"
        " smoothed and flipped labels do not hide it; it looks at cross entropy alone"
        f" ({code('d_win')}, on clean labels, looks at every loss)."
    )
    return [
        Heading(3, "Does a symptom mean failure?"),
        Table(
            ["symptom", "failed, with it", "failed, without it", "p"],
            [
                [code(row["symptom"]), share(row, "with"), share(row, "without"), p_value(row["p"])]
                for _, row in table.iterrows()
            ],
            kind="cards",
            label="symptom against failure",
        ),
        Text(
            "Runs of all arms together in which it was looked for, with Wilson's 95 % interval; p of Barnard's exact"
            " test, not corrected. An arm that has both more symptoms and more failures shows up here too: a sign to"
            " look at, not a cause. Symptoms that no run showed are left out."
            + (f" Not looked for in this grid: {names(unseen)}." if unseen else "")
            + own_loss * ("d_loss_zero" in set(table["symptom"]))
        ),
    ]


def limits(analysis: Analysis) -> list[Block]:
    """Return how many runs would fail, were the detectors stricter or more lenient; nothing for older results."""
    table = sensitivity(analysis.results)
    columns = [column for column in table if column != "runs"]
    table = table[table[columns].sum(axis=1) > 0] if columns else table
    if table.empty:
        return []
    return [
        Heading(3, "Where the limits lie"),
        Table(
            ["arm", "runs", "failed with limits twice as strict", "as judged", "twice as lenient"],
            [
                [code(arm), str(row["runs"]), *(str(row[column]) for column in columns)]
                for arm, row in table.iterrows()
            ],
            kind="wide",
            label="limits",
        ),
        Text(
            "The same samples judged again with other limits (bench/detect.py says what they are, bench/sensitivity.py"
            " which of them half and double have a meaning for; a grid may set its own under score: limits). An arm"
            " whose count moves is near a limit: its verdict hangs on where that lies."
            " Arms in which no run fails at any of them are left out."
        ),
    ]


def readouts_section(analysis: Analysis) -> list[Block]:
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
                f"in {reference} (95 % interval)",
                "verdict",
                "median of all arms",
                "lowest",
                "highest",
            ],
            rows,
            kind="wide",
            label="read-outs",
        ),
        *_readout_claims([readout.name for readout in found], analysis),
    ]


def _readout_claims(names: list[str], analysis: Analysis) -> list[Block]:
    """Return what the literature says of the read-outs: once a trick, however many ways to sample it has."""
    tricks = dict.fromkeys(name.partition("-")[0] for name in names)
    told = [
        f"{code(trick)} {claim_text(claim)}"
        for trick in tricks
        for claim in analysis.results.tricks.get(trick, {}).get("claims", [])
    ]
    return [Text("The literature says:"), Items(told)] if told else []


def _statuses(arm: Arm) -> str:
    counts = arm.runs["status"].value_counts()
    return ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts.get(s, 0)) or "not run"


# --- words around it


def how_to_read(analysis: Analysis) -> list[Block]:
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
        f" {amount(budget.get('amount', '?'))} {plain(budget.get('unit', ''))}. A trick that hurts in"
        " short runs may help"
        " in long ones.",
        "**Inconclusive is not “no effect”**: it says that these runs cannot tell. Only “equivalent” says"
        " that"
        " there is no effect worth having.",
        (
            "**A trick's verdict is an average over all combinations with the others**, which may hide that it helps in"
            " some and hurts in others: see Interactions."
            if main_effects(analysis)
            else "**Each arm is compared with the reference arm alone**; what two tricks do together is not in these"
            " verdicts."
        ),
        "**The other scores are described, not tested**: one primary score keeps the false alarms at 5 %.",
        "**Times** may have been taken while other runs trained beside: trust differences above some 10 %.",
    ]
    return [Heading(2, "How to read this"), Items(points)]


def setting(analysis: Analysis) -> list[Block]:
    """Return everything that fixes what the numbers mean, as name and value."""
    results = analysis.results
    environment, runs = results.environment, results.runs
    rows: list[list[str]] = []

    def row(name: str, value: Any) -> None:
        text = value_text(value)
        if text:
            rows.append([plain(name), plain(text)])

    for key, value in environment["data"].items():
        row(f"data: {key}", value)
    row(
        "budget",
        f"{amount(environment['budget'].get('amount', '?'))} {environment['budget'].get('unit', '')}",
    )
    row("design", environment.get("design"))
    row("seeds", value_text(list(analysis.seeds)))
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
    return [Heading(2, "Setting"), Table(["what", "value"], rows, kind="pairs", label="setting")]


def cards(analysis: Analysis) -> list[Block]:
    """Return one folded card a trick: what it does, what is claimed of it, its settings, what was found here."""
    folds = []
    for name, card in analysis.results.tricks.items():
        found = [e for e in best_first(analysis.effects) if e.tricks == (name,)]
        verdicts = f" · {', '.join(dict.fromkeys(e.verdict for e in found))}" if found else ""
        blocks: list[Block] = [Text(prose(card["doc"]))] if card.get("doc") else []
        points = [f"claim: {claim_text(claim)}" for claim in card["claims"]]
        for key, word in RULES.items():
            points += [f"{word} {code(other)}: {plain(why)}" for other, why in (card.get(key) or {}).items()]
        points += [f"cost: {plain(card['cost'])}"] if card.get("cost") else []
        points += [_field(field) for field in card["fields"]]
        points += [
            f"found here: {code(e.arm.name)} **{e.verdict}**, {analysis.score.short} ratio"
            f" {ratio_text(e.ratio.estimate)} ({ratio_text(e.ratio.low)} to {ratio_text(e.ratio.high)}),"
            f" n = {e.comparison.n}"
            for e in found
            if e.comparison.n
        ]
        blocks += [Items(points)] if points else []
        title = f"**{code(name)}** {prose(card.get('summary', ''))}{verdicts}"
        folds.append(Fold(title, blocks, f"card-{slug(name)}"))
    return [Heading(2, "Trick cards"), *folds] if folds else []


RULES = {  # what a card says of other tricks
    "requires": "requires",
    "conflicts": "cannot be with",
    "inert_if": "does nothing with",
    "interacts": "interacts with",
}


def _field(field: dict[str, Any]) -> str:
    told = [f"default {value_text(field.get('default')) or 'none'}"]
    if field.get("span"):
        told.append(f"from {value_text(field['span'][0])} to {value_text(field['span'][1])}")
    if field.get("among"):
        told.append(f"one of {value_text(field['among'])}")
    if field.get("off") is not None:
        told.append(f"off at {value_text(field['off'])}")
    return f"setting {code(field['name'])}: {prose(field.get('doc', ''))} ({plain(', '.join(told))})"


def reproduce(analysis: Analysis) -> list[Block]:
    name, environment = analysis.results.name, analysis.results.environment
    used = analysis.results.runs["environment"].dropna()
    commits = {str(environment["environments"][key].get("git_commit")) for key in used.unique()}
    # Nothing but a hash: it goes into a command.
    commits = sorted(commit for commit in commits if re.fullmatch("[0-9a-f]+", commit))
    dirty = any(environment["environments"][key].get("git_dirty") for key in used.unique())
    lines = [] if dirty else [f"git checkout {commit}" for commit in commits[:1]]
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
        Text(
            "Every number again, from nothing"
            + (
                f", with this checkout's code: rows were made from uncommitted changes of {', '.join(commits)}, which"
                f" has not all of it. {code(f'bench verify {name}')} says whether this code is theirs:"
                if dirty
                else ":"
            )
        ),
        Code("\n".join(lines)),
        Text(
            f"This report again, from the checked-in results: {code(f'bench report {name}')}. The tables"
            " in Python:"
            f" {loading}."
        ),
        Fold(
            "One arm alone, with its reference",
            [
                Text(
                    "Each command writes a grid of two arms and runs it; the rows have the same run ids and, on the"
                    " same machine and versions, the same numbers as those here."
                ),
                *[block for arm in analysis.arms for block in _alone(arm, analysis)],
            ],
            "one-arm",
        ),
    ]


def _alone(arm: Arm, analysis: Analysis) -> list[Block]:
    """Return the command that makes one arm's runs again."""
    file = f"{_again(arm)}.yaml"
    command = f"cat > {file} <<'END'\n{grid_of(arm, analysis)}\nEND\nbench run {file}"
    return [Text(f"{code(arm.name)}:"), Code(command)]


def _again(arm: Arm) -> str:
    """Return a name for a grid and its file, which may hold less than an arm's."""
    return f"again-{re.sub('[=+]', '_', slug(arm.name))}"


LONGEST = 64  # letters of a grid's name (bench.grid)


def grid_of(arm: Arm, analysis: Analysis) -> str:
    """Return a grid file of one arm and its reference: JSON, which is YAML too, a line for each stretch of seeds."""
    environment = analysis.results.environment
    budget, score, data = (environment[key] for key in ("budget", "score", "data"))
    asked = {key: score[key] for key in ("extractor", "samples", "points", "metrics") if key in score}
    if "readouts" in score:
        asked["readouts"] = {name: dict(values) for name, values in score["readouts"]}
    if score.get("limits"):
        asked["limits"] = dict(score["limits"])
    arms = {"baseline": analysis.reference.tricks} | (
        {} if arm is analysis.reference else {slug(arm.name): arm.tricks}
    )
    grid = {
        "data": {key: data[key] for key in ("set", "size", "classes", "path") if data.get(key)},
        "recipe": environment["recipe"],
        "design": {"arms": arms},
        "budget": {budget.get("unit", "images"): budget.get("amount")},
        "score": asked,
        "dtype": environment.get("dtype", "float32"),
    }
    seeds = sorted(analysis.seeds) or [0]
    firsts = [seed for seed in seeds if seed - 1 not in seeds]
    lasts = [seed for seed in seeds if seed + 1 not in seeds]
    lines = []
    for first, last in zip(firsts, lasts, strict=True):
        more = f"-from-{first}" * (len(firsts) > 1)
        own = {
            "name": _again(arm)[: LONGEST - len(more)] + more,
            "seeds": {"count": last - first + 1, "first": first},
        }
        lines.append(json.dumps(own | grid, ensure_ascii=True))
    return "\n---\n".join(lines)
