"""NaN and infinity never reach the parameters, and an infinite KL makes the penalty stronger."""

import pytest
import torch as th

from .models import make_model, pretend_kl


def state_of(model):
    """Parameters and optimiser state, copied."""
    moments = [value.clone() for state in model.policy.optimizer.state.values() for value in state.values()]
    return [p.detach().clone() for p in model.policy.parameters()] + moments


def assert_same(one, other):
    assert len(one) == len(other)
    assert all(th.equal(old, new) for old, new in zip(one, other, strict=True))


@pytest.mark.parametrize(("number", "factor"), [("inf", 2), ("nan", 1)])
def test_an_update_with_a_bad_kl_is_undone(monkeypatch, number, factor):
    model = make_model().learn(16)
    before, beta = state_of(model), model.current_kl_coef
    with monkeypatch.context() as patch:
        pretend_kl(patch, lambda: float(number))
        with pytest.warns(RuntimeWarning, match=rf"KL\(old‖new\) {number}; update skipped, parameters unchanged"):
            model.learn(16, reset_num_timesteps=False)
    assert_same(before, state_of(model))
    assert model.current_kl_coef == factor * beta
    assert (model.n_skipped_updates, model._n_updates) == (1, 1)
    model.learn(16, reset_num_timesteps=False)
    assert model._n_updates == 2


@pytest.mark.parametrize("recompute_advantages", [False, True])
@pytest.mark.parametrize("kl_coef", [0.0, 1.0])
def test_a_step_into_infinity_is_taken_back(kl_coef, recompute_advantages):
    rate = 1e-3
    model = make_model(
        learning_rate=lambda _: rate, kl_coef=kl_coef, adaptive_kl=False, recompute_advantages=recompute_advantages
    ).learn(16)
    before = state_of(model)
    rate = float("inf")
    with pytest.warns(RuntimeWarning, match="update skipped, parameters unchanged .1 in a row"):
        model.learn(16, reset_num_timesteps=False)
    assert_same(before, state_of(model))
    rate = 1e-3
    model.learn(16, reset_num_timesteps=False)
    assert not th.equal(before[0], state_of(model)[0])


def test_bad_losses_are_noticed_even_if_kl_is_good(monkeypatch):
    pretend_kl(monkeypatch, lambda: 0.01)
    model = make_model(learning_rate=lambda left: 1e-3 if left == 1 else float("inf"))
    with pytest.warns(RuntimeWarning, match="norm of the gradient nan; update skipped"):
        model.learn(16)
    assert model._n_updates == 0


@pytest.mark.filterwarnings("ignore:.*skipped:RuntimeWarning")
def test_the_third_in_a_row_ends_the_training():
    model = make_model(learning_rate=lambda left: 1e-3 if left == 1 else float("inf"))
    before = state_of(model)
    with pytest.raises(ValueError, match=r"AdaptiveKLPPO after 48 steps: .*3 in a row"):
        model.learn(1000)
    assert_same(before, state_of(model))
