"""What the tricks inside the step do, against plain formulas and torch.optim; one run unless said otherwise."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.networks import BatchNorm, LeakyReLU, discriminator, generator
from bench.recipe import Recipe
from bench.trick import Adam, At, Gates, Now, Optim, Scores, make

TOTAL = 100


def of(name: str, **values):
    """A trick as its hooks see it: dials are tensors."""
    trick = make(name, values)
    dials = {f.name: torch.tensor(float(getattr(trick, f.name)), dtype=torch.float64) for f in trick.dials()}
    own = object.__new__(type(trick))
    own.__dict__.update(trick.values | dials)
    return own


def at(step: float = 3.0, noise: Tensor | None = None, memory: dict | None = None) -> At:
    return At(torch.tensor(step, dtype=torch.float64), TOTAL, noise, memory)


def draws(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scores(features: int = 3) -> Scores:
    real, fake = (6 * draws(8, seed=s) - 3 for s in (1, 2))
    return Scores(real, fake, draws(8, features, seed=3), draws(8, features, seed=4))


def close(a, b) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), rtol=1e-12, atol=1e-12)


# ---- losses

BCE = torch.tensor(7.0, dtype=torch.float64)


def losses(name: str, **values) -> tuple[Tensor, Tensor]:
    trick = of(name, **values)
    d = trick.d_loss(BCE, scores(), at()) if "d_loss" in vars(type(trick)) else BCE
    return d, trick.g_loss(BCE, scores(), at())


def plain(name: str) -> tuple[float, float]:
    """Both losses, image by image, in Python's own numbers."""
    real, fake = (t.tolist() for t in scores()[:2])
    n = len(real)
    if name == "saturating_loss":
        return 7.0, sum(math.log(1 - 1 / (1 + math.exp(-f))) for f in fake) / n
    if name == "hinge":
        return sum(max(0, 1 - r) + max(0, 1 + f) for r, f in zip(real, fake, strict=True)) / n, -sum(fake) / n
    if name == "least_squares":
        return sum((r - 1) ** 2 + f**2 for r, f in zip(real, fake, strict=True)) / 2 / n, sum(
            (f - 1) ** 2 for f in fake
        ) / 2 / n
    if name in ("wasserstein", "wgan_gp"):
        return (sum(fake) - sum(real)) / n, -sum(fake) / n
    pairs = list(zip(real, fake, strict=True))
    return sum(math.log1p(math.exp(f - r)) for r, f in pairs) / n, sum(
        math.log1p(math.exp(r - f)) for r, f in pairs
    ) / n


@pytest.mark.parametrize(
    "name",
    ["saturating_loss", "hinge", "least_squares", "wasserstein", "wgan_gp", "relativistic", "r3gan"],
)
def test_a_loss_is_its_formula(name):
    for got, wanted in zip(losses(name), plain(name), strict=True):
        close(got, wanted)


@pytest.mark.parametrize("name", ["saturating_loss", "hinge", "least_squares"])
def test_half_a_loss_is_half_of_each(name):
    for half, whole in zip(losses(name, amount=0.5), losses(name), strict=True):
        close(half, (whole + BCE) / 2)


@pytest.mark.parametrize("name", ["saturating_loss", "hinge", "least_squares"])
def test_none_of_a_loss_leaves_value_and_gradient_to_the_bit(name):
    trick = of(name, amount=0.0)
    fake = scores().fake.requires_grad_()
    before = F.softplus(-fake).mean()
    after = trick.g_loss(before, Scores(None, fake), at())
    assert torch.equal(before, after)
    assert torch.equal(*(torch.autograd.grad(loss, fake, retain_graph=True)[0] for loss in (before, after)))


def test_the_saturating_loss_has_no_gradient_where_d_is_sure_and_the_published_one_has():
    fake = torch.full((4,), -20.0, dtype=torch.float64, requires_grad=True)
    published = F.softplus(-fake).mean()
    saturating = of("saturating_loss").g_loss(published, Scores(None, fake), at())
    of_published, of_saturating = (
        torch.autograd.grad(x, fake, retain_graph=True)[0] for x in (published, saturating)
    )
    assert of_published.abs().min() > 0.2
    assert of_saturating.abs().max() < 1e-8
    assert (of_saturating < 0).all()  # the same direction: up with the logit


def test_clipping_holds_every_parameter_of_d():
    clipped = of("wasserstein", clip=0.01).d_parameters(torch.tensor([-1.0, -0.005, 0.0, 0.02]), at())
    assert torch.equal(clipped, torch.tensor([-0.01, -0.005, 0.0, 0.01]))


