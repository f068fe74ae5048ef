"""Tapes of plain functions: what is replayed, what is refused, what is let go."""

import pytest
import torch
import torch.nn.functional as F

from bench.tape import Unrecordable, record


def through_autograd(x: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
    leaf = w.detach().requires_grad_()
    made = F.batch_norm(F.conv2d(x, leaf, padding=1), None, None, training=True).relu()
    [slope] = torch.autograd.grad(made.square().mean() + torch.vmap(torch.linalg.norm)(leaf).sum(), leaf)
    unused = made.exp()  # nobody reads it
    del unused
    return [w - slope, made.detach(), x]


def random(seed: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 5, 5, generator=draw), torch.randn(4, 3, 3, 3, generator=draw)]


def test_a_tape_makes_of_other_inputs_what_the_function_makes_of_them():
    first = random(0)
    made, tape = record(lambda: through_autograd(*first), first)
    for one, other in zip(made, through_autograd(*first), strict=True):
        assert torch.equal(one, other)
    for seed in range(1, 4):
        inputs = random(seed)
        with torch.no_grad():
            replayed = tape(inputs)
        for one, other in zip(replayed, through_autograd(*inputs), strict=True):
            assert torch.equal(one, other)
        assert replayed[2] is inputs[0]


def test_what_nobody_reads_is_not_computed_and_constants_are_kept():
    x, table = torch.arange(3.0), torch.tensor([1.0, 2.0, 3.0])

    def function():
        (x + 5).exp()
        return [x * table + torch.tensor(2.0)]

    _, tape = record(function, [x])
    called = {str(tape.__globals__.get(name)) for name in tape.__code__.co_names}
    assert called & {"aten.mul.Tensor", "aten.exp.default"} == {"aten.mul.Tensor"}
    assert torch.equal(tape([torch.ones(3)])[0], table + 2)


def test_memory_that_is_used_again_is_another_tensor():
    """Each result is let go before the next is made, so most lie where another lay."""

    def function(total):
        for i in range(20):
            total = (total + i).view(10, 100).t().reshape(-1)
        return [total]

    x, y = torch.ones(1000), torch.arange(1000.0)
    _, tape = record(lambda: function(x), [x])
    assert torch.equal(tape([y])[0], function(y)[0])


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, k: [x + torch.randn(3)], "draws random numbers"),
        (lambda x, k: [F.dropout(x, 0.5)], "draws random numbers"),
        (lambda x, k: [x * x.sum().item()], "asks for a tensor's value"),
        (lambda x, k: [x[x > 1]], "depends on values"),
        (lambda x, k: [x.add_(1)], "changes an input or a constant"),
        (lambda x, k: [x[1:].mul_(2)], "changes an input or a constant"),
        (lambda x, k: [x + k, k.add_(1)], "changes an input or a constant"),
        (lambda x, k: [(x + 1).unsqueeze_(0)], "changes a tensor's shape in place"),
    ],
)
def test_what_a_replay_could_not_do_again_is_refused(function, reason):
    x, k = torch.arange(3.0), torch.ones(3)
    with pytest.raises(Unrecordable, match=reason):
        record(lambda: function(x, k), [x])


def test_a_choice_by_numbers_is_replayed():
    x, at = torch.arange(3.0), torch.tensor([0, 2])
    _, tape = record(lambda: [x[at]], [x, at])
    assert torch.equal(tape([x + 1, torch.tensor([1, 1])])[0], torch.tensor([2.0, 2.0]))


def test_inputs_that_share_memory_are_refused():
    x = torch.arange(3.0)
    with pytest.raises(Unrecordable, match="share memory"):
        record(lambda: [x + x], [x, x.view(3, 1)])
