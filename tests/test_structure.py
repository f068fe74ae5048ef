"""What every trick makes of the two networks: shapes, products, parameters, runs side by side; then each trick's own
definition against torch.nn and plain formulas."""

import itertools
import math
import pickle
from dataclasses import replace

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench import layers, networks
from bench.errors import Refused
from bench.program import Run
from bench.recipe import Recipe
from bench.spec import Budget, DataSpec
from bench.trick import PLANNED, Trick, make, ordered, registry

NAMES = [name for name, cls in registry().items() if cls.fills(*PLANNED)]
SIZES = (16, 28, 32, 64)
BATCH = 4
LARGE = 48  # of anything that is counted
HEAVY = 5e6  # multiply-adds for one image: a network beyond is not computed here, only built


def levels(name: str) -> list[Trick]:
    """A trick at its defaults, and at each listed value and each end of a range (or as far as is computed here)."""
    made = [make(name, {})]
    for field in registry()[name].card()["fields"]:
        low, high = field["span"] or (0, 0)
        for value in field["among"] or (low, min(high, max(low, LARGE))):
            trick = make(name, {field["name"]: value})
            made += [] if trick in made or trick.is_off else [trick]
    return made


def run_of(*tricks: Trick, size: int = 16, **recipe) -> Run:
    recipe = {"channels": 4, "noise_length": 6, "batch_size": BATCH} | recipe
    data, budget = DataSpec("cifar10", size), Budget("steps", 1)
    return Run("arm", data, Recipe(**recipe), ordered(tricks), budget, 0, "float64", (1.0,))


def parameters(net: networks.Network, seeds) -> torch.Tensor:
    """Parameters (R, P) as runs of these seeds start, with weights large enough to matter."""
    rows = []
    for seed in seeds:
        draws = torch.Generator().manual_seed(seed)

        def draw(purpose, shape, draws=draws):
            return torch.randn(shape, generator=draws, dtype=torch.float64)

        rows.append(net.initial(draw, 0.2).double())
    return torch.stack(rows)


def images(net: networks.Network, runs: int, batch: int = BATCH) -> torch.Tensor:
    return torch.randn(
        batch, runs, *net.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )


def forward(net: networks.Network, flat: torch.Tensor, x: torch.Tensor, train: bool = True):
    """The output (B, R, C, H, W) and the next running statistics of x (B, R, C, H, W)."""
    runs = x.shape[1]
    statistics = net.statistics(runs)
    statistics = {name: {k: t.to(flat.dtype) for k, t in b.items()} for name, b in statistics.items()}
    labels = torch.zeros(len(x), runs, dtype=torch.int64)
    y, after = net(net.split(flat), x.flatten(1, 2), statistics, runs, train, labels)
    return y.unflatten(1, (runs, -1)), after


def products(net: networks.Network, batch: int) -> int:
    with FlopCounterMode(display=False) as counter:
        forward(net, parameters(net, [0]), images(net, 1, batch))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("kernel", [3, 4, 5])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["", *NAMES])
def test_every_value_fits_every_size_and_says_what_it_costs(name, size, kernel):
    for trick in levels(name) if name else [None]:
        run = run_of(*filter(None, [trick]), size=size, kernel=kernel)
        nets = run.program.nets
        assert (nets.g.output(), nets.d.output()) == ((3, size, size), (1, 1, 1))
        for net in (nets.g, nets.d):
            if net.multiply_adds() > HEAVY or (kernel != 4 and size != 16):
                continue
            flat = parameters(net, [0])
            assert flat.shape[1] == net.size() == sum(t.numel() for t in net.split(flat))
            with torch.no_grad():
                assert forward(net, flat, images(net, 1))[0].shape[2:] == net.output()
                # What is paid once a batch, such as a norm of the weights, is in both counts.
                more = products(net, 2 * BATCH) - products(net, BATCH)
            # The row of a label is chosen by a product with a one and zeros, which is none with a weight.
            assert net.multiply_adds() * BATCH == more or net.labelled, trick


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_runs_side_by_side_are_each_run_alone(name, size):
    for trick in levels(name):
        nets = run_of(trick, size=size).program.nets
        for net, train in itertools.product((nets.g, nets.d), (True, False)):
            if net.multiply_adds() > HEAVY / 2:
                continue
            flat, x = parameters(net, [0, 1]), images(net, 2)
            together, after = forward(net, flat, x, train)
            for r in range(2):
                alone, own = forward(net, flat[r : r + 1], x[:, r : r + 1], train)
                torch.testing.assert_close(together[:, r : r + 1], alone, rtol=1e-9, atol=1e-11)
                for layer, kept in own.items():
                    for key, value in kept.items():
                        theirs = after[layer][key].unflatten(0, (2, -1))[r]
                        torch.testing.assert_close(theirs, value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("compute", ["", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_value_computes_in_the_lower_precisions(name, compute):
    for trick in levels(name):
        for net in run_of(trick).program.nets[:2]:
            if net.multiply_adds() > HEAVY / 2:
                continue
            flat, x = parameters(net, [0, 1]).float(), images(net, 2).float()
            flat, x = flat.requires_grad_(), x.requires_grad_()
            y, _ = forward(replace(net, compute=compute), flat, x)
            assert y.dtype == torch.float32
            assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), [flat, x]))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_can_be_sent_to_another_process_with_its_program(name):
    for trick in levels(name):
        run = run_of(trick)
        assert run.program == pickle.loads(pickle.dumps(run)).program == run_of(trick).program


