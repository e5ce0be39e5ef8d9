"""A way back brings everything back, bit by bit, whatever the optimiser."""

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_pg_ext.guards.undo import Undo

OPTIMIZERS = {
    "SGD": th.optim.SGD,
    "momentum": lambda p, lr: th.optim.SGD(p, lr, momentum=0.9),
    "Adam": th.optim.Adam,
    "fused Adam": lambda p, lr: th.optim.Adam(p, lr, fused=True),
    "RMSprop": th.optim.RMSprop,
}


def make_network(optimizer):
    th.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    return network, OPTIMIZERS[optimizer](network.parameters(), lr=0.1)


def keep(network, optimizer):
    undo = Undo()
    undo.keep([optimizer], network)
    return undo


def step(network, optimizer, factor=1.0):
    optimizer.zero_grad()
    (factor * network(th.arange(12.0).reshape(4, 3)).square().sum()).backward()
    optimizer.step()


def state_of(network, optimizer):
    tensors = [tensor.clone() for tensor in network.state_dict().values()]
    for parameter in network.parameters():
        state = optimizer.state.get(parameter, {})
        tensors += [state[key].clone() for key in sorted(state) if th.is_tensor(state[key])]
    return tensors


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("factor", [1.0, float("nan"), float("inf")])
def test_restore(optimizer, steps_before, factor):
    network, optimizer = make_network(optimizer)
    for _ in range(steps_before):
        step(network, optimizer)
    before = state_of(network, optimizer)
    places = [parameter.data_ptr() for parameter in network.parameters()]
    undo = keep(network, optimizer)
    step(network, optimizer, factor)
    assert not all(map(th.equal, before, state_of(network, optimizer)))

    undo.restore()
    after = state_of(network, optimizer)
    assert len(after) == len(before)
    assert all(map(th.equal, before, after))
    assert places == [parameter.data_ptr() for parameter in network.parameters()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_happened(optimizer):
    networks = [make_network(optimizer) for _ in range(2)]
    for disturbed, (network, optim) in enumerate(networks):
        step(network, optim)
        if disturbed:
            undo = keep(network, optim)
            step(network, optim, float("nan"))
            undo.restore()
        step(network, optim)
    assert all(map(th.equal, *(state_of(*network) for network in networks)))


def test_distance():
    network, optimizer = make_network("SGD")
    undo = keep(network, optimizer)
    assert undo.distance() == 0
    with th.no_grad():
        network[0].weight[1, 2] += 3
        network[3].bias -= 4
    np.testing.assert_allclose(undo.distance(), 5, rtol=1e-6)
