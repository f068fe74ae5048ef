"""One step of GAN training for all runs of an array: pure, and the only place where training happens."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.lift import Around, Stacked, any_fills, apply, call
from bench.networks import Network
from bench.schedule import AdamRow, Row
from bench.trick import Now, Scores

Statistics = dict[str, dict[str, Tensor]]  # by layer and name, each (R*C, ...)


class Player(NamedTuple):
    """One network's parameters and its optimiser's two moments, each (R, P)."""

    parameters: Tensor
    first: Tensor
    second: Tensor


class State(NamedTuple):
    """All that training changes: both players, G's running statistics, what layers of D keep from pass to pass (not
    BatchNorm's: D is never sampled), and the tricks' memory (R, ...)."""

    d: Player
    g: Player
    statistics: Statistics
    d_statistics: Statistics
    memory: dict[str, dict[str, Tensor]]


class Batch(NamedTuple):
    """What a step is given: real images (B, R, C, H, W) in [-1, 1], latents (B, R, length), the tricks' draws by
    "trick.hook.side", labels (B, R) of the real images and for the fakes, where a layer wants them."""

    real: Tensor
    latents: Tensor
    noise: dict[str, Tensor]
    labels: tuple[Tensor, Tensor] | None = None


class Nets(NamedTuple):
    """The two networks of a program, their optimisers, and whether D sees real and fake images in one batch."""

    d: Network
    g: Network
    d_optimizer: str = "adam"
    g_optimizer: str = "adam"
    mixed: bool = False


class Seen(NamedTuple):
    """What D makes of one side's images: images (B, R, C, H, W) as it sees them, logits (B, R), features (B, R, F)."""

    images: Tensor
    logits: Tensor
    features: Tensor | None


def step(
    nets: Nets, tricks: Sequence[Stacked], total: int, state: State, batch: Batch, row: Row
) -> tuple[State, Tensor, Tensor, Tensor, Tensor]:
    """Return the state after one step, both losses (R,) as they were before their network moved, and the norms (R,) of
    both losses' gradients, before a trick changes them; NaN where a network did not move."""
    runs = batch.real.shape[1]
    around = Around(row.step, total, batch.noise, state.memory)
    places = {place for trick in tricks for place in trick.cls.penalty_at}
    labels = (
        dict(zip(("real", "fake", "g"), (*batch.labels, batch.labels[1]), strict=True))
        if batch.labels
        else {}
    )
    judge = Judge(nets, tricks, around, runs, state.d_statistics, labels)

    def targets(hook: str, value: float, side: str) -> Tensor:  # (B, R)
        hard = torch.full(batch.real.shape[:2], value, dtype=batch.real.dtype, device=batch.real.device)
        return apply(tricks, hook, hard, around, side)

    g = leaves(nets.g, state.g.parameters, row.g.any_open)
    made, statistics = generated(
        nets.g, g, batch.latents, state.statistics, labels.get("fake"), tricks, around
    )

    d_after, d = state.d, leaves(nets.d, state.d.parameters, True)
    d_norm = torch.full(
        batch.real.shape[1:2], torch.nan, dtype=state.d.parameters.dtype, device=batch.real.device
    )
    real = apply(tricks, "real_images", batch.real, around, "real")
    fake = apply(tricks, "fake_images", made.detach(), around, "fake")
    of_real, of_fake = judge(d, {"real": real, "fake": fake}, places)
    loss_d = _bce(of_real.logits, targets("real_targets", 1.0, "real"))
    loss_d = loss_d + _bce(of_fake.logits, targets("fake_targets", 0.0, "fake"))
    loss_d = _lost(tricks, "d_loss", loss_d, Scores(of_real.logits, of_fake.logits), around)
    if places:
        between = None
        if "between" in places:
            between = judge.between(d, of_real.images.detach(), of_fake.images.detach())
        loss_d = loss_d + _penalties(tricks, {"real": of_real, "fake": of_fake, "between": between}, around)
    d_statistics = state.d_statistics
    if row.d.any_open:
        slopes = torch.autograd.grad(loss_d.sum(), d)
        d_after, d_norm = _moved(state.d, slopes, row.d, nets.d_optimizer, tricks, "d", around)
        d_statistics = _kept(row.d, judge.statistics, state.d_statistics)

    if not row.g.any_open:  # D-only steps of every run: G is neither moved nor asked
        state = state._replace(d=d_after, d_statistics=d_statistics)
        unasked = torch.full_like(loss_d, torch.nan).detach()
        return state, loss_d.detach(), unasked, d_norm, torch.full_like(d_norm, torch.nan)

    d = leaves(nets.d, d_after.parameters, False)  # frozen: its gradients would be thrown away
    judge.statistics = d_statistics
    [of_made] = judge(d, {"g": made})
    paired = any(trick.cls.paired for trick in tricks)
    [of_real] = judge(d, {"real": real}) if paired else [Seen(real, None, None)]
    scores = Scores(of_real.logits, of_made.logits, of_real.features, of_made.features)
    loss_g = loss_of_g(tricks, scores, around)
    slopes = torch.autograd.grad(loss_g.sum(), g)
    g_after, g_norm = _moved(state.g, slopes, row.g, nets.g_optimizer, tricks, "g", around)
    statistics = _kept(row.g, statistics, state.statistics)
    d_statistics = _kept(row.g, judge.statistics, d_statistics)
    after = State(d_after, g_after, statistics, d_statistics, state.memory)
    if state.memory:
        now = remembered(tricks, now_of(after, made.detach()), around)
        after = after._replace(memory=_kept(row.g, now, state.memory))
    return after, loss_d.detach(), loss_g.detach(), d_norm, g_norm