def compatible(a: str, b: str) -> bool:
    one, two = registry()[a], registry()[b]
    return not (b in one.conflicts or a in two.conflicts or one.requires or two.requires)


@pytest.mark.parametrize(("a", "b"), [pair for pair in itertools.combinations(NAMES, 2) if compatible(*pair)])
def test_two_tricks_together_make_networks_that_compute(a, b):
    for number, (one, two) in enumerate(zip(levels(a), itertools.cycle(levels(b)), strict=False)):
        try:
            nets = run_of(one, two).program.nets
        except Refused:  # in words: some values of the two do not fit, but their defaults do
            assert number
            continue
        for net in (nets.g, nets.d):
            names = [layer.name for layer in net.layers]
            assert len(set(names)) == len(names)
            if net.multiply_adds() < HEAVY / 2:
                y, _ = forward(net, parameters(net, [0]), images(net, 1))
                assert y.shape[2:] == net.output()
                assert y.isfinite().all()


# Each trick's own definition.


def tables(*tricks: Trick, **options):
    nets = run_of(*tricks, **options).program.nets
    return nets.d, nets.g


def load(module: nn.Module, flat: torch.Tensor) -> nn.Module:
    """A torch.nn network in double precision with these parameters (P,), in the order of its layers."""
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(flat[: p.numel()].view_as(p))
            flat = flat[p.numel() :]
    assert len(flat) == 0
    return module


def agree(net: networks.Network, module: nn.Module) -> None:
    """A network computes what a torch.nn one does, and its gradients are the same."""
    flat = parameters(net, [3])
    module = load(module, flat[0])
    x = images(net, 1)
    ours, flat = x.clone().requires_grad_(), flat.requires_grad_()
    theirs = x[:, 0].clone().requires_grad_()
    y, z = forward(net, flat, ours)[0][:, 0], module(theirs)
    torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-11)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    [of_x, of_p] = torch.autograd.grad((y * weight).sum(), [ours, flat])
    wanted = torch.autograd.grad((z * weight).sum(), [theirs, *module.parameters()])
    torch.testing.assert_close(of_x[:, 0], wanted[0], rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(of_p[0], torch.cat([g.flatten() for g in wanted[1:]]), rtol=1e-8, atol=1e-9)


def doubling(kind: str, inputs: int, outputs: int) -> list[nn.Module]:
    if kind == "pixel_shuffle":
        return [nn.Conv2d(inputs, 4 * outputs, 3, padding=1, bias=False), nn.PixelShuffle(2)]
    enlarge = nn.Upsample(scale_factor=2, mode=kind, **{"align_corners": False} if kind == "bilinear" else {})
    return [enlarge, nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "pixel_shuffle"])
