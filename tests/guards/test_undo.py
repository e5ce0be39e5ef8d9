"""A way back from single steps of optimisers."""

import copy

import pytest
import torch as th
from torch import nn

from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.guards import undo as module_under_test
from sb3_pg_ext.guards.undo import Undo

OPTIMIZERS = {
    "Adam": th.optim.Adam,
    "AMSGrad": lambda parameters, lr: th.optim.Adam(parameters, lr, amsgrad=True),
    "SGD": th.optim.SGD,
    "momentum": lambda parameters, lr: th.optim.SGD(parameters, lr, momentum=0.9),
    "NAdam": th.optim.NAdam,
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


@pytest.fixture(autouse=True, params=["NumPy", "PyTorch"])
def _way(request, monkeypatch):
    """How memory is copied and checked: PyTorch does it where not everything is on the CPU."""
    if request.param == "PyTorch":
        monkeypatch.setattr(module_under_test, "_arrays", lambda tensors: [])


def make_networks(make):
    """Two networks with an optimiser each, the first with running statistics."""
    th.manual_seed(0)
    module = nn.ModuleList([nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(3, 2)])
    return module, [make(part.parameters(), lr=0.1) for part in module]


def step(module, optimizers):
    x = th.randn(5, 3)
    for part, optimizer in zip(module, optimizers, strict=True):
        optimizer.zero_grad()
        part(x).square().sum().backward()
        optimizer.step()


def everything(module, optimizers):
    return copy.deepcopy((module.state_dict(), [optimizer.state_dict() for optimizer in optimizers]))


@each_optimizer
@pytest.mark.parametrize("n_before", [0, 1, 3])
@pytest.mark.parametrize("n_undone", [1, 2])
def test_everything_is_put_back(make, n_before, n_undone):
    module, optimizers = make_networks(make)
    undo = Undo()
    for _ in range(n_before):
        undo.keep(optimizers, module)
        step(module, optimizers)
    before = everything(module, optimizers)
    undo.keep(optimizers, module)
    for _ in range(n_undone):
        step(module, optimizers)
    assert not th.equal(module[1].weight, before[0]["1.weight"])
    undo.restore()
    th.testing.assert_close(everything(module, optimizers), before, rtol=0, atol=0)
    step(module, optimizers)
    undo.restore()
    th.testing.assert_close(everything(module, optimizers), before, rtol=0, atol=0)


@each_optimizer
def test_steps_after_one_that_was_undone_are_the_same(make):
    trained = []
    for undone in (False, True):
        module, optimizers = make_networks(make)
        undo = Undo()
        for n in range(4):
            state = th.get_rng_state()
            undo.keep(optimizers, module)
            step(module, optimizers)
            if undone and n in (0, 2):
                undo.restore()
                th.set_rng_state(state)
                step(module, optimizers)
        trained.append(everything(module, optimizers))
    th.testing.assert_close(*trained, rtol=0, atol=0)


def test_another_optimizer_and_other_parameters():
    module, optimizers = make_networks(th.optim.Adam)
    undo = Undo()
    undo.keep(optimizers, module)
    step(module, optimizers)
    module[1] = nn.Linear(3, 2)
    optimizers = [optimizers[0], th.optim.SGD(module[1].parameters(), lr=0.1)]
    before = everything(module, optimizers)
    undo.keep(optimizers, module)
    step(module, optimizers)
    undo.restore()
    th.testing.assert_close(everything(module, optimizers), before, rtol=0, atol=0)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e20])
def test_parameters_without_a_finite_norm_are_refused(number):
    module, optimizers = make_networks(th.optim.SGD)
    undo = Undo()
    undo.keep(optimizers, module)
    undo.check()
    with th.no_grad():
        module[1].bias[1] = number
    with pytest.raises(NonFiniteError, match=r"norm of the parameters (inf|nan)"):
        undo.check()


def test_masks_may_be_infinite():
    """They are statistics, not parameters."""
    module, optimizers = make_networks(th.optim.SGD)
    module[1].register_buffer("mask", th.tensor([0.0, -float("inf")]))
    undo = Undo()
    undo.keep(optimizers, module)
    undo.check()


def test_the_distance():
    module, optimizers = make_networks(th.optim.SGD)
    undo = Undo()
    undo.keep(optimizers, module)
    with th.no_grad():
        module[0][0].bias[0] += 3
        module[1].weight[1, 2] -= 4
    assert undo.distance() == pytest.approx(5, rel=1e-6)