def generated(
    g: Network,
    parameters: list[Tensor],
    latents: Tensor,
    statistics: Statistics,
    labels: Tensor | None,
    tricks: Sequence[Stacked] = (),
    around: Around | None = None,
) -> tuple[Tensor, Statistics]:
    """Return G's images (B, R, C, H, W) in training at latents (B, R, length), and its next running statistics."""
    runs, between = latents.shape[1], None
    if around and any_fills(tricks, "g_maps"):

        def between(layer: str, maps: Tensor) -> Tensor:
            own, more = maps.unflatten(1, (runs, -1)).tensor_split(
                [len(latents)]
            )  # a table may append images
            made = apply(tricks, "g_maps", own, around, f"made.{layer}")
            return _like(torch.cat([made, more]), maps)

    made, after = g(
        parameters,
        latents.flatten(1)[:, :, None, None],
        statistics,
        runs,
        train=True,
        labels=labels,
        between=between,
    )
    return made.unflatten(1, (runs, -1)), after


class Judge:
    """D's passes of one step, in their order; `statistics` is what its layers keep from one to the next."""

    def __init__(self, nets: Nets, tricks, around: Around, runs: int, statistics: Statistics, labels) -> None:
        self.nets, self.tricks, self.around, self.runs = nets, tricks, around, runs
        self.statistics, self.labels = statistics, labels
        self.featured = any(trick.cls.features for trick in tricks)
        self._mapped = any_fills(tricks, "d_maps")

    def __call__(
        self, d: list[Tensor], sides: dict[str, Tensor], places: set[str] = frozenset()
    ) -> list[Seen]:
        """Return what D makes of each side's images, which are given before the tricks' `images`.

        The images of sides in `places` want a gradient.
        """
        seen = {
            side: apply(self.tricks, "images", images, self.around, side) for side, images in sides.items()
        }
        seen = {side: x.detach().requires_grad_() if side in places else x for side, x in seen.items()}
        if not self.nets.mixed or len(seen) == 1:
            return [self._one(d, [side], images) for side, images in seen.items()]
        both = self._one(d, list(seen), torch.cat(list(seen.values())))
        logits, features = both.logits.chunk(len(seen)), both.features
        parts = features.chunk(len(seen)) if features is not None else [None] * len(seen)
        return [Seen(*of) for of in zip(seen.values(), logits, parts, strict=True)]

    def between(self, d: list[Tensor], real: Tensor, fake: Tensor) -> Seen:
        """Return what D makes of points drawn evenly on the lines from real images to fakes."""
        share = self.around.noise["between"][..., None, None, None]
        return self._one(d, [], torch.lerp(fake, real, share).requires_grad_())

    def _one(self, d: list[Tensor], sides: list[str], images: Tensor) -> Seen:
        features: list[Tensor] = []

        def between(layer: str, maps: Tensor) -> Tensor:
            after = maps
            if self._mapped and sides:
                parts = maps.unflatten(1, (self.runs, -1)).chunk(len(sides))
                hooked = [
                    apply(self.tricks, "d_maps", part, self.around, f"{side}.{layer}")
                    for side, part in zip(sides, parts, strict=True)
                ]
                after = _like(torch.cat(hooked), maps)
            features[:] = [after]
            return after

        labels = torch.cat([self.labels[side] for side in sides or ["real"]]) if self.labels else None
        made, after = self.nets.d(
            d,
            _fold(images),
            self.statistics,
            self.runs,
            train=True,
            labels=labels,
            between=between if self._mapped or self.featured else None,
        )
        self.statistics = self.statistics | after
        last = features[0].unflatten(1, (self.runs, -1)).flatten(2).to(made.dtype) if features else None
        return Seen(images, made.flatten(1), last if self.featured else None)