def test_upsampling_is_what_torch_nn_makes_of_it(kind):
    _, g = tables(make("upsampling", {"kind": kind}))
    agree(
        g,
        nn.Sequential(
            nn.ConvTranspose2d(6, 8, 4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            *doubling(kind, 8, 4),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            *doubling(kind, 4, 3),
            nn.Tanh(),
        ),
    )


@pytest.mark.parametrize("init", list(networks.INITS))
def test_pixel_shuffle_starts_as_an_enlargement(init):
    layer = layers.UpConv("up", 5, 3, kind="pixel_shuffle", init=init)
    net = networks.Network((layer,), (5, 4, 4))
    y, _ = forward(net, parameters(net, [0]), images(net, 1))
    assert torch.equal(y, F.interpolate(y[:, 0, :, ::2, ::2], scale_factor=2)[:, None])
    one = parameters(networks.Network((layers.UpConv("up", 5, 3, init=init),), (5, 4, 4)), [0])
    assert parameters(net, [0]).std().item() == pytest.approx(one.std().item(), rel=0.25)


def test_dense_nets_are_what_torch_nn_makes_of_them():
    d, g = tables(make("fully_connected", {"size": 7, "layers": 2}))
    inner = [nn.Linear(7, 7), nn.ReLU()]
    last = [nn.Linear(7, 3 * 16 * 16), nn.Unflatten(1, (3, 16, 16)), nn.Tanh()]
    agree(g, nn.Sequential(nn.Flatten(), nn.Linear(6, 7), nn.ReLU(), *inner, *last))
    hidden = [nn.Linear(3 * 16 * 16, 7), nn.LeakyReLU(0.2), nn.Linear(7, 7), nn.LeakyReLU(0.2)]
    agree(d, nn.Sequential(nn.Flatten(), *hidden, nn.Linear(7, 1), nn.Unflatten(1, (1, 1, 1))))


def strided(inputs: int, outputs: int, *norm: nn.Module, slope: float = 0.2) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(slope)]


def test_a_dense_layer_stands_on_the_convolutions_or_before_them():
    d, g = tables(make("dense_layer", {"g": True, "size": 5}))
    hidden = [nn.Linear(8 * 16, 5, bias=False), nn.BatchNorm1d(5), nn.LeakyReLU(0.2)]
    logit = [nn.Linear(5, 1, bias=False), nn.Unflatten(1, (1, 1, 1))]
    agree(d, nn.Sequential(*strided(3, 4), *strided(4, 8, nn.BatchNorm2d(8)), nn.Flatten(), *hidden, *logit))
    agree(
        g,
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(6, 5, bias=False),
            nn.BatchNorm1d(5),
            nn.ReLU(),
            nn.Unflatten(1, (5, 1, 1)),
            nn.ConvTranspose2d(5, 8, 4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        ),
    )


def test_depth_adds_a_convolution_at_each_resolution():
    d, g = tables(make("depth", {"d": 1, "g": 2}))

    def more(c: int, activation: nn.Module) -> list[nn.Module]:
        return [nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), activation]

    leaky, relu = nn.LeakyReLU(0.2), nn.ReLU()
    agree(
        d,
        nn.Sequential(
            *strided(3, 4),
            *more(4, leaky),
            *strided(4, 8, nn.BatchNorm2d(8)),
            *more(8, leaky),
            nn.Conv2d(8, 1, 4, bias=False),
        ),
    )
    agree(
        g,
        nn.Sequential(
            nn.ConvTranspose2d(6, 8, 4, bias=False),
            nn.BatchNorm2d(8),
            relu,
            *more(8, relu),
            *more(8, relu),
            nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(4),
            relu,
            *more(4, relu),
            *more(4, relu),
            nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        ),
    )


def test_without_batch_norm_a_bias_stands_in_its_place_whatever_the_layer():
    d, _ = tables(
        make("batch_norm", {"d": False}),
        make("dense_layer", {"size": 5}),
        make("pooling", {}),
        make("depth", {}),
    )
    biased = [layer.name for layer in d.layers if getattr(layer, "bias", False)]
    assert biased == ["down1_more1", "down2", "down2_more1", "dense"]
    _, g = tables(make("batch_norm", {}), make("upsampling", {"kind": "pixel_shuffle"}))
    shuffle = [nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(2)]
    last = [*doubling("pixel_shuffle", 4, 3), nn.Tanh()]
    agree(g, nn.Sequential(nn.ConvTranspose2d(6, 8, 4), nn.ReLU(), *shuffle, nn.ReLU(), *last))


def test_the_range_of_images_is_one_factor_for_both_networks():
    d, g = tables(make("output_range", {}))
    plain_d, plain_g = tables()
    at_d, at_g = parameters(plain_d, [0]), parameters(plain_g, [0])
    z, x = images(g, 1), images(d, 1)
    made = forward(g, at_g, z)[0]
    assert made.abs().max() <= 1
    logits = torch.atanh(forward(plain_g, at_g, z)[0])
    torch.testing.assert_close((made + 1) / 2, torch.sigmoid(logits))
    torch.testing.assert_close(forward(d, at_d, x)[0], forward(plain_d, at_d, (x + 1) / 2)[0])


