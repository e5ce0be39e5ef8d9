"""What is switched off for speed is switched on again."""

import pytest
import torch as th
from torch.distributions import Categorical, Distribution

from sb3_pg_ext.common.lean import HAS_FUSED_ON_CPU, clip_gradients, fused_step, unvalidated_distributions


class Interruption(Exception):
    """Something goes wrong within the scope."""


def test_distributions_are_not_validated_within_the_scope():
    with unvalidated_distributions():
        Categorical(logits=th.tensor([float("nan"), 0.0]))
    with pytest.raises(ValueError, match="logits"):
        Categorical(logits=th.tensor([float("nan"), 0.0]))


@pytest.mark.parametrize("before", [True, False])
def test_validation_is_put_back(before):
    usual = Distribution._validate_args
    Distribution.set_default_validate_args(before)
    try:
        with pytest.raises(Interruption), unvalidated_distributions():
            raise Interruption
        assert Distribution._validate_args == before
    finally:
        Distribution.set_default_validate_args(usual)


def make_optimizer(cls=th.optim.Adam, **kwargs):
    th.manual_seed(0)
    return cls([th.randn(3, requires_grad=True), th.randn(4, requires_grad=True)], lr=0.1, **kwargs)


def settings(optimizer):
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


@pytest.mark.skipif(not HAS_FUSED_ON_CPU, reason="this PyTorch has no fused step on the CPU")
@pytest.mark.parametrize("cls", [th.optim.Adam, th.optim.AdamW])
def test_the_step_is_fused_within_the_scope(cls):
    optimizer = make_optimizer(cls)
    before = settings(optimizer)
    with fused_step(optimizer):
        assert all(group["fused"] for group in optimizer.param_groups)
    assert settings(optimizer) == before
    with pytest.raises(Interruption), fused_step(optimizer):
        raise Interruption
    assert settings(optimizer) == before


class OwnAdam(th.optim.Adam):
    """A subclass may step otherwise."""


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (th.optim.Adam, {"fused": False}),
        (th.optim.Adam, {"foreach": True}),
        (th.optim.Adam, {"foreach": False}),
        (th.optim.Adam, {"differentiable": True}),
        (th.optim.SGD, {}),
        (th.optim.RMSprop, {}),
        (OwnAdam, {}),
    ],
)
def test_what_a_user_chose_is_left_alone(cls, kwargs):
    optimizer = make_optimizer(cls, **kwargs)
    before = settings(optimizer)
    with fused_step(optimizer):
        assert settings(optimizer) == before
    assert settings(optimizer) == before


def test_the_fused_step_is_the_same_step():
    plain, fused = make_optimizer(), make_optimizer()
    for _ in range(5):
        for optimizer in (plain, fused):
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad = parameter.detach().cos()
        plain.step()
        with fused_step(fused):
            fused.step()
    # The two go on with each other's state.
    exchanged = make_optimizer()
    exchanged.load_state_dict(fused.state_dict())
    for one, other in zip(plain.param_groups[0]["params"], fused.param_groups[0]["params"], strict=True):
        th.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    assert exchanged.state_dict()["param_groups"] == plain.state_dict()["param_groups"]


@pytest.mark.parametrize("max_norm", [0.5, 1e3, None])
def test_gradients_are_clipped_as_pytorch_does(max_norm):
    ours, theirs = (list(make_optimizer().param_groups[0]["params"]) for _ in range(2))
    for parameters in (ours, theirs):
        for parameter in parameters:
            parameter.grad = parameter.detach() ** 2
    norm = clip_gradients([*ours, th.zeros(3)], max_norm)
    limit = float("inf") if max_norm is None else max_norm
    th.testing.assert_close(norm, th.nn.utils.clip_grad_norm_(theirs, limit))
    for one, other in zip(ours, theirs, strict=True):
        th.testing.assert_close(one.grad, other.grad)


def test_the_norm_of_bad_gradients_tells():
    parameter = th.zeros(2, requires_grad=True)
    parameter.grad = th.tensor([1.0, float("nan")])
    assert clip_gradients([parameter], 0.5).isnan()