def _lost(tricks: Sequence[Stacked], hook: str, loss: Tensor, scores: Scores, around: Around) -> Tensor:
    """Return the losses (R,) after every trick's hook."""
    for trick in tricks:
        if trick.cls.fills(hook):
            axes = Scores(*(None if part is None else 1 for part in scores))
            loss = call(trick, hook, (loss, scores), (0, axes), around)
    return loss


def loss_of_g(tricks: Sequence[Stacked], scores: Scores, around: Around) -> Tensor:
    """Return G's losses (R,)."""
    own = _bce(scores.fake, torch.ones_like(scores.fake))
    return _lost(tricks, "g_loss", own, scores, around)


def _penalties(tricks: Sequence[Stacked], seen: dict[str, Seen | None], around: Around) -> Tensor:
    """Return what the tricks add to D's loss (R,); runs share nothing, so one gradient serves all."""
    total = torch.zeros((), device=around.step.device)
    for place, at in seen.items():
        wanting = [trick for trick in tricks if place in trick.cls.penalty_at]
        if wanting:
            [gradient] = torch.autograd.grad(at.logits.sum(), at.images, create_graph=True)
            for trick in wanting:
                total = total + call(trick, "d_penalty", (gradient.transpose(0, 1),), (0,), around)
    return total


def now_of(state: State, fakes: Tensor) -> Now:
    """Return what tricks may remember of an array's runs, each (R, ...); fakes are (B, R, C, H, W)."""
    runs = len(state.g.parameters)
    parts = [t.reshape(runs, -1) for own in state.statistics.values() for t in own.values()]
    flat = torch.cat(parts, 1) if parts else state.g.parameters[:, :0]
    return Now(state.d.parameters, state.g.parameters, flat, fakes.transpose(0, 1))