def test_latents_have_the_distribution_they_are_said_to_have():
    z = torch.randn(20_000, 1, 6, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rank = scipy.stats.norm.cdf(z.numpy())
    for kind, wanted in (
        ("uniform", scipy.stats.uniform(-1, 2)),
        ("uniform_unit", scipy.stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))),
        ("truncated", scipy.stats.truncnorm(-2, 2)),
    ):
        net = networks.Network((layers.Latents("latents", kind),), (6, 1, 1))
        made, _ = net([], z.flatten(1, 2), {}, 1, True)
        torch.testing.assert_close(made.view(z.shape), torch.from_numpy(wanted.ppf(rank)))
        assert made.var().item() == pytest.approx(wanted.var(), rel=0.02)
        far = torch.tensor([[-40.0, 40.0, 0.0]])[:, :, None, None]
        for dtype in (torch.float32, torch.bfloat16):
            ends, _ = net([], far.to(dtype), {}, 1, True)
            assert ends.isfinite().all()
            torch.testing.assert_close(
                ends.flatten()[1].item(), float(wanted.support()[1]), rtol=0.01, atol=0
            )


def test_the_scale_of_latents_is_nothing_to_a_generator_with_batch_norm():
    (_, a), (_, b) = (tables(make("noise_distribution", {"kind": k})) for k in ("uniform", "uniform_unit"))
    flat, z = parameters(a, [0]), images(a, 1)
    torch.testing.assert_close(forward(a, flat, z)[0], forward(b, flat, z)[0], rtol=0, atol=1e-3)


def test_neutral_values_are_the_published_network():
    published = tables()
    for name, values in (
        ("activation", {"d": 0.2, "g": 0.0}),
        ("width", {"d": 1.0, "g": 1.0}),
        ("constant_width", {"d": 0}),
        ("depth", {"d": 0}),
        ("dense_layer", {"d": False}),
        ("kernel_size", {"size": 4}),
        ("batch_norm", {"g": True}),
    ):
        assert tables(make(name, values)) == published, name


def test_widths_are_those_of_the_hidden_maps_alone():
    def widths(net):
        return [layer.outputs for layer in net.layers if isinstance(layer, networks.Conv)]

    d, g = tables(make("width", {"d": 1.5, "g": 0.25}), size=32)
    assert (widths(d), widths(g)) == ([6, 12, 24, 1], [4, 2, 1, 3])
    wide, narrow = tables(channels=6, size=32)[0], tables(channels=1, size=32)[1]
    assert (d, g) == (wide, narrow)
    d, g = tables(make("constant_width", {"d": 5, "g": 9}), make("dense_layer", {"size": 7}), size=32)
    assert (widths(d), widths(g)) == ([5, 5, 5, 7, 1], [9, 9, 9, 3])


@pytest.mark.parametrize("kind", ["xavier", "kaiming", "orthogonal"])
def test_weights_start_as_torch_nn_init_starts_them(kind):
    fill = {
        "xavier": nn.init.xavier_normal_,
        "kaiming": nn.init.kaiming_normal_,
        "orthogonal": nn.init.orthogonal_,
    }[kind]
    d, g = tables(make("initialization", {"kind": kind}), channels=16, noise_length=64)
    for net in (d, g):
        weights = [e for e in net.entries() if e.name == "weight" and len(e.normal.shape) > 1]
        for entry in weights:
            flat = parameters(net, [0])[0, entry.start : entry.end].view(entry.normal.shape)
            wanted = fill(torch.empty(entry.normal.shape, dtype=torch.float64))
            assert flat.std().item() == pytest.approx(wanted.std().item(), rel=0.15), entry.layer
            if kind == "orthogonal":
                rows = flat.flatten(1)
                rows = rows if len(rows) <= rows.shape[1] else rows.T
                torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64))


def test_a_kernel_changes_neither_shapes_nor_anything_but_the_kernel():
    for size in (3, 5):
        ours, theirs = tables(make("kernel_size", {"size": size})), tables(kernel=size)
        assert ours == theirs


def test_sampling_in_float32_computes_what_torchs_own_functions_do():
    draw = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(8, 6, 5, 5, generator=draw)
    p, b = (
        {key: torch.rand(6, generator=draw) for key in keys} for keys in (("weight", "bias"), ("mean", "var"))
    )
    ours = networks.BatchNorm("n", 3).forward(x, p, b, 2, False)
    assert torch.allclose(
        ours, F.batch_norm(x, b["mean"], b["var"], p["weight"], p["bias"]), rtol=1e-5, atol=1e-5
    )
    assert torch.allclose(networks.Tanh("t").forward(x, {}, {}, 2, False), x.tanh(), rtol=0, atol=3e-7)