def test_a_gradient_penalty_sums_over_pixels_and_averages_over_the_batch():
    gradient = draws(5, 3, 4, 4)
    squares = [float(sum(v**2 for v in image.flatten().tolist())) for image in gradient]
    mean = sum(squares) / 5
    close(of("r1", gamma=0.5).d_penalty(gradient, at()), 0.25 * mean)
    close(of("r2", gamma=0.5).d_penalty(gradient, at()), 0.25 * mean)
    close(of("r3gan", gamma=0.5).d_penalty(gradient, at()), 0.25 * mean)
    close(of("wgan_gp").d_penalty(gradient, at()), 10 * sum((s**0.5 - 1) ** 2 for s in squares) / 5)


def test_a_gradient_of_length_zero_gives_a_penalty_with_a_gradient():
    gradient = torch.zeros(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    (of_it,) = torch.autograd.grad(of("wgan_gp").d_penalty(gradient, at()), gradient)
    assert of_it.isfinite().all()


def test_feature_matching_is_the_squared_distance_of_means():
    s = scores()
    apart = sum(
        (sum(r) / 8 - sum(f) / 8) ** 2
        for r, f in zip(s.real_features.T.tolist(), s.fake_features.T.tolist(), strict=True)
    )
    close(of("feature_matching").g_loss(BCE, s, at()), apart)
    close(of("feature_matching", mode="add", weight=2).g_loss(BCE, s, at()), 7 + 2 * apart)
    for mode in ("replace", "add"):
        assert torch.equal(of("feature_matching", mode=mode, weight=0).g_loss(BCE, s, at()), BCE)


def test_r3gan_has_no_batch_norm_and_is_leaky_everywhere():
    recipe = Recipe(channels=4)
    trick = make("r3gan", {})
    for table in (
        trick.d_layers(discriminator(recipe, 32, 3)),
        trick.g_layers(generator(recipe, 32, 3)),
    ):
        assert not [layer for layer in table if isinstance(layer, BatchNorm)]
        assert all(layer.slope == 0.2 for layer in table if isinstance(layer, LeakyReLU))
    assert (trick.recipe(recipe).beta1, trick.recipe(recipe).beta2) == (0.0, 0.99)


# ---- labels

ONES, ZEROS = torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)


def test_two_sided_smoothing_tells_each_side_its_own():
    trick = of("two_sided_smoothing")
    assert torch.equal(trick.real_targets(ONES, at()), 0.9 * ONES)
    assert torch.equal(trick.fake_targets(ZEROS, at()), 0.1 * ONES)
    off = of("two_sided_smoothing", real=1.0, fake=0.0)
    assert torch.equal(off.real_targets(ONES, at()), ONES)
    assert torch.equal(off.fake_targets(ZEROS, at()), ZEROS)


def test_soft_labels_fill_their_ranges():
    u = draws(50)
    real = of("soft_labels").real_targets(ONES, at(noise=u))
    fake = of("soft_labels").fake_targets(ZEROS, at(noise=u))
    close(real, 0.7 + 0.5 * u)
    close(fake, 0.3 * u)
    off = of("soft_labels", amount=0.0)
    assert torch.equal(off.real_targets(ONES, at(noise=u)), ONES)
    assert torch.equal(off.fake_targets(ZEROS, at(noise=u)), ZEROS)


def test_the_partner_of_soft_labels_has_their_means():
    assert make("soft_labels", {}).partner() == ("two_sided_smoothing", {"real": 0.95, "fake": 0.15})
    assert make("soft_labels", {"real_low": 1.0, "real_high": 1.5}).partner() is None


def test_partners_of_flipping_and_smoothing_are_each_other():
    flipped = make("label_noise", {"real": 0.05, "fake": 0.1})
    name, values = flipped.partner()
    assert (name, values) == ("two_sided_smoothing", {"real": 0.95, "fake": 0.1})
    assert make(name, values).partner() == ("label_noise", flipped.values)


# ---- images


def test_flips_mirror_the_images_that_were_drawn():
    x, u = draws(20, 1, 4, 4), draws(20, 1, seed=2)
    flipped = of("horizontal_flips", p=0.3).real_images(x, at(noise=u))
    for before, after, drawn in zip(x, flipped, u, strict=True):
        assert torch.equal(after, before[..., [3, 2, 1, 0]] if drawn < 0.3 else before)
    assert torch.equal(of("horizontal_flips", p=0.0).real_images(x, at(noise=u)), x)


