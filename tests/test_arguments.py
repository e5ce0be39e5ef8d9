"""Each error names the argument, its value and what is allowed."""

import re

import numpy as np
import pytest

from sb3_pg_ext.arguments import (
    check_choice,
    check_count,
    check_flag,
    check_positive,
    check_range,
    check_schedule,
)


def refuses(check, *args, message, **kwargs):
    with pytest.raises(ValueError, match=message):
        check(*args, **kwargs)


def test_choices():
    check_choice("returns", "total", ("total", "reward_to_go"))
    refuses(check_choice, "returns", "totals", ("total", "x"), message=r"returns='totals' \(did you mean 'total'\?\);")
    refuses(check_choice, "returns", "?", ("total", "x"), message=r"returns='\?'; allowed: 'total', 'x'$")
    refuses(check_choice, "returns", None, ("total", "x"), message="returns=None; allowed")


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_within_a_range(value):
    check_range("gamma", value, 0, 1)


@pytest.mark.parametrize(
    "value", [-1e-9, 1.0001, float("nan"), float("inf"), "0.5", True, np.False_, None, [0.5], 0.5j]
)
def test_outside_a_range(value):
    refuses(check_range, "gamma", value, 0, 1, message=rf"gamma={re.escape(repr(value))}; allowed: \[0, 1\]$")


def test_open_ranges():
    check_range("vf_coef", 1e9, 0)
    check_range("ent_coef", -1e9)
    refuses(check_range, "ent_coef", float("inf"), message="ent_coef=inf; allowed: a number$")
    refuses(check_range, "vf_coef", float("inf"), 0, message="vf_coef=inf; allowed: a number ≥ 0$")
    refuses(check_range, "vf_coef", -1, 0, message="vf_coef=-1; allowed: a number ≥ 0$")
    refuses(check_range, "ent_coef", float("nan"), message="ent_coef=nan; allowed: a number$")


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_counts(value):
    check_count("n_steps", value)


@pytest.mark.parametrize("value", [0, -1, 1.0, 2.5, True, np.True_, "3", None, float("nan")])
def test_no_counts(value):
    refuses(check_count, "n_steps", value, message=f"n_steps={value!r}; allowed: an integer ≥ 1$")


def test_counts_from_another_number_on():
    check_count("n", 0, low=0)
    refuses(check_count, "n", 1, low=2, message="n=1; allowed: an integer ≥ 2$")


@pytest.mark.parametrize("value", [1e-9, 1, np.float32(0.5)])
def test_positive_numbers(value):
    check_positive("target_kl", value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True, np.True_, None])
def test_not_positive(value):
    refuses(check_positive, "target_kl", value, message=rf"target_kl={value!r}; allowed: a number > 0$")


def test_schedules():
    check_schedule("clip_range", 0.2)
    check_schedule("clip_range", lambda remaining: 0.2 * remaining)
    refuses(check_schedule, "clip_range", "lin_0.2", message="clip_range='lin_0.2'; allowed: a number > 0$")
    refuses(
        check_schedule, "clip_range", lambda remaining: -remaining, message="clip_range=-1.0; allowed: a number > 0"
    )


@pytest.mark.parametrize("value", [True, False, np.bool_(True)])
def test_flags(value):
    check_flag("normalize_advantage", value)


@pytest.mark.parametrize("value", ["no", 0, 1, None, float("nan")])
def test_no_flags(value):
    refuses(
        check_flag, "normalize_advantage", value, message=rf"normalize_advantage={value!r}; allowed: True or False$"
    )