def unflattened(flat: Tensor, like: Statistics) -> Statistics:
    """Return running statistics from the rows (R, S) that `now_of` makes of them."""
    sizes = [t.numel() // len(flat) for own in like.values() for t in own.values()]
    parts = iter(flat.split(sizes, 1)) if sizes else iter(())
    return {
        layer: {key: next(parts).reshape(t.shape) for key, t in own.items()} for layer, own in like.items()
    }


def remembered(tricks: Sequence[Stacked], now: Now, around: Around, hook: str = "remember") -> dict[str, Any]:
    """Return every trick's next memory, named in the order of its first, or with hook "memory" that first.

    Raises TypeError where a trick remembers under other names than it began with.
    """
    axes = Now(*([0] * len(now)))
    kept = {}
    for trick in tricks:
        if trick.cls.fills(hook):
            made = call(trick, hook, (now,), (axes,), around)
            first = around.memory.get(trick.name, made)
            if made.keys() != first.keys():
                raise TypeError(f"{trick.name}: remember gives {sorted(made)}, memory {sorted(first)}")
            kept[trick.name] = {key: made[key] for key in first}  # engines find it by its place
    return kept


def _fold(images: Tensor) -> Tensor:
    """Return (B, R, C, H, W) as (B, R*C, H, W), channels last, which the convolutions like best."""
    return images.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def _like(hooked: Tensor, maps: Tensor) -> Tensor:
    """Return (B, R, C, H, W) as the maps (B, R*C, H, W) they were: dtype and order in memory decide over last bits."""
    order = torch.contiguous_format if maps.is_contiguous() else torch.channels_last
    return hooked.flatten(1, 2).to(maps.dtype).contiguous(memory_format=order)


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Return each run's mean over its batch; runs share nothing, so the sum over runs gives each its own
    gradient."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(0)


def leaves(net: Network, flat: Tensor, wanted: bool) -> list[Tensor]:
    """Return the parameters in `flat` (R, P) as layers take them, wanting a gradient or not."""
    return [t.detach().requires_grad_(wanted) for t in net.split(flat)]


def _where(gate: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return `new` where a run's gate (R, 1) is open, else `old`, untouched even by a NaN in `new`."""
    shape = (gate.shape[0], -1)
    return torch.where(gate, new.reshape(shape), old.reshape(shape)).reshape(new.shape)


def _kept(row: AdamRow, new: Any, old: Any) -> Any:
    """Return dicts of dicts of tensors that are `new` for runs that move, and `old` for the others."""
    if row.all_open:
        return new
    return {a: {b: _where(row.open, t, old[a][b]) for b, t in own.items()} for a, own in new.items()}


def _moved(
    player: Player,
    gradients: Sequence[Tensor],
    row: AdamRow,
    optimizer: str,
    tricks: Sequence[Stacked],
    who: str,
    around: Around,
) -> tuple[Player, Tensor]:
    """Return the player after its optimiser's step, where its gate is open, and the norm (R,) of its gradient there."""
    runs = player.parameters.shape[0]
    gradient = torch.cat([g.reshape(runs, -1) for g in gradients], 1)
    norm = torch.where(row.open[:, 0], gradient.norm(dim=1), torch.nan)
    for trick in tricks:
        if trick.cls.fills(f"{who}_gradient"):
            gradient = call(trick, f"{who}_gradient", (gradient, player.parameters), (0, 0), around)
    after = OPTIMIZERS[optimizer](player, gradient, row)
    for trick in tricks:
        if trick.cls.fills(f"{who}_parameters"):
            after = after._replace(
                parameters=call(trick, f"{who}_parameters", (after.parameters,), (0,), around)
            )
    if not row.all_open:
        after = Player(*(_where(row.open, n, o) for n, o in zip(after, player, strict=True)))
    return after, norm


def _adam(player: Player, gradient: Tensor, row: AdamRow) -> Player:
    """Adam (Kingma & Ba 2015), operation for operation as torch.optim.Adam computes it."""
    first = torch.lerp(player.first, gradient, row.weight1)
    second = (player.second * row.beta2).addcmul_(gradient * row.weight2, gradient)
    moved = (row.minus_step * first).div_(second.sqrt().div_(row.root2).add_(1e-8)).add_(player.parameters)
    return Player(moved, first, second)


def _sgd(player: Player, gradient: Tensor, row: AdamRow) -> Player:
    """SGD with beta1 as its momentum, as torch.optim.SGD without dampening."""
    first = player.first * (1 - row.weight1) + gradient
    return Player(player.parameters + row.minus_step * first, first, player.second)


def _rmsprop(player: Player, gradient: Tensor, row: AdamRow) -> Player:
    """RMSProp with beta2 as the decay of its mean square, as torch.optim.RMSprop without momentum."""
    second = (player.second * row.beta2).addcmul_(gradient * row.weight2, gradient)
    moved = player.parameters + row.minus_step * gradient / second.sqrt().add_(1e-8)
    return Player(moved, player.first, second)


OPTIMIZERS = {"adam": _adam, "sgd": _sgd, "rmsprop": _rmsprop}
