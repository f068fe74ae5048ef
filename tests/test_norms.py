"""Layers of bench/norms.py and the tricks made of them, against torch.nn and against formulas written out again."""

import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench import norms, plan
from bench.errors import Refused
from bench.networks import BatchNorm, Conv, ConvTranspose, LeakyReLU, Network, discriminator, generator
from bench.recipe import Recipe
from bench.trick import At, make, ordered

SMALL = Recipe(channels=4, noise_length=8)
CLASSES = 3


def randn(*shape: int, key: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(key))


def parameters(net: Network, runs: int) -> torch.Tensor:
    """Rows (R, P) that differ from run to run, far enough from the start for every part to matter."""
    return randn(runs, net.size(), key=7) * 0.3 + 0.2


def computed(net, flat, x, runs, train=True, labels=None, statistics=None):
    if statistics is None:
        statistics = net.statistics(runs)
    kept = {name: {key: t.double() for key, t in own.items()} for name, own in statistics.items()}
    return net(net.split(flat), x, kept, runs, train, labels)


def table_of(name: str, hook: str, recipe: Recipe = SMALL, size: int = 16, **values) -> tuple:
    table = (discriminator if hook == "d_layers" else generator)(recipe, size, 1)
    return getattr(make(name, values), hook)(table)


LAYERS = {
    "layer": (norms.GroupNorm("n", 6, 1),),
    "group": (norms.GroupNorm("n", 6, 3),),
    "instance": (norms.GroupNorm("n", 6, 6),),
    "spectral": (norms.SpectralConv("n", 6, 5, 3, 2, 1, True),),
    "spectral_transposed": (norms.SpectralConvTranspose("n", 6, 5, 3, 2, 1, True, extra=1),),
    "spectral_dense": (norms.SpectralDense("n", 6, 5, bias=True),),
    "spectral_up": (norms.SpectralUpConv("n", 6, 5, bias=True, kind="pixel_shuffle"),),
    "stddev": (norms.MinibatchStddev("n", 4),),
    "stddev_whole": (norms.MinibatchStddev("n", 3),),
    "discrimination": (norms.MinibatchDiscrimination("n", 6 * 16, 7, 2),),
    "virtual": (norms.VirtualBatchNorm("n", 6, 3),),
    "reference": (norms.AppendReference("n", 3),),
    "conditional": (norms.ConditionalBatchNorm("n", 6, classes=CLASSES),),
    "projection": (norms.Projection("n", norms.SpectralConv("n", 6, 1, 4, 1, 0), CLASSES),),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_run_meets_its_own_numbers_only(name):
    size = 1 if name in ("reference", "spectral_dense") else 4
    net = Network(LAYERS[name], (6, size, size))
    x, labels = randn(8, 2 * 6, size, size), torch.arange(16).reshape(8, 2) % CLASSES
    flat = parameters(net, 2) if net.entries() else randn(2, 0)
    together, after = computed(net, flat, x, 2, labels=labels)
    for r in range(2):
        own = x.unflatten(1, (2, -1))[:, r]
        alone, kept = computed(net, flat[r : r + 1], own, 1, labels=labels[:, r : r + 1])
        torch.testing.assert_close(together.unflatten(1, (2, -1))[:, r], alone, rtol=0, atol=1e-12)
        for key, t in kept.get("n", {}).items():
            torch.testing.assert_close(after["n"][key].chunk(2)[r], t, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_the_shape_that_a_layer_promises_is_the_shape_it_makes(name):
    size = 1 if name in ("reference", "spectral_dense") else 4
    net = Network(LAYERS[name], (6, size, size))
    flat = parameters(net, 1) if net.entries() else randn(1, 0)
    made, _ = computed(net, flat, randn(8, 6, size, size), 1, labels=torch.zeros(8, 1, dtype=torch.int64))
    assert tuple(made.shape[1:]) == net.output()


@pytest.mark.parametrize("name", LAYERS)
def test_maps_in_bfloat16_come_out_in_bfloat16_and_about_right(name):
    size = 1 if name in ("reference", "spectral_dense") else 4
    exact, half = (Network(LAYERS[name], (6, size, size), c) for c in ("", "bfloat16"))
    flat = parameters(exact, 1).float() if exact.entries() else randn(1, 0).float()
    x, labels = randn(8, 6, size, size).float(), torch.zeros(8, 1, dtype=torch.int64)
    a, b = (
        net(net.split(flat), x, net.statistics(1), 1, train=True, labels=labels)[0] for net in (exact, half)
    )
    assert b.dtype == torch.float32
    torch.testing.assert_close(a, b, rtol=0.05, atol=0.05 * float(a.abs().max()))
    [layer] = LAYERS[name]
    split = (
        dict(zip((e.name for e in half.entries()), half.split(flat), strict=True)) if half.entries() else {}
    )
    given = {k: v.to(torch.bfloat16) if v.dim() > 1 else v for k, v in split.items()}
    buffers = half.statistics(1).get("n", {}) | {"labels": labels}
    assert layer.forward(x.bfloat16(), given, buffers, 1, True).dtype == torch.bfloat16


@pytest.mark.parametrize(("kind", "groups"), [("layer", 1), ("instance", 6), ("group", 3)])
def test_a_group_norm_is_that_of_torch(kind, groups):
    net = Network(LAYERS[kind], (6, 4, 4))
    flat, x = parameters(net, 1), randn(5, 6, 4, 4)
    theirs = nn.GroupNorm(groups, 6, dtype=torch.float64)
    theirs.weight.data, theirs.bias.data = flat[0, :6], flat[0, 6:]
    torch.testing.assert_close(computed(net, flat, x, 1)[0], theirs(x), rtol=0, atol=1e-12)
    plain = {"layer": (1, 2, 3), "instance": (2, 3)}.get(kind)
    if plain:
        own = (x - x.mean(plain, keepdim=True)) / (x.var(plain, correction=0, keepdim=True) + 1e-5).sqrt()
        own = own * flat[0, :6, None, None] + flat[0, 6:, None, None]
        torch.testing.assert_close(theirs(x), own, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [4, 7, 11, 12, 64])
def test_groups_are_the_most_up_to_eight_that_divide_the_channels(channels):
    table = table_of("normalization", "g_layers", replace(SMALL, channels=channels), 32, g="group")
    for layer in (x for x in table if isinstance(x, norms.GroupNorm)):
        assert layer.channels % layer.groups == 0
        assert layer.groups <= 8
        assert all(layer.channels % n for n in range(layer.groups + 1, 9))


def test_none_is_what_the_network_without_batch_norm_is():
    for hook, key in (("d_layers", "d"), ("g_layers", "g")):
        none = table_of("normalization", hook, **{key: "none"})
        assert none == table_of("batch_norm", hook, **{key: False})


def test_a_group_of_one_number_is_refused():
    with pytest.raises(Refused, match="layer n: 6 groups of one number each have no variance"):
        Network(LAYERS["instance"], (6, 1, 1)).output()


@pytest.mark.parametrize("transposed", [False, True])
def test_spectral_norm_is_that_of_torch_pass_after_pass(transposed):
    [layer] = LAYERS["spectral_transposed" if transposed else "spectral"]
    net, x = Network((layer,), (6, 4, 4)), randn(3, 6, 4, 4)
    flat = parameters(net, 1)
    kind, more = (nn.ConvTranspose2d, {"output_padding": 1}) if transposed else (nn.Conv2d, {})
    theirs = kind(6, 5, 3, 2, 1, dtype=torch.float64, **more)
    torch.nn.utils.parametrizations.spectral_norm(theirs)
    [hook] = theirs.parametrizations.weight
    kept = {name: {k: t.double() for k, t in own.items()} for name, own in net.statistics(1).items()}
    hook._u.copy_(kept["n"]["u"])
    hook._v.copy_(kept["n"]["v"])
    for number in range(4):
        flat = (flat + 0.05 * randn(*flat.shape, key=number)).detach().requires_grad_()
        weight, bias = net.split(flat)
        theirs.parametrizations.weight.original.data = weight.detach().clone()
        theirs.bias.data = bias.detach().clone()
        theirs.train(number < 3)
        before = {k: t.clone() for k, t in kept["n"].items()}
        made, after = net([weight, bias], x, kept, 1, train=number < 3)
        expected = theirs(x)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
        [ours] = torch.autograd.grad(made.square().sum(), flat)
        wanted = torch.autograd.grad(
            expected.square().sum(), [theirs.parametrizations.weight.original, theirs.bias]
        )
        torch.testing.assert_close(ours[0], torch.cat([t.flatten() for t in wanted]), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(after["n"]["u"], hook._u, rtol=0, atol=1e-12)
        torch.testing.assert_close(after["n"]["v"], hook._v, rtol=0, atol=1e-12)
        assert all(torch.equal(kept["n"][k], t) for k, t in before.items())  # never in place
        kept = after


@pytest.mark.parametrize("kept", [True, False])
def test_the_largest_singular_value_is_one_after_many_passes(kept):
    [layer] = LAYERS["spectral"]
    net = Network((replace(layer, padding=0, stride=1),), (6, 3, 3))
    flat = parameters(net, 2)
    statistics = (
        {k: {n: t.double() for n, t in v.items()} for k, v in net.statistics(2).items()} if kept else {}
    )
    each = (
        torch.eye(54, dtype=torch.float64).reshape(54, 6, 3, 3).repeat(1, 2, 1, 1)
    )  # its images are W's columns
    for _ in range(50 if kept else 1):
        made, statistics = net(net.split(flat), each, statistics, 2, train=True)
    for r in range(2):
        columns = made.unflatten(1, (2, -1))[:, r, :, 0, 0] - net.split(flat)[1].unflatten(0, (2, -1))[r]
        assert abs(torch.linalg.matrix_norm(columns, 2) - 1) < 0.05


@pytest.mark.parametrize("name", [name for name in LAYERS if name.startswith("spectral")])
def test_a_spectral_layer_is_the_plain_one_with_its_weight_over_the_largest_singular_value(name):
    [layer] = LAYERS[name]
    size = 1 if name == "spectral_dense" else 4
    plain = Network((type(layer).__mro__[2](**vars(layer)),), (6, size, size))
    assert not plain.statistics(1)
    flat, x = parameters(plain, 1), randn(3, 6, size, size)
    net, kept = Network((layer,), (6, size, size)), None
    for _ in range(100):
        made, kept = computed(net, flat, x, 1, statistics=kept)
    weight, bias = plain.split(flat)
    matrix = weight.transpose(0, 1) if isinstance(layer, ConvTranspose) else weight
    weight = weight / torch.linalg.matrix_norm(matrix.flatten(1), 2)
    wanted, _ = plain([weight, bias], x, {}, 1, train=True)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-6)


def test_spectral_norm_replaces_the_batch_norm_of_d_and_leaves_that_of_g():
    d, g = (table_of("spectral_norm", hook, g=True) for hook in ("d_layers", "g_layers"))
    assert not any(isinstance(layer, BatchNorm) for layer in d)
    assert any(isinstance(layer, BatchNorm) for layer in g)
    for table in (d, g):
        assert all("u" in layer.buffers() for layer in table if isinstance(layer, Conv))
    assert [layer.bias for layer in d if isinstance(layer, Conv)] == [False, True, False]
    kept = Network(d, (1, 16, 16)).statistics(2, sampling=False)
    assert set(kept) == {layer.name for layer in d if isinstance(layer, Conv)}
    with pytest.raises(Refused, match="layer odd: there is no spectral norm of a Odd"):
        norms.spectral((Odd("odd", 1, 1),))


class Odd(Conv):
    """A convolution that norms.py does not know."""


def stddev(x: torch.Tensor, group: int) -> torch.Tensor:
    """The number of every image, from the published code: a reshape to (group, B / group, ...)."""
    y = x.reshape(group, -1, *x.shape[1:])
    y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt() - 1e-4
    return y.mean((1, 2, 3)).repeat(group)


@pytest.mark.parametrize(("name", "group"), [("stddev", 4), ("stddev_whole", 8)])
def test_the_stddev_map_is_that_of_the_published_code(name, group):
    net, x = Network(LAYERS[name], (6, 4, 4)), randn(8, 6, 4, 4)
    made = LAYERS[name][0].forward(x, {}, {}, 1, True)
    assert torch.equal(made[:, :6], x)
    torch.testing.assert_close(
        made[:, 6], stddev(x, group)[:, None, None].expand(8, 4, 4), rtol=0, atol=1e-12
    )
    assert net.output() == (7, 4, 4)


def test_equal_images_have_no_deviation_and_a_finite_gradient():
    x = randn(1, 6, 4, 4).expand(8, -1, -1, -1).clone().requires_grad_()
    made = LAYERS["stddev"][0].forward(x, {}, {}, 1, True)[:, 6]
    assert torch.equal(made, torch.zeros_like(made))
    [gradient] = torch.autograd.grad(made.sum(), x)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_nearness_is_the_plain_double_loop():
    net, x = Network(LAYERS["discrimination"], (6, 4, 4)), randn(5, 6, 4, 4)
    flat = parameters(net, 1) * 0.1
    made = computed(net, flat, x, 1)[0][:, :, 0, 0]
    m = (x.flatten(1) @ flat.view(96, 14)).view(5, 7, 2)
    for i in range(5):
        for b in range(7):
            wanted = sum(torch.exp(-(m[i, b] - m[j, b]).abs().sum()) for j in range(5))
            torch.testing.assert_close(made[i, 96 + b], wanted, rtol=0, atol=1e-12)
    assert torch.equal(made[:, :96], x.flatten(1))


def test_virtual_batch_norm_is_the_mean_over_the_reference_and_the_image():
    net, x = Network(LAYERS["virtual"], (6, 4, 4)), randn(8, 6, 4, 4)
    flat = parameters(net, 1)
    scale, shift = flat[0, :6, None], flat[0, 6:, None]
    made = computed(net, flat, x, 1)[0].flatten(2)
    live, reference = x[:5].flatten(2), x[5:].flatten(2)
    for i in range(5):  # means and means of squares as the authors' code combines them
        mean = (live[i].mean(1) + 3 * reference.mean((0, 2))) / 4
        square = (live[i].square().mean(1) + 3 * reference.square().mean((0, 2))) / 4
        wanted = (live[i] - mean[:, None]) / (square - mean**2 + 1e-5).sqrt()[:, None] * scale + shift
        torch.testing.assert_close(made[i], wanted, rtol=0, atol=1e-12)
    alone = F.batch_norm(x[5:], None, None, flat[0, :6], flat[0, 6:], True)
    torch.testing.assert_close(made[5:], alone.flatten(2), rtol=0, atol=1e-12)


def test_a_virtual_batch_norm_generator_makes_an_image_alike_in_any_batch_and_mode():
    table = table_of("virtual_batch_norm", "g_layers", reference=5)
    net = Network(table, (8, 1, 1))
    flat, z = parameters(net, 2), randn(6, 16, 1, 1)
    whole = computed(net, flat, z, 2)[0]
    assert whole.shape == (6, 2, 16, 16)
    torch.testing.assert_close(whole[:2], computed(net, flat, z[:2], 2, train=False)[0], rtol=0, atol=1e-12)
    longer = norms.AppendReference("r", 5).forward(randn(1, 20, 1, 1), {}, {}, 1, True)
    shorter = norms.AppendReference("r", 5).forward(randn(1, 8, 1, 1), {}, {}, 1, True)
    assert torch.equal(longer[1:, :8], shorter[1:])
    with pytest.raises(Refused, match="virtual_batch_norm: G has no BatchNorm"):
        make("virtual_batch_norm", {}).g_layers(table)


def test_the_reference_latents_pass_what_is_done_to_latents():
    table = generator(SMALL, 16, 1)
    for trick in ordered([make("virtual_batch_norm", {}), make("noise_distribution", {})]):
        table = trick.g_layers(table)
    assert isinstance(table[0], norms.AppendReference)
    assert table[1].name == "latents"


def test_conditional_batch_norm_is_batch_norm_with_each_labels_scale_and_shift():
    net, x = Network(LAYERS["conditional"], (6, 4, 4)), randn(8, 6, 4, 4)
    flat, labels = parameters(net, 1), torch.arange(8) % CLASSES
    theirs = nn.BatchNorm2d(6, affine=False, dtype=torch.float64)
    scale, shift = flat.view(2, CLASSES, 6)
    kept = None
    for train in (True, False):
        theirs.train(train)
        made, kept = computed(net, flat, x, 1, train, labels[:, None], kept)
        wanted = theirs(x) * scale[labels][..., None, None] + shift[labels][..., None, None]
        torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(kept["n"]["mean"], theirs.running_mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(kept["n"]["var"], theirs.running_var, rtol=0, atol=1e-12)


def test_the_projection_adds_the_product_of_embedding_and_pooled_maps():
    layer = norms.Projection("n", Conv("n", 6, 1, 4, 1, 0), CLASSES)
    net, x, labels = Network((layer,), (6, 4, 4)), randn(8, 6, 4, 4), torch.arange(8) % CLASSES
    flat = parameters(net, 1)
    weight, embedding = flat[0, :96].view(1, 6, 4, 4), flat[0, 96:].view(CLASSES, 6)
    wanted = F.conv2d(x, weight).flatten() + (embedding[labels] * x.sum((2, 3))).sum(1)
    torch.testing.assert_close(computed(net, flat, x, 1, labels=labels[:, None])[0].flatten(), wanted)
    assert layer.classes == CLASSES
    assert net.labelled


def test_what_looks_at_the_batch_says_so():
    assert {name for name, (layer,) in LAYERS.items() if layer.mixes_batch} == {
        "stddev",
        "stddev_whole",
        "discrimination",
        "conditional",
    }


def test_tricks_at_the_logit_stack_in_one_order():
    names = ("label_conditioning", "minibatch_discrimination", "minibatch_stddev", "spectral_norm")
    stacked = ordered(make(name, {}) for name in names)
    assert [t.name() for t in stacked] == [*names[:0:-1], names[0]]
    for size in (16, 28, 64):
        table = discriminator(SMALL, size, 3)
        for trick in stacked:
            table = trick.d_layers(table)
        net = Network(table, (3, size, size))
        assert net.output() == (1, 1, 1)
        x, labels = randn(4, 3, size, size), torch.zeros(4, 1, dtype=torch.int64)
        assert computed(net, parameters(net, 1), x, 1, labels=labels)[0].shape == (4, 1, 1, 1)


def test_momentum_moves_the_running_statistics_as_torchs_does():
    table = table_of("batch_norm_momentum", "g_layers", g=0.3)
    layer = next(x for x in table if isinstance(x, BatchNorm))
    net, x = Network((layer,), (layer.channels, 4, 4)), randn(8, layer.channels, 4, 4)
    theirs = nn.BatchNorm2d(layer.channels, momentum=0.3, dtype=torch.float64)
    theirs(x)
    kept = computed(net, parameters(net, 1), x, 1)[1][layer.name]
    torch.testing.assert_close(kept["mean"], theirs.running_mean)
    torch.testing.assert_close(kept["var"], theirs.running_var)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("hook", ["d_maps", "g_maps"])
@pytest.mark.parametrize("name", ["dropout", "layer_noise"])
def test_hooks_on_maps_have_each_runs_own_strength_and_keep_the_dtype(name, hook, dtype):
    maps = randn(4, 3, 5, 6, 6).to(dtype)  # (B, R, C, H, W)
    noise = torch.rand(maps.shape, generator=torch.Generator().manual_seed(1)).to(
        torch.float64 if dtype == torch.float64 else torch.float32
    )
    strengths = torch.tensor([0.0, 0.5, 0.25]).to(noise)
    cls = type(make(name, {}))

    def one(strength, x, drawn):
        trick = object.__new__(cls)
        trick.__dict__.update({hook[0]: strength})
        return getattr(trick, hook)(x, At(torch.tensor(0.0), 1, drawn))

    made = torch.vmap(one, (0, 1, 1), 1)(strengths, maps, noise)
    assert made.dtype == dtype
    assert torch.equal(made[:, 0], maps[:, 0])  # off
    for r, strength in enumerate(strengths.tolist()):
        if name == "dropout":
            wanted = torch.where(noise[:, r] < strength, 0.0, maps[:, r].double() / (1 - strength))
        else:
            wanted = maps[:, r].double() + strength * noise[:, r].double()
        torch.testing.assert_close(
            made[:, r], wanted.to(dtype), rtol=0, atol=0.05 if noise.dtype != dtype else 1e-12
        )


@pytest.mark.parametrize(
    "name", ["label_conditioning", "spectral_norm", "virtual_batch_norm", "normalization"]
)
def test_a_run_goes_to_a_child_process_with_its_program(name, tiny):
    run = next(r for r in plan.runs(tiny(f"{name}:", seeds=1)) if r.tricks)
    assert run.program.nets.d.size() > 0
    assert pickle.loads(pickle.dumps(run)).program == run.program


def test_a_layer_with_weights_before_batch_norm_gets_the_bias():
    table = (ConvTranspose("up", 2, 3), BatchNorm("norm", 3), LeakyReLU("relu"))
    assert norms.replaced(table, lambda x: None) == (ConvTranspose("up", 2, 3, bias=True), LeakyReLU("relu"))
