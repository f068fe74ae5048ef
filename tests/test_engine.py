"""The array engine against a plain loop, and an array against its runs trained alone."""

from dataclasses import replace

import plain
import pytest
import torch

from bench import engine, plan, program, step, train
from bench import grid as grids
from bench.streams import Streams
from bench.trick import Adam, At, Claim, Now, Optim, Trick, dial, make

GRID = """
name: engine
data: {{set: {set}, size: {size}}}
recipe: {{channels: 4, batch_size: 8, noise_length: 12}}
design: {{arms: {{
  mixed: {{label_smoothing: 0.9, learning_rate: {{both: 1e-3}}}},
  pretrained: {{pretraining: {{steps: 3}}}}}}}}
tricks: {{}}
seeds: {{count: 2, first: 7}}
budget: {{steps: {steps}}}
score: {{points: 1, extractor: {extractor}}}
dtype: float64
"""


def runs_of(set_: str, size: int, steps: int) -> list[program.Run]:
    extractor = "inception-v3-compat" if set_ == "celeba" else "classifier"
    return plan.runs(
        grids.read(GRID.format(set=set_, size=size, steps=steps, extractor=extractor), "engine.yaml")
    )


def last(runs, images, **options):
    return list(train.train(runs[0].program, runs, images, **options))[-1]


def by_plain_loop(run: program.Run, images: torch.Tensor, steps: int):
    """Train the run with the plain loop, given the same initial weights, data order and latents."""
    colours, size = images.shape[1], images.shape[2]
    d, g = (net.double() for net in plain.networks(size, colours, 4, 12))
    state = train.initial(run.program, [run], torch.float64, "cpu")
    plain.load(d, state.d.parameters[0])
    plain.load(g, state.g.parameters[0])
    values = {trick.name(): trick.values for trick in run.tricks}

    def batches(phase, count):
        streams = [Streams(run.seed, phase)]
        drawn = [
            engine.batch_of(engine.draw(run.program, (), streams, images), images, torch.float64)
            for _ in range(count)
        ]
        return [(b.real[:, 0], b.latents[:, 0]) for b in drawn]

    lr = values.get("learning_rate", {}).get("both", 2e-4)
    real_label = values.get("label_smoothing", {}).get("target", 1.0)
    prelude = batches("prelude", int(values.get("pretraining", {}).get("steps", 0)))
    losses = plain.train(d, g, batches("training", steps), lr, lr, real_label=real_label, prelude=prelude)
    return d, g, losses