def augmented(image: list, u: list[float], policy: str) -> list:
    """DiffAugment on one image (C, H, W) as nested lists, pixel by pixel."""
    c, h, w = len(image), len(image[0]), len(image[0][0])
    every = [(k, i, j) for k in range(c) for i in range(h) for j in range(w)]
    pixel = {place: image[place[0]][place[1]][place[2]] for place in every}
    if "color" in policy:
        pixel = {p: v + u[0] - 0.5 for p, v in pixel.items()}
        grey = {(i, j): sum(pixel[k, i, j] for k in range(c)) / c for i in range(h) for j in range(w)}
        pixel = {p: grey[p[1:]] + (v - grey[p[1:]]) * 2 * u[1] for p, v in pixel.items()}
        mean = sum(pixel.values()) / len(pixel)
        pixel = {p: mean + (v - mean) * (u[2] + 0.5) for p, v in pixel.items()}
    if "translation" in policy:
        down, right = (int(u[n] * (2 * (side // 8) + 1)) - side // 8 for n, side in ((3, h), (4, w)))
        pixel = {(k, i, j): pixel.get((k, i + down, j + right), 0.0) for k, i, j in every}
    if "cutout" in policy:
        top, left = (
            int(u[n] * (side + 1 - (side // 2) % 2)) - (side // 2) // 2 for n, side in ((5, h), (6, w))
        )
        for k, i, j in every:
            if top <= i < top + h // 2 and left <= j < left + w // 2:
                pixel[k, i, j] = 0.0
    return [[[pixel[k, i, j] for j in range(w)] for i in range(h)] for k in range(c)]


@pytest.mark.parametrize(
    "policy", ["translation_cutout", "color_translation_cutout", "color", "translation", "cutout"]
)
@pytest.mark.parametrize("size", [16, 28])
def test_diffaugment_is_what_a_loop_over_pixels_makes(policy, size):
    x, u = 2 * draws(6, 3, size, size) - 1, draws(6, 7, seed=2)
    u[0], u[1] = 0.0, 1 - 1e-12  # both ends of every range
    made = of("diffaugment", policy=policy).images(x, at(noise=u))
    for image, own, after in zip(x, u, made, strict=True):
        close(after, torch.tensor(augmented(image.tolist(), own.tolist(), policy), dtype=torch.float64))


def test_diffaugment_passes_the_gradient_on():
    x, u = (2 * draws(1, 3, 8, 8) - 1).requires_grad_(), draws(1, 7, seed=2)
    trick = of("diffaugment", policy="color_translation_cutout")
    assert torch.autograd.gradcheck(lambda v: trick.images(v, at(noise=u)), (x,))


def test_diffaugment_stays_in_range_where_a_draw_was_rounded_to_one():
    x = torch.rand(2, 3, 16, 16)
    assert of("diffaugment").images(x, at(noise=torch.ones(2, 7))).isfinite().all()


# ---- memory


def now(step: int, batch: int = 6) -> Now:
    return Now(
        d=draws(5, seed=10 + step),
        g=draws(4, seed=20 + step),
        statistics=draws(3, seed=30 + step),
        fakes=draws(batch, 1, 4, 4, seed=40 + step),
    )


def test_the_average_of_g_warms_up_and_holds_its_statistics():
    trick = of("ema", decay=0.15)
    memory = trick.memory(now(0))
    g, statistics = now(0).g.tolist(), now(0).statistics.tolist()
    for t in range(5):
        memory = trick.remember(now(t + 1), at(t, memory=memory))
        b = min(0.15, (1 + t) / (10 + t))
        g = [b * a + (1 - b) * v for a, v in zip(g, now(t + 1).g.tolist(), strict=True)]
        statistics = [
            b * a + (1 - b) * v for a, v in zip(statistics, now(t + 1).statistics.tolist(), strict=True)
        ]
    for got, wanted in zip(trick.sampled(memory), (g, statistics), strict=True):
        close(got, torch.tensor(wanted, dtype=torch.float64))


def test_historical_averaging_pulls_to_the_mean_of_the_past():
    trick = of("historical_averaging", weight=0.5)
    memory = trick.memory(now(0))
    for t in range(4):
        memory = trick.remember(now(t + 1), at(t, memory=memory))
    for hook, past in (
        ("d_gradient", [now(t).d for t in range(5)]),
        ("g_gradient", [now(t).g for t in range(5)]),
    ):
        theta = past[-1].clone().requires_grad_()
        (pull,) = torch.autograd.grad(0.5 * (theta - torch.stack(past).mean(0)).square().sum(), theta)
        moved = getattr(trick, hook)(torch.ones_like(theta.detach()), theta.detach(), at(memory=memory))
        close(moved, 1 + pull)
        off = of("historical_averaging", weight=0.0)
        same = getattr(off, hook)(pull, theta.detach(), at(memory=memory))
        assert torch.equal(same, pull)


@pytest.mark.parametrize(("size", "batch"), [(16, 6), (16, 8), (3, 8), (1, 2), (7, 2), (256, 64)])
def test_the_store_of_fakes_takes_half_a_batch_at_different_random_places(size, batch):
    trick = of("replay", size=size)
    memory = trick.memory(now(0, batch))
    assert torch.equal(memory["images"][: min(size, batch)], now(0, batch).fakes[:size])
    hit = torch.zeros(size)
    for t in range(40):
        after = trick.remember(now(t + 1, batch), at(t, draws(batch, 2, seed=t), memory))
        changed = (after["images"] != memory["images"]).flatten(1).any(1)
        new = after["images"][changed]
        assert len(new) == min(batch // 2, size)
        assert all(any(torch.equal(i, f) for f in now(t + 1, batch).fakes[: batch // 2]) for i in new)
        memory, hit = after, hit + changed
    if size <= 16:
        assert hit.min() > 0  # no place is left out


def test_replay_shows_d_stored_fakes_in_place_of_the_first():
    trick = of("replay", size=4)
    memory = {"images": now(0, 4).fakes}
    x, u = now(1).fakes, draws(6, 2)
    seen = trick.fake_images(x, at(noise=u, memory=memory))
    for i, image in enumerate(seen):
        assert torch.equal(image, memory["images"][int(4 * u[i, 0])] if i < 3 else x[i])
    assert torch.equal(of("replay", size=4, share=0.0).fake_images(x, at(noise=u, memory=memory)), x)


def test_replay_is_the_same_run_by_run():
    trick = of("replay", size=5)
    fakes, u = draws(6, 3, 1, 4, 4), draws(6, 3, 2, seed=2)

    def one(made, noise):
        kept = trick.memory(Now(None, None, None, made))
        kept = trick.remember(Now(None, None, None, made + 1), at(noise=noise, memory=kept))
        return trick.fake_images(made, at(noise=noise, memory=kept))

    together = torch.vmap(one, 1, 1)(fakes, u)
    for r in range(3):
        assert torch.equal(together[:, r], one(fakes[:, r], u[:, r]))


# ---- who moves, and how fast

BASE = Adam(*(torch.tensor(v, dtype=torch.float64) for v in (2e-4, 0.5, 0.999)))


def rates(trick, step: float) -> tuple[float, float]:
    after = trick.optim(Optim(BASE, BASE), at(step))
    return float(after.d.lr), float(after.g.lr)


def test_the_rate_falls_in_a_line():
    trick = of("lr_decay", final=0.2, start=0.5)
    assert [rates(trick, s)[0] for s in (-5, 0, 50, 75, 100)] == pytest.approx(
        [2e-4, 2e-4, 2e-4, 1.2e-4, 0.4e-4], rel=1e-12
    )
    assert rates(of("lr_decay", final=1.0), 70) == (2e-4, 2e-4)


def test_two_time_scales_are_absolute_rates():
    assert rates(of("two_time_scales"), 0) == (1e-4, 5e-4)
    assert rates(of("two_time_scales", d=0.0, g=0.0), 0) == (2e-4, 2e-4)
    assert rates(of("two_time_scales", g=0.0), 0) == (1e-4, 2e-4)


def test_optimisers_have_rates_and_betas_of_their_own():
    assert rates(of("optimizer"), 0) == (0.02, 2e-4)
    assert rates(of("optimizer", d="rmsprop", g_lr=1e-3), 0) == (2e-4, 1e-3)
    after = of("optimizer", d="sgd", g="rmsprop", momentum=0.3).optim(Optim(BASE, BASE), at())
    assert float(after.d.beta1) == 0.3
    assert float(after.g.beta2) == 0.99
    recipe = make("optimizer", {"d": "sgd", "g": "rmsprop"}).recipe(Recipe())
    assert (recipe.d_optimizer, recipe.g_optimizer) == ("sgd", "rmsprop")


@pytest.mark.parametrize("k", [2, 5])
def test_g_moves_every_kth_step_and_as_often_as_in_the_baseline(k):
    opened = torch.tensor(True)
    gates = [of("d_steps", k=k).gates(Gates(opened, opened), at(s)) for s in range(k * 4)]
    assert [bool(g.g) for g in gates] == [(s + 1) % k == 0 for s in range(k * 4)]
    assert all(g.d for g in gates)
    assert make("d_steps", {"k": k}).recipe(Recipe()).length == k
    assert make("d_steps", {"k": k, "on_top": False}).recipe(Recipe()).length == 1
    closed = of("d_steps", k=k).gates(Gates(opened, ~opened), at(k - 1))
    assert not closed.g  # a gate that another trick holds shut stays shut


def test_recipe_tricks_set_what_they_say():
    assert make("beta1", {"both": 0.0}).recipe(Recipe()) == replace(Recipe(), beta1=0.0)
    assert make("mixed_batches", {}).recipe(Recipe()) == replace(Recipe(), mixed=True)
    assert make("training_length", {"factor": 3}).recipe(Recipe()).length == 3.0
