"""The laws that every file in tricks/ obeys; nothing here names a trick."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tricks
from bench import cards, engine, grid, lift, plan, train
from bench.errors import Refused
from bench.networks import discriminator, generator
from bench.program import Run
from bench.recipe import Recipe
from bench.schedule import Schedule
from bench.streams import Streams
from bench.trick import FACTS, HOOKS, IN_STEP, Claim, Now, Scores, Trick, dial, make, ordered, registry

NAMES = sorted(registry())
TABLE_HOOKS = ("recipe", "d_layers", "g_layers")
STEP_HOOKS = IN_STEP
SUMMED = (
    "d_penalty",
    "memory",
    "remember",
    "sampled",
)  # hooks of two tricks that never see each other's outcome


def planned(tiny, name: str, **options) -> list[Run]:
    """The runs of a trick's own arm and of its baseline, in a tiny grid.

    A trick that cannot stand alone (a penalty and D's BatchNorm) gets the first other trick that makes it possible, and
    its baseline has that one too.
    """
    if registry()[name].readout:
        return plan.runs(tiny("", **options))
    try:
        return plan.runs(tiny(f"{name}:", **options))
    except Refused:
        for other in NAMES:
            arms = f"{{arms: {{baseline: {{{other}: }}, on: {{{other}: , {name}: }}}}}}"
            try:
                return plan.runs(tiny("", design=arms, **options))
            except Refused:
                continue
        raise


def both(tiny, name: str, **options) -> tuple[Run, Run]:
    """A run with the trick, at the tiny grid's first seed, and its baseline."""
    runs = planned(tiny, name, seeds=1, **options)
    return runs[-1], runs[0]


def weights(runs, images, **options) -> torch.Tensor:
    return last(runs, images, **options).parameters


def last(runs, images, **options) -> train.Snapshot:
    labels = torch.arange(len(images)) % 10
    return list(train.train(runs[0].program, runs, images, labels=labels, **options))[-1]


def test_the_registry_is_the_folder():
    assert {p.stem for p in Path(tricks.__path__[0]).glob("*.py")} - {"__init__"} == set(NAMES)


def test_the_readme_of_the_folder_is_up_to_date():
    path = Path(tricks.__path__[0]) / "README.md"
    assert path.read_text() == cards.readme(), "run: bench tricks --write"


@pytest.mark.parametrize("name", NAMES)
def test_a_trick_carries_its_papers(name):
    cls = registry()[name]
    assert len(cls.__doc__.split()) > 10
    assert all(claim.text and claim.source and claim.direction in (-1, 0, 1) for claim in cls.claims)
    assert all(field["doc"] for field in cls.card()["fields"])
    assert cls.__doc__.splitlines()[0] in cards.card(name)


@pytest.mark.parametrize("name", [n for n in NAMES if registry()[n].off()])
def test_off_is_absent_bit_for_bit(name, tiny, images):
    _, baseline = both(tiny, name)
    present = tuple(baseline.step_tricks)
    off = lift.stack([[*present, registry()[name].off()]], torch.float64)
    assert all(trick.on == (True,) for trick in off)  # so its noise is really drawn
    without = lift.stack([present], torch.float64)
    assert torch.equal(weights([baseline], images, tricks=off), weights([baseline], images, tricks=without))


@pytest.mark.parametrize("name", [n for n in NAMES if not registry()[n].readout])
def test_on_changes_what_is_sampled(name, tiny, images):
    """The weights, or only the statistics that sampling uses, or the shape of the networks."""
    on, off = (last([run], images) for run in both(tiny, name))
    pairs = [(on.parameters, off.parameters)]
    pairs += [
        (t, off.statistics.get(layer, own).get(key, t))
        for layer, own in on.statistics.items()
        for key, t in own.items()
    ]
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", [n for n in NAMES if registry()[n].readout])
def test_a_readout_changes_what_is_scored_and_nothing_else(name, tiny, images):
    runs = planned(tiny, name)
    without = last(runs, images)
    shot = last(runs, images, readouts=[make(name, {})])
    assert torch.equal(shot.parameters, without.parameters)
    parameters, statistics = shot.readouts[name]
    assert not torch.equal(parameters, shot.parameters)
    assert {k: {n: t.shape for n, t in own.items()} for k, own in statistics.items()} == {
        k: {n: t.shape for n, t in own.items()} for k, own in shot.statistics.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_an_array_equals_the_run_alone(name, tiny, images):
    runs_ = planned(tiny, name, seeds=2, steps=10)
    options = {"readouts": [make(name, {})]} if registry()[name].readout else {}
    for program in {r.program for r in runs_}:
        runs = [r for r in runs_ if r.program == program]
        together = last(runs, images, **options)
        for r, run in enumerate(runs):
            alone = last([run], images, **options)
            torch.testing.assert_close(together.parameters[r], alone.parameters[0], rtol=0, atol=1e-10)
            for readout, (parameters, _) in together.readouts.items():
                torch.testing.assert_close(parameters[r], alone.readouts[readout][0][0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("how", [engine.Taped, engine.Captured])
@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_step_and_fixed_buffers_change_no_bit(name, how, tiny, images):
    """What a CPU replays, and what a GPU does, called on the CPU."""
    run, _ = both(tiny, name, steps=6)
    options = {"readouts": [make(name, {})]} if registry()[name].readout else {}
    one, other = (last([run], images, engine=e, **options) for e in (engine.Eager, how))
    assert other.mode == how.mode  # it was not computed by Python after all
    assert torch.equal(one.parameters, other.parameters)
    assert all(torch.equal(one.readouts[n][0], other.readouts[n][0]) for n in one.readouts)


@pytest.mark.parametrize("name", NAMES)
def test_switching_a_trick_on_shifts_no_other_draw(name, tiny, images):
    first = []
    for run in both(tiny, name):
        streams = [Streams(run.seed, "training")]
        stacked = lift.stack([run.step_tricks], torch.float64)
        for _ in range(3):
            drawn = engine.draw(run.program, stacked, streams, images)
            batch = engine.batch_of(drawn, images, torch.float64)
        first.append((run, batch))
    (a, before), (b, after) = first
    length = min(a.program.noise_length, b.program.noise_length)
    if a.program.batch_size == b.program.batch_size:
        assert torch.equal(before.latents[..., :length], after.latents[..., :length])
        assert torch.equal(before.real, after.real)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_outside_its_range_is_refused_by_name(name):
    for field in registry()[name].card()["fields"]:
        low, high = field["span"] or (0, 0)
        wrong = ["nonsense", 17.5] if field["among"] else [low - 1, high + 1, "a", True, float("nan"), None]
        for value in wrong:
            with pytest.raises(Refused, match=rf"{name}\.{field['name']}: .* is"):
                make(name, {field["name"]: value})


@pytest.mark.parametrize("name", NAMES)
def test_every_allowed_end_builds_a_network(name, tiny):
    run, _ = both(tiny, name)
    for field in registry()[name].card()["fields"]:
        for value in field["among"] or field["span"]:
            trick = make(name, {field["name"]: value})
            beside = [other for other in run.tricks if other.name() != name]
            changed = replace(run, tricks=ordered([*beside, *([] if trick.is_off else [trick])]))
            assert changed.program.nets.g.size() > 0


@pytest.mark.parametrize("size", [16, 28, 32, 64])
@pytest.mark.parametrize("name", [n for n in NAMES if set(vars(registry()[n])) & set(TABLE_HOOKS)])
def test_structural_tricks_fit_every_size(name, size, tiny):
    run, _ = both(tiny, name)
    wide = replace(run, data=replace(run.data, set="cifar10", size=size))
    assert wide.program.nets.g.output() == (3, size, size)


def pairs():
    for a, b in itertools.combinations(NAMES, 2):
        one, two = registry()[a], registry()[b]
        shared = [h for h in HOOKS if one.fills(h) and two.fills(h) and h not in SUMMED]
        apart = b in one.conflicts or a in two.conflicts or (one.loss and two.loss)
        said = b in one.after or a in two.after
        if one.stage != two.stage:
            shared = [h for h in shared if h not in ("d_layers", "g_layers")]
        if shared and not said and not apart:
            yield a, b, shared


@pytest.mark.parametrize(("a", "b", "shared"), list(pairs()))
def test_two_tricks_on_one_hook_commute_or_one_says_after(a, b, shared):
    one, two = make(a, {}), make(b, {})
    for hook in shared:
        if hook == "recipe":
            assert two.recipe(one.recipe(Recipe())) == one.recipe(two.recipe(Recipe()))
        elif hook in TABLE_HOOKS:
            table = (discriminator if hook == "d_layers" else generator)(Recipe(), 32, 3)
            f, g = getattr(one, hook), getattr(two, hook)
            assert f(g(table)) == g(f(table))
        else:
            stacked = lift.stack([[one, two]], torch.float64)
            outcomes = [called(order, hook) for order in (stacked, stacked[::-1])]
            torch.testing.assert_close(*outcomes, rtol=0, atol=1e-12)


def called(stacked, hook):
    """The hook of stacked tricks on fixed arguments: one run of six images, step 3 of 10, as the step calls it."""
    draws = torch.Generator().manual_seed(5)

    def some(*shape):
        return torch.rand(shape, dtype=torch.float64, generator=draws)

    now = Now(some(1, 30), some(1, 30), some(1, 4), some(1, 6, 1, 8, 8))
    given = {
        "images": ((some(6, 1, 1, 8, 8),), (1,)),
        "maps": ((some(6, 1, 3, 4, 4),), (1,)),
        "targets": ((some(6, 1),), (1,)),
        "loss": (
            (some(1), Scores(some(6, 1), some(6, 1), some(6, 1, 5), some(6, 1, 5))),
            (0, Scores(1, 1, 1, 1)),
        ),
        "penalty": ((some(1, 6, 1, 8, 8),), (0,)),
        "gradient": ((some(1, 30), some(1, 30)), (0, 0)),
        "parameters": ((some(1, 30),), (0,)),
        "memory": ((now,), (0,)),
        "remember": ((now,), (0,)),
    }
    step = torch.tensor([3.0], dtype=torch.float64)
    if hook in ("gates", "optim"):
        schedule = Schedule([Recipe()], stacked, 10, torch.float64, "cpu")
        return [vars(schedule[i].d) | vars(schedule[i].g) for i in (schedule.first, 3)]
    (value, *others), axes = (
        given["images" if hook.endswith("_images") else hook.split("_")[-1]]
        if hook != "sampled"
        else ((None,), (0,))
    )
    noise, memory = {}, {}
    for trick in sorted(stacked, key=lambda s: s.name):
        each = (
            (trick.cls.draws,)
            if trick.cls.draws
            else value.shape[2:]
            if isinstance(value, torch.Tensor)
            else ()
        )
        noise[f"{trick.name}.{hook}"] = some(6, 1, *each)
        if trick.cls.fills("memory"):
            memory[trick.name] = lift.call(trick, "memory", (now,), (0,), lift.Around(step, 10))
    around = lift.Around(step, 10, noise, memory)
    for trick in stacked:
        if trick.cls.fills(hook):
            value = lift.call(
                trick, hook, (memory[trick.name] if hook == "sampled" else value, *others), axes, around
            )
    return value


@pytest.mark.parametrize("name", [n for n in NAMES if set(vars(registry()[n])) & set(STEP_HOOKS)])
def test_hooks_can_be_lifted_and_are_pure(name):
    for hook in (h for h in STEP_HOOKS if h in vars(registry()[name])):
        stacked = lift.stack([[make(name, {})]], torch.float64)
        first, second = called(stacked, hook), called(stacked, hook)
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", [n for n in NAMES if set(vars(registry()[n])) & set(STEP_HOOKS)])
def test_a_trick_that_acts_inside_the_step_fuses_or_has_a_program_of_its_own(name, tiny):
    """With a dial that switches it, it shares arrays with runs that have it off; heavy or without one it never does."""
    cls = registry()[name]
    runs = planned(tiny, name, seeds=1)
    choices = len(cls.dials()) < len(cls.card()["fields"])
    fuses = cls.off() is not None and not cls.heavy and not choices and not cls.fills(*TABLE_HOOKS)
    assert (len({r.program for r in runs}) == 1) == (fuses or cls.readout)


def test_a_misspelt_hook_is_refused_at_import():
    with pytest.raises(TypeError, match=r'real_target is no hook .did you mean "real_targets"'):

        class Wrong(Trick):
            """A trick whose hook would never be called."""

            claims = [Claim("nothing", "fid", 0, "nowhere")]

            def real_target(self, y, at):
                return y


@pytest.mark.parametrize("about", [{"strength": 1.0}, {"amount": 7.0}])
def test_a_claim_about_settings_that_the_trick_has_not_is_refused_at_import(about):
    with pytest.raises((TypeError, Refused), match=r"strength|amount"):

        class Wrong(Trick):
            """A trick with a claim about something else."""

            claims = [Claim("nothing", "fid", 0, "nowhere", about=about)]
            amount: float = dial(0.5, span=(0.0, 1.0), off=0.0, doc="how much")

            def real_targets(self, y, at):
                return y


def test_a_hook_that_draws_its_own_numbers_is_refused_by_the_lifting():
    class Impure(Trick):
        """A trick that draws from the global generator, which no run owns."""

        claims = [Claim("nothing", "fid", 0, "nowhere")]

        def images(self, x, at):
            return x + torch.randn_like(x)

    with pytest.raises(RuntimeError, match="random"):
        lift.apply(
            lift.stack([[Impure()]], torch.float64),
            "images",
            torch.zeros(2, 1, 1, 4, 4),
            lift.Around(torch.zeros(1), 1),
        )


def test_tricks_run_in_the_order_they_ask_for():
    for name in NAMES:
        for other in registry()[name].after:
            names = [t.name() for t in ordered([make(name, {}), make(other, {})])]
            assert names == [other, name]


def test_rules_name_tricks_or_facts_that_exist():
    for name in NAMES:
        cls = registry()[name]
        assert set(cls.after) | set(cls.interacts) <= set(NAMES)
        assert set(cls.requires) | set(cls.conflicts) | set(cls.inert_if) <= set(NAMES) | set(FACTS)


def test_bench_never_names_a_trick():
    words = {f'"{name}"' for name in NAMES} - {f'"{f}"' for f in vars(Recipe())}
    for path in Path(grid.__file__).parent.glob("*.py"):
        assert not [w for w in words if w in path.read_text()], path.name
