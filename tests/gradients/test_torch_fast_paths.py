"""What is switched off for speed is switched on again, and what is done in its place gives the same."""

import inspect
import io

import pytest
import torch as th
from torch import nn
from torch.distributions import Categorical, Distribution
from torch.optim import optimizer as torch_optimizer

from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.gradients.torch_fast_paths import HAS_FUSED_ON_CPU, clip_gradients, fused_step, make_step
from sb3_pg_ext.guards.undo import Undo

needs_fused = pytest.mark.skipif(not HAS_FUSED_ON_CPU, reason="this PyTorch has no fused step on the CPU")


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


@needs_fused
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


def parameter_groups(dtype=th.float64):
    """Parameters of two groups, with room for their gradients; one parameter of each, and a whole group, have none."""
    th.manual_seed(0)
    tensors = [th.randn(n, dtype=dtype).requires_grad_() for n in (3, 4, 1, 5, 2, 6)]
    for tensor in tensors[:4]:
        tensor.grad = th.zeros_like(tensor)
    first, second, without = [*tensors[:2], tensors[4]], tensors[2:4], [tensors[5]]
    return [
        {"params": first},
        {"params": second, "lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.3, "eps": 1e-3},
        {"params": without},
    ]


def make_pair(cls, dtype=th.float64, **kwargs):
    return [cls(parameter_groups(dtype), **{"lr": 0.1, **kwargs}) for _ in range(2)]


def tensors_of(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def run(optimizer, step, n=5, start=0):
    """Steps along gradients that depend on the parameters and on time, under a learning rate that changes."""
    for t in range(start, start + n):
        for parameter in tensors_of(optimizer):
            if parameter.grad is not None:
                parameter.grad.copy_((2 * parameter.detach() + t).cos())
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 0.9
        step()


def assert_same_optimizers(one, other):
    """The parameters, the state and the settings."""
    th.testing.assert_close(tensors_of(one), tensors_of(other), rtol=1e-10, atol=1e-12)
    one, other = one.state_dict(), other.state_dict()
    assert one["param_groups"] == other["param_groups"]
    th.testing.assert_close(one["state"], other["state"], rtol=1e-10, atol=1e-12)


KINDS = {
    "Adam": (th.optim.Adam, {}),
    "decaying Adam": (th.optim.Adam, {"weight_decay": 0.1}),
    "AMSGrad": (th.optim.Adam, {"amsgrad": True}),
    "ascending Adam": (th.optim.Adam, {"maximize": True, "eps": 1e-2}),
    "Adam that was fused": (th.optim.Adam, {"fused": True}),
    "AdamW": (th.optim.AdamW, {"weight_decay": 0.1}),
    "AdamW with AMSGrad": (th.optim.AdamW, {"amsgrad": True, "betas": (0.5, 0.7)}),
}
if "decoupled_weight_decay" in inspect.signature(th.optim.Adam).parameters:
    KINDS["Adam that decays as AdamW"] = th.optim.Adam, {"weight_decay": 0.1, "decoupled_weight_decay": True}
each_kind = pytest.mark.parametrize(("cls", "kwargs"), KINDS.values(), ids=KINDS.keys())


@needs_fused
@each_kind
def test_a_plain_optimizer_is_short_circuited(cls, kwargs):
    ours, _ = make_pair(cls, **kwargs)
    assert make_step(ours) != ours.step


@each_kind
def test_many_steps_are_those_of_the_optimizer(cls, kwargs):
    ours, theirs = make_pair(cls, **kwargs)
    run(ours, make_step(ours), n=20)
    run(theirs, theirs.step, n=20)
    assert_same_optimizers(ours, theirs)
    assert len(ours.state) == 4


def test_many_steps_in_single_precision():
    ours, theirs = make_pair(th.optim.Adam, th.float32)
    run(ours, make_step(ours), n=20)
    run(theirs, theirs.step, n=20)
    th.testing.assert_close(tensors_of(ours), tensors_of(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kwargs", [{}, {"alpha": 0.9, "eps": 1e-3}])
def test_steps_of_rms_prop(kwargs):
    ours, theirs = (
        th.optim.RMSprop([{"params": group["params"], "lr": group.get("lr", 0.1)} for group in groups], **kwargs)
        for groups in (parameter_groups(), parameter_groups())
    )
    run(ours, make_step(ours))
    run(ours, ours.step, start=5)
    run(ours, make_step(ours), start=10)
    run(theirs, theirs.step, n=15)
    assert make_step(ours) != ours.step
    assert_same_optimizers(ours, theirs)


def test_many_steps_within_the_scope_of_fused_steps():
    ours, theirs = make_pair(th.optim.Adam)
    with fused_step(ours):
        run(ours, make_step(ours))
    run(theirs, theirs.step)
    assert_same_optimizers(ours, theirs)


@each_kind
def test_the_optimizer_goes_on_where_its_steps_ended(cls, kwargs):
    ours, theirs = make_pair(cls, **kwargs)
    first = make_step(ours)
    run(ours, first)
    run(ours, ours.step, start=5)
    run(ours, first, start=10)
    run(ours, make_step(ours), start=15)
    run(ours, ours.step, start=20)
    run(theirs, theirs.step, n=25)
    assert_same_optimizers(ours, theirs)


@each_kind
def test_the_state_is_saved_and_loaded(cls, kwargs):
    (ours, theirs), (loaded, _) = make_pair(cls, **kwargs), make_pair(cls, **kwargs)
    run(ours, make_step(ours))
    run(theirs, theirs.step)
    file = io.BytesIO()
    th.save((ours.state_dict(), [p.detach() for p in tensors_of(ours)]), file)
    file.seek(0)
    state, parameters = th.load(file)
    loaded.load_state_dict(state)
    with th.no_grad():
        for parameter, value in zip(tensors_of(loaded), parameters, strict=True):
            parameter.copy_(value)
    assert_same_optimizers(loaded, theirs)
    run(loaded, make_step(loaded), start=5)
    run(theirs, theirs.step, start=5)
    assert_same_optimizers(loaded, theirs)


@pytest.mark.parametrize("new", [False, True], ids=["in mid-training", "before the first step"])
@pytest.mark.parametrize("own_step", [False, True])
def test_a_checkpoint_leads_back(new, own_step):
    models = []
    for _ in range(2):
        th.manual_seed(0)
        models.append(nn.Linear(3, 2))
    for parameter in (p for model in models for p in model.parameters()):
        parameter.grad = th.zeros_like(parameter)
    ours, theirs = (th.optim.Adam(model.parameters(), lr=0.1) for model in models)
    if not new:
        run(ours, make_step(ours))
        run(theirs, make_step(theirs))
    checkpoint = Undo()
    checkpoint.keep([ours], models[0])
    run(ours, make_step(ours), start=100)
    assert checkpoint.distance() > 0.1
    checkpoint.restore()
    for group in ours.param_groups:
        group["lr"] = theirs.param_groups[0]["lr"]
    assert_same_optimizers(ours, theirs)
    run(ours, ours.step if own_step else make_step(ours), start=5)
    run(theirs, theirs.step, start=5)
    th.testing.assert_close(tensors_of(ours), tensors_of(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (th.optim.Adam, {"fused": False}),
        (th.optim.Adam, {"foreach": True}),
        (th.optim.Adam, {"foreach": False}),
        (th.optim.Adam, {"differentiable": True}),
        (th.optim.SGD, {"momentum": 0.9}),
        (th.optim.RMSprop, {"momentum": 0.9}),
        (th.optim.RMSprop, {"centered": True}),
        (th.optim.RMSprop, {"weight_decay": 0.1}),
        (th.optim.RMSprop, {"foreach": False}),
        (OwnAdam, {}),
        (OwnAdam, {"fused": True}),
        pytest.param(th.optim.SGD, {"fused": True}, marks=needs_fused),
    ],
)
def test_others_make_their_own_steps(cls, kwargs):
    optimizer = make_optimizer(cls, **kwargs)
    assert make_step(optimizer) == optimizer.step


def test_one_group_of_its_own_is_enough():
    optimizer, _ = make_pair(th.optim.Adam)
    optimizer.param_groups[1]["foreach"] = False
    assert make_step(optimizer) == optimizer.step


@pytest.mark.parametrize(
    "register",
    [
        lambda optimizer, hook: optimizer.register_step_pre_hook(hook),
        lambda optimizer, hook: optimizer.register_step_post_hook(hook),
        lambda optimizer, hook: torch_optimizer.register_optimizer_step_pre_hook(hook),
        lambda optimizer, hook: torch_optimizer.register_optimizer_step_post_hook(hook),
    ],
    ids=["before", "after", "before any", "after any"],
)
def test_hooks_are_called(register):
    (optimizer, _), calls = make_pair(th.optim.Adam), []
    handle = register(optimizer, lambda *args: calls.append(1))
    try:
        run(optimizer, make_step(optimizer), n=3)
    finally:
        handle.remove()
    assert len(calls) == 3


def test_a_patched_step_is_called():
    (optimizer, _), calls = make_pair(th.optim.Adam), []
    optimizer.step = lambda: calls.append(1)
    run(optimizer, make_step(optimizer), n=3)
    assert len(calls) == 3


def test_a_scheduler_sees_the_steps():
    optimizer = make_optimizer()
    scheduler = th.optim.lr_scheduler.StepLR(optimizer, 1)
    step = make_step(optimizer)
    assert step is optimizer.step  # the scheduler has patched it
    step()
    scheduler.step()  # which would warn if it had seen no step


def test_nothing_to_step():
    optimizer = make_optimizer()
    before = [p.detach().clone() for p in tensors_of(optimizer)]
    step = make_step(optimizer)
    step()
    step()
    th.testing.assert_close([p.detach() for p in tensors_of(optimizer)], before)