@pytest.mark.parametrize(
    ("set_", "size"), [("digits", 16), ("fashion-mnist", 28), ("cifar10", 32), ("celeba", 64)]
)
def test_every_run_of_a_mixed_array_equals_the_plain_loop_over_100_steps(set_, size):
    steps = 100 if size == 16 else 40
    colours = 3 if size >= 32 else 1
    pictures = torch.randint(0, 256, (40, colours, size, size), dtype=torch.uint8)
    runs = runs_of(set_, size, steps)
    together = last(runs, pictures)
    assert together.step == steps
    for r, run in enumerate(runs):
        _d, g, losses = by_plain_loop(run, pictures, steps)
        flat = torch.cat([p.flatten() for p in g.parameters()])
        torch.testing.assert_close(together.parameters[r], flat, rtol=0, atol=1e-9)
        means = [b for name, b in g.named_buffers() if name.endswith("running_mean")]
        ours = [layer["mean"].unflatten(0, (len(runs), -1))[r] for layer in together.statistics.values()]
        for a, b in zip(ours, means, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
        window = losses[-max(1, steps // train.WINDOWS) :]
        assert float(together.losses[-1][1][r]) == pytest.approx(
            sum(x for x, _ in window) / len(window), abs=1e-8
        )


def broken(monkeypatch, bad: int) -> None:
    """Let one run of every array start with parameters that are not numbers."""
    start = train.initial

    def initial(program_, runs, dtype, device):
        state = start(program_, runs, dtype, device)
        if len(runs) > bad:
            state.g.parameters[bad] = torch.nan
        return state

    monkeypatch.setattr(train, "initial", initial)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_that_is_not_finite_leaves_its_neighbours_as_they_are(dtype, images, monkeypatch):
    runs = [replace(run, dtype=dtype) for run in runs_of("digits", 16, 10)[:3]]
    healthy = last(runs, images)
    broken(monkeypatch, 1)
    shot = last(runs, images)
    assert shot.broken == (None, 0, None)
    assert not shot.parameters[1].isfinite().any()
    for r in (0, 2):
        assert torch.equal(shot.parameters[r], healthy.parameters[r])


def test_a_run_that_is_not_finite_is_a_row_that_says_so(tmp_path, monkeypatch):
    from bench.data import load
    from bench.run import keep_images
    from bench.spec import Score
    from bench.worker import Job, do

    broken(monkeypatch, 1)
    runs = tuple(runs_of("digits", 16, 10)[:2])
    score = Score("classifier", 64, (1.0,), ("fid", "is"))
    file = keep_images(load(runs[0].data), tmp_path)
    result = do(Job(runs, score, file, tmp_path, None, 40.0, "cpu", 1))
    bad = result.rows[1]
    assert (bad["status"], bad["detectors"]) == ("diverged", "nan")
    assert bad["reason"] == "a loss was not finite at step 0"
    assert "fd" not in bad
    assert result.rows[0]["fd"] > 0
    assert not [line for line in result.curves if line[0] == runs[1].id]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_replayed_steps_are_the_steps_one_after_another(dtype, images, monkeypatch):
    """What a CPU replays, and a GPU (called on the CPU): the same draws, rows and state, in chunks of any size."""
    runs = [replace(run, dtype=dtype) for run in runs_of("digits", 16, 12)]
    assert {trick.name() for run in runs for trick in run.tricks} >= {"pretraining", "label_smoothing"}
    noisy = replace(runs[0], tricks=(make("input_noise", {}), make("label_noise", {})))
    together = runs[0].program, [*runs, noisy], images
    one_by_one = list(train.train(*together, engine=engine.Eager))
    for how, chunk in ((engine.Taped, 32), (engine.Captured, 5), (engine.Captured, 32)):
        monkeypatch.setattr(engine, "CHUNK", chunk)
        replayed = list(train.train(*together, engine=how))
        assert replayed[0].mode == how.mode
        for a, b in zip(replayed, one_by_one, strict=True):
            assert torch.equal(a.parameters, b.parameters)
            assert a.broken == b.broken
            for mine, theirs in zip(a.losses, b.losses, strict=True):
                assert all(
                    torch.equal(torch.as_tensor(x), torch.as_tensor(y))
                    for x, y in zip(mine, theirs, strict=True)
                )


def test_one_run_is_replayed_even_if_a_trick_gives_both_networks_the_same_numbers(images):
    class Same(Trick):
        """A trick that gives D and G one set of tensors."""

        claims = [Claim("nothing", "fid", 0, "nowhere")]
        rate: float = dial(0.5, off=0.0, span=(0.0, 1.0), doc="how fast")

        def optim(self, settings: Optim, at: At) -> Optim:
            both = Adam(*(self.rate + torch.zeros_like(t) for t in settings.d))
            return Optim(both, both)

    run = runs_of("digits", 16, 4)[0]
    recipe = replace(run.recipe, d_optimizer="sgd", g_optimizer="sgd")
    assert last([replace(run, recipe=recipe, tricks=(Same(),))], images).mode == "tape"


class Turned(Trick):
    """A trick that remembers two numbers in another order than it began with."""

    claims = [Claim("nothing", "fid", 0, "nowhere")]
    rate: float = dial(0.5, off=0.0, span=(0.0, 1.0), doc="how much one of them grows")

    def memory(self, now: Now) -> dict:
        return {"still": now.g.new_zeros(()), "grows": now.g.new_zeros(())}

    def remember(self, now: Now, at: At) -> dict:
        return {"grows": at.memory["grows"] + self.rate, "still": at.memory["still"]}

    def g_gradient(self, gradient, parameters, at: At):
        return gradient * (1 + at.memory["grows"])


def test_a_memory_is_found_by_its_names_whatever_their_order(images):
    runs = [replace(runs_of("digits", 16, 6)[0], tricks=(Turned(),))]
    one_by_one = last(runs, images, engine=engine.Eager)
    for how in (engine.Taped, engine.Captured):
        shot = last(runs, images, engine=how)
        assert shot.mode == how.mode
        assert torch.equal(shot.parameters, one_by_one.parameters)


def test_a_memory_of_other_names_than_the_first_is_refused(images, monkeypatch):
    monkeypatch.setattr(Turned, "remember", lambda self, now, at: {"grown": at.memory["grows"]})
    runs = [replace(runs_of("digits", 16, 6)[0], tricks=(Turned(),))]
    with pytest.raises(TypeError, match=r"turned: remember gives \['grown'\], memory \['grows', 'still'\]"):
        last(runs, images)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where CUDA refuses the capture")
def test_a_refused_capture_is_announced_and_changes_nothing(images):
    class Refused(engine.Captured):
        def __init__(self, *given):
            super().__init__(*given)
            self._capturing = True

    runs, said = runs_of("digits", 16, 6)[:2], []
    shot = list(train.train(runs[0].program, runs, images, engine=Refused, say=said.append))[-1]
    assert torch.equal(shot.parameters, last(runs, images).parameters)
    assert shot.mode == "eager"
    assert len(said) == 1
    assert said[0].startswith("CUDA did not capture the step (")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda loss, call: loss + 0.01 * torch.rand(()), "draws random numbers"),
        (lambda loss, call: loss * (2.0 if loss.sum().item() > 0 else 1.0), "asks for a tensor's value"),
        (lambda loss, call: loss * call, "a replay gives other numbers"),
    ],
)
def test_a_step_that_is_no_function_of_its_tensors_is_computed_by_python(change, reason, images, monkeypatch):
    runs, said = runs_of("digits", 16, 6)[:2], []
    real, calls = step.loss_of_g, []

    def changed(*given):
        calls.append(given)
        return change(real(*given), len(calls))

    monkeypatch.setattr("bench.step.loss_of_g", changed)
    shot = last(runs, images, say=said.append)
    assert shot.mode == "eager"
    assert len(said) == 1
    assert f"{reason})" in said[0]
    assert len(calls) >= 6


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_a_run_is_the_same_to_the_last_bit_in_any_array_and_slot(images):
    """Mixed runs over 20 steps, where the kernels are the same: float64, channels first in memory, no oneDNN."""
    a, b, c, d = runs_of("digits", 16, 20)[:4]
    noisy = replace(b, tricks=(make("input_noise", {}), make("label_noise", {})))
    with torch.backends.mkldnn.flags(enabled=False), pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.step._fold", lambda pictures: pictures.flatten(1, 2))
        alone = last([a], images).parameters[0]
        for runs in ([a, b], [b, a], [c, d, noisy, a], [noisy, c, b, a, d]):
            assert torch.equal(last(runs, images).parameters[runs.index(a)], alone)
