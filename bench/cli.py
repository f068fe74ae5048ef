"""The command line.

Nothing heavy is imported before a command needs it.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from bench import __version__
from bench.errors import Lost, Refused
from bench.stopping import BY_HAND, BY_SIGTERM, Terminated


class Commands(click.Group):
    """A group whose commands end with 2 and one line for refused input, and with 130 when stopped by hand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what stands before the command."""
        if not args:  # help
            return super().parse_args(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            self._mistyped(ctx, error)

    def _mistyped(self, ctx: click.Context, error: click.UsageError) -> NoReturn:
        """Say in one line what is wrong with a command line, and end."""
        told = " ".join(error.format_message().split()).rstrip(".")
        click.echo(f"bench: {told}; `{(error.ctx or ctx).command_path} --help` shows what there is", err=True)
        ctx.exit(2)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            self._mistyped(ctx, error)
        except Refused as refused:
            click.echo(f"bench: {refused}", err=True)
            ctx.exit(2)
        except Lost as gone:
            click.echo(f"bench: {gone}", err=True)
            ctx.exit(1)
        except PermissionError as error:
            click.echo(f"bench: {error.filename}: no permission: {error.strerror}", err=True)
            ctx.exit(2)
        except OSError as error:
            click.echo(f"bench: {error.filename or 'a file'}: {error.strerror or error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as stop:
            again = "; the same command goes on from here" if ctx.invoked_subcommand == "run" else ""
            click.echo(f"bench: stopped{again}", err=True)
            ctx.exit(BY_SIGTERM if isinstance(stop, Terminated) else BY_HAND)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bench")
def main() -> None:
    """Which DCGAN training tricks help, by how much, at what cost.

    \b
    bench run grid.yaml        train and score what is missing; stop and go on at any moment
    bench report               tables and charts from results/
    bench tricks               what can be switched on and off
    bench doctor               is anything wrong with this installation
    """


folder = click.Path(path_type=Path, file_okay=False)
file = click.Path(path_type=Path, dir_okay=False)
results_option = click.option(
    "--results", type=folder, default=Path("results"), show_default=True, help="Where results folders are."
)


def machine_options(command: Any) -> Any:
    """Add the options that `run` and `plan` share."""
    for option in (
        click.option(
            "--runs-per-array",
            type=click.IntRange(1),
            help="Runs that train as one computation  [default: measured]",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, 1024),
            help="CPU threads of a slot  [default: measured, mostly 1]",
        ),
        click.option(
            "--slots", type=click.IntRange(1), help="Arrays at once  [default: measured; cores, or GPUs]"
        ),
        click.option(
            "--scale",
            type=click.Choice(["full", "tiny"]),
            default="full",
            show_default=True,
            help="tiny: every arm for a few steps on tiny nets, as NAME-tiny; tests a grid, says nothing of tricks.",
        ),
        click.option(
            "--devices",
            "--device",
            "device",
            default="auto",
            show_default=True,
            help="auto (all CUDA devices, else cpu), cpu, cuda, or some: cuda:0,cuda:1.",
        ),
        click.option("--weights", type=file, help="Weights of the extractor (published Inception file)."),
        click.option("--cache", type=folder, help="Kept statistics of real images  [env: BENCH_CACHE]"),
        click.option("--data-root", type=folder, help="Where data sets are  [env: BENCH_DATA]"),
        results_option,
    ):
        command = option(command)
    return command


def _options(**given: Any) -> Any:
    from bench.run import Options

    return Options(**{key: value for key, value in given.items() if value is not None})


@main.command()
@click.argument("grid")
@machine_options
@click.option("--cluster", help="tcp://HOST:PORT of a Dask scheduler, or local: train on its workers.")
@click.option("--retry-failed", is_flag=True, help="Make runs again that failed by the machine's fault.")
@click.option("--stale", type=click.Choice(["keep", "redo"]), help="What to do with rows made by older code.")
@click.option(
    "--time-limit",
    type=click.IntRange(1, 10**9),
    default=6 * 3600,
    show_default=True,
    help="Seconds for one array.",
)
@click.option("--keep", is_flag=True, help="Keep generators in kept/NAME, for `bench samples`.")
@click.option("--yes", is_flag=True, help="Run a very large grid without asking.")
def run(grid: str, scale: str, keep: bool, **given: Any) -> None:
    """Train and score every run of GRID that results/ does not have.

    GRID is a file, or the name of a grid that comes with the package; where the file holds several, they are run
    one after the other. Ends with 0 when all is done, 1 when a run failed by the machine's fault or the scheduler of a
    cluster went away, 2 when the input is
    refused, 130 when stopped: Ctrl-C lets the arrays in training end, once more (or SIGTERM: 143) stops at once.
    Whatever happens, the same command goes on where the last one ended.

    \b
    bench run grid.yaml
    bench run digits --slots 4
    bench run grid.yaml --retry-failed
    bench run mnist-celeba --scale tiny
    bench run grid.yaml --cluster tcp://10.0.0.7:8786
    """
    from bench.grid import LARGE
    from bench.progress import to_stderr
    from bench.run import run as run_grid

    grids = _grids(grid, scale)
    count = sum(len(one.arms) * len(one.seeds) for one in grids)
    if count > LARGE and not given["yes"] and sys.stdin.isatty():
        given["yes"] = click.confirm(f"{grid} has {count:,} runs. Is that meant?")
        if not given["yes"]:
            raise Refused(f"{grid}: {count:,} runs were not meant; nothing was run")

    def one(loaded: Any) -> int:
        options = _options(keep=Path("kept") if keep else None, **given)
        if scale == "tiny":
            options = _hasty(loaded, options, to_stderr)
        code = run_grid(loaded, options, to_stderr, more=loaded is not grids[-1])
        elsewhere = "" if options.results == Path("results") else f" --results {options.results}"
        click.echo(
            f"results: {options.results / loaded.name}; now: bench report {loaded.name}{elsewhere}", err=True
        )
        return code

    sys.exit(_worst(one, grids))


def _grids(grid: str, scale: str) -> list[Any]:
    """Return the grids of a file at full or tiny scale; says loudly that tiny is another experiment."""
    from bench.grid import load_all

    grids = load_all(grid)
    if scale == "full":
        return grids
    from bench.tiny import tiny, told

    for loaded in grids:
        click.echo(f"bench: {told(loaded)}", err=True)
    return [tiny(loaded) for loaded in grids]


def _hasty(grid: Any, options: Any, log: Any) -> Any:
    from dataclasses import replace

    from bench.tiny import classifier

    return replace(options, weights=options.weights or classifier(grid, options.cache, log))


def _worst(deed: Any, grids: list[Any]) -> int:
    """Do a deed with one grid after the other and return the worst exit code; a refusal ends one grid, not all."""
    if len(grids) == 1:
        return deed(grids[0])
    worst = 0
    for grid in grids:
        click.echo(f"bench: grid {grid.name}", err=True)
        try:
            worst = max(worst, deed(grid))
        except Refused as refused:
            click.echo(f"bench: {refused}", err=True)
            worst = 2
        if worst == BY_HAND:
            break
    return worst


@main.command()
@click.argument("grid")
@machine_options
@click.option("--quick", is_flag=True, help="Do not measure: no estimate of time and memory.")
@click.option(
    "--pilot", is_flag=True, help="First run NAME-pilot: baseline and placebo at full budget, other seeds."
)
@click.option("--pilot-seeds", type=click.IntRange(3, 1000), default=6, show_default=True, help="Its seeds.")
@click.option("--pilot-from", metavar="NAME", default="", help="Take the noise of these results' rows.")
def plan(
    grid: str,
    scale: str,
    quick: bool,
    pilot: bool,
    pilot_seeds: int,
    pilot_from: str,
    **given: Any,
) -> None:
    """Show what `bench run GRID` would do: arms, runs, programs, arrays, what is there, time and memory.

    And what it could find out, where rows of the grid (or of its pilot) tell how noisy runs are: the smallest effect
    it detects, the seeds that effects of 5, 10 and 20 % take, and their hours.

    \b
    bench plan grid.yaml
    bench plan grid.yaml --pilot
    bench plan grid.yaml --pilot-from digits
    """

    from bench import power
    from bench.estimate import describe
    from bench.progress import to_stderr
    from bench.run import run

    if pilot and pilot_from:
        raise Refused("--pilot and --pilot-from: the noise is taken from one pilot; give one of them")

    def one(loaded: Any) -> int:
        options, code, named = _options(**given), 0, pilot_from
        if scale == "tiny" and (pilot or not quick):
            options = _hasty(loaded, options, to_stderr)
        if pilot:
            short = power.pilot(loaded, pilot_seeds)
            code, named = run(short, options, to_stderr, more=True), short.name
            if code == BY_HAND:
                return code
        for line in describe(loaded, options, not quick, named):
            click.echo(line)
        return code

    sys.exit(_worst(one, _grids(grid, scale)))


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@results_option
@click.option("--reports", type=folder, default=Path("reports"), show_default=True, help="Where reports go.")
@click.option(
    "--together", metavar="NAME", help="One page, reports/NAME, that sets these result sets side by side."
)
def report(names: tuple[str, ...], results: Path, reports: Path, together: str | None) -> None:
    """Write reports/NAME from results/NAME: tables, charts, index.md and index.html.

    All results without a NAME.

    \b
    bench report
    bench report digits
    bench report digits fashion-mnist --together both
    """
    from bench.report import report as write

    found = names or _all(results)
    if together:
        from bench.together import together as side_by_side

        click.echo(side_by_side([results / name for name in found], reports, together))
        return
    for name in found:
        click.echo(write(results / name, reports))


def _all(results: Path) -> list[str]:
    """Return the names of all results folders; raises `Refused` where there are none."""
    found = sorted(path.parent.name for path in results.glob("*/runs.csv"))
    if not found:
        raise Refused(f"{results}: no results here; make some: bench run grid.yaml")
    return found


@main.command()
@click.argument("name")
@click.argument("run")
@click.option("-n", "count", type=click.IntRange(1), default=64, show_default=True, help="How many pictures.")
@click.option("--out", type=folder, required=True, help="Where the PNG files go.")
@click.option(
    "--kept", type=folder, default=Path("kept"), show_default=True, help="Where generators are kept."
)
@results_option
def samples(name: str, run: str, count: int, out: Path, kept: Path, results: Path) -> None:
    """Write N pictures of a kept generator as PNG files, so that any tool can score the run.

    RUN is a run id, or ARM:SEED. The first pictures are made from the latents that the run was scored with.

    \b
    bench run grid.yaml --keep
    bench samples digits baseline:0 -n 2000 --out pictures
    """
    from bench.samples import write

    click.echo(f"{write(results / name, run, count, out, kept)} pictures in {out}")


@main.command()
@click.option("--size", type=int, default=32, show_default=True, help="Pixels: 16, 28, 32 or 64.")
@click.option(
    "--channels",
    type=int,
    multiple=True,
    default=(32, 64),
    show_default=True,
    help="Base channels; several times for several tables.",
)
@click.option("--colours", type=int, default=1, show_default=True, help="1 grey, 3 colour.")
@click.option("--batch", type=int, default=64, show_default=True, help="Images of each kind per step.")
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Length of a turn.")
@click.option("--rounds", type=int, default=5, show_default=True, help="Turns of each contestant.")
@click.option("--quick", is_flag=True, help="Fewer array sizes.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document with every round, for machines.")
@click.option("--out", type=file, help="Write that document here, and print the tables.")
@click.option("--no-scoring", is_flag=True, help="Training only.")
def speed(device: str, as_json: bool, out: Path | None, no_scoring: bool, **given: Any) -> None:
    """Measure this machine: the plain PyTorch loop, this engine, and what the hardware could do at best.

    Takes over ten minutes; --quick about three. Let nothing else run meanwhile.

    \b
    bench speed
    bench speed --size 28 --channels 32 --quick
    bench speed --out results/speed/mine.json
    """
    import json

    from bench.run import pick_device
    from bench.speed import Settings, check, lines, measure

    settings = Settings(device=pick_device(device), scoring=not no_scoring, **given)
    check(settings)
    document = measure(settings, lambda line: click.echo(f"bench: {line}", err=True))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(document, indent=1) + "\n")
    for line in [json.dumps(document, indent=1)] if as_json else lines(document):
        click.echo(line)


@main.command()
@click.argument("name", required=False)
@click.option("--write", is_flag=True, help="Write tricks/README.md anew.")
@results_option
def tricks(name: str | None, write: bool, results: Path) -> None:
    """List the tricks, or show one trick's card: what it does, claims, sources, dials, what our grids found.

    \b
    bench tricks
    bench tricks label_smoothing
    """
    from bench import cards

    if write:
        click.echo(cards.write())
    elif name:
        click.echo(cards.card(name, results))
    else:
        click.echo(cards.table())


def _folder(word: str, results: Path) -> Path:
    """Return the results folder that a word means: a name in `results`, or a path."""
    inside = results / word
    return Path(word) if Path(word).is_dir() and not inside.is_dir() else inside


@main.command()
@click.argument("a")
@click.argument("b")
@results_option
@click.option(
    "--margin", type=float, default=0.05, show_default=True, help="What is equivalent: a share of the score."
)
@click.option(
    "--unpaired", is_flag=True, help="Take runs as independent samples, also where seeds are shared."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the table.")
@click.option("--csv", "as_csv", is_flag=True, help="The table as CSV.")
def compare(
    a: str, b: str, results: Path, margin: float, unpaired: bool, as_json: bool, as_csv: bool
) -> None:
    """Test whether two result sets of one experiment are the same: another torch, another GPU, a changed trick.

    A and B are names in results/, or folders. Runs of one seed are pairs where both sets have them. For each arm: the
    ratio B / A with its 90 % interval, failures, and a verdict: identical (to the last digit), equivalent (the
    interval is within the margin), different (p < .05 after Holm's correction over the arms, for scores or for
    failures), or inconclusive.

    Ends with 0 when no arm differs and all arms together are equivalent or identical; with 1 when an arm differs,
    equivalence was not shown, an arm is in one set only, B lacks seeds of A, or a set's files contradict each other;
    with 2 when the sets are not one experiment (data, recipe, budget, protocol).

    \b
    bench compare precision-float32 precision-bfloat16
    bench compare digits /tmp/new/results/digits --margin 0.1 --json
    """
    import json

    from bench import compare as comparing
    from bench.results import load

    found = comparing.compare(load(_folder(a, results)), load(_folder(b, results)), margin, unpaired)
    if as_json:
        click.echo(json.dumps(comparing.document(found), indent=1, allow_nan=False))
    elif as_csv:
        click.echo(comparing.table(found).to_csv(index=False), nl=False)
    else:
        click.echo("\n".join(comparing.lines(found)))
    sys.exit(found.exit_code)


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@results_option
@click.option("--reports", type=folder, default=Path("reports"), show_default=True, help="Where reports are.")
@click.option("--rerun", "count", type=click.IntRange(0), default=0, help="Train K rows again.", metavar="K")
@click.option("--seed", type=int, default=0, show_default=True, help="Which rows --rerun draws.")
@click.option("--device", default="auto", show_default=True, help="Where --rerun trains.")
@click.option("--weights", type=file, help="Weights of the extractor (published Inception file).")
@click.option("--cache", type=folder, help="Kept statistics of real images  [env: BENCH_CACHE]")
@click.option("--data-root", type=folder, help="Where data sets are  [env: BENCH_DATA]")
def verify(
    names: tuple[str, ...],
    results: Path,
    reports: Path,
    count: int,
    seed: int,
    device: str,
    weights: Path | None,
    cache: Path | None,
    data_root: Path | None,
) -> None:
    """Check that the files of results/NAME and reports/NAME are whole, consistent and derived from one another.

    Needs no GPU. All results without a NAME. With --rerun, K rows, drawn by --seed and spread over the arms, are
    trained again: each reproduces to the bit, or statistically (within what the seeds of its arm differ), or it does
    not. Ends with 0 when everything holds, 1 when something does not, 2 when the input is refused.

    \b
    bench verify
    bench verify digits
    bench verify digits --rerun 3
    """
    from bench.checks import Check
    from bench.verify import subject
    from bench.verify import verify as checks

    def said(found: Iterable[Check]) -> bool:
        """Say what checks find as they find it; return whether one failed."""
        failed = False
        for check in found:
            click.echo(check.line)
            failed |= check.level == "failed"
        return failed

    failed = False
    for name in names or _all(results):
        at = _folder(name, results)
        if len(names) != 1:
            click.echo(f"{at}:")
        wrong = said(checks(at, reports))
        if count and wrong:
            said([Check("rerun", "note", "not trained again: checks failed")])
        elif count:
            from bench.progress import to_stderr
            from bench.rerun import rerun
            from bench.run import cache_folder, pick_device

            on, kept = pick_device(device), cache or cache_folder()
            wrong = said(rerun(subject(at), count, seed, on, kept, data_root, weights, to_stderr))
        failed |= wrong
    sys.exit(int(failed))


@main.command()
@click.argument("out")
@click.argument("parts", nargs=-1, required=True, metavar="A B...")
@results_option
def merge(out: str, parts: tuple[str, ...], results: Path) -> None:
    """Make one results folder OUT of folders A, B, ... of one grid that were made on several machines.

    A name without a slash is one in results/. Data, recipe, budget, score and protocol must be the same. A run that is
    in several folders with the same numbers is kept once; one with other numbers is refused, by run and column. `bench
    run` goes on in OUT where it has the grid's name. Nothing is overwritten. Ends with 0, or with 2 when refused.

    \b
    bench merge digits /mnt/a/results/digits /mnt/b/results/digits
    """
    from bench.merge import merge as unite

    place = Path(out) if "/" in out else results / out
    for line in unite(place, [_folder(part, results) for part in parts]):
        click.echo(line)


@main.command()
@results_option
@click.option("--cache", type=folder, help="Kept statistics of real images  [env: BENCH_CACHE]")
@click.option("--data-root", type=folder, help="Where data sets are  [env: BENCH_DATA]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--full", is_flag=True, help="Also what takes hours on a CPU: the Inception score of CIFAR-10.")
def doctor(results: Path, cache: Path | None, data_root: Path | None, device: str, full: bool) -> None:
    """Check this installation: packages, devices, data, weights, disk, memory, clock, and scores with known answers.

    One line a check: ok, note (works, but worth knowing) or wrong, with what to do. Downloads nothing. Ends with 0, or
    with 1 where something is wrong.

    \b
    bench doctor
    bench doctor --device cuda --data-root /data
    """
    from bench.doctor import Machine, examine
    from bench.run import cache_folder, known_device

    known_device(device)
    wrong = 0
    for check in examine(Machine(results, cache or cache_folder(), data_root, device, full)):
        wrong += check.level == "wrong"
        click.echo(check.line)
    click.echo(f"{wrong} wrong" if wrong else "nothing is wrong")
    sys.exit(int(wrong > 0))


if __name__ == "__main__":
    main()
