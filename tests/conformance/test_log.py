"""What is logged: under SB3's own names, and finite."""

import csv
import json
import math
import re
from numbers import Number
from pathlib import Path

from stable_baselines3.common.logger import configure

from .algorithms import STEPS, Algorithm, record

COMMON = {
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "time/fps",
    "time/time_elapsed",
    "time/total_timesteps",
    "train/learning_rate",
    "train/n_updates",
}
OF_THIS_PACKAGE = {
    "rollout/n_dropped",
    "rollout/reward_mean",
    "time/update_seconds",
    "train/grad_norm",
    "train/n_skipped",
    "train/td_error_mean",
    "train/td_error_std",
}
OF_UPDATES_OF_ROLLOUTS = {
    "train/advantage_mean",
    "train/advantage_std",
    "train/explained_variance",
    "train/grad_norm",
    "train/kl",
    "train/step_norm",
}
OF_OWN_POLICY_GRADIENTS = {
    "train/advantage_mean",
    "train/advantage_std",
    "train/explained_variance",
    "train/kl",
    "train/std",
    "train/step_norm",
    "train/value_loss",
}
SB3S_OWN = {"train/approx_kl", "train/clip_fraction", "train/kl_divergence_loss"}
DOCUMENTATION = (Path(__file__).parents[2] / "docs/logging.md").read_text(encoding="utf-8")
NOT_PRINTED = {
    "a3c": {"workers/fps_0"},
    "acktr": {
        *(f"train/{name}" for name in ("natural_grad_norm", "critic_scale", "curvature_condition")),
        *(f"time/{part}_seconds" for part in ("factors", "eigen", "step", "critic")),
        "train/n_skipped_factors",
    },
    "impala": {"workers/fps_0"},
    "npg": {"train/policy_objective", "train/natural_grad_norm", "train/cg_steps", "train/cg_breakdown"},
    "ppo_kl": {
        *("kl/epoch_1", "kl/epoch_2"),
        *(f"train/ratio_{statistic}" for statistic in ("mean", "std", "min", "max")),
        *(f"train/clip_fraction_{clip_range}" for clip_range in (0.1, 0.2, 0.3)),
    },
}
"""By algorithm; counters at 0 come on top."""


def test_logs_what_sb3_logs_and_what_this_package_adds(algorithm: Algorithm):
    model = algorithm()
    records = record(model)
    model.learn(4 * STEPS, log_interval=1)
    expected = COMMON | OF_THIS_PACKAGE | {"time/episodes" if algorithm.spec.off_policy else "time/iterations"}
    expected |= {"train/q_max"} if algorithm.spec.off_policy else {"train/entropy_loss"}
    if algorithm.has_own_constructor and not algorithm.spec.off_policy:
        expected |= OF_OWN_POLICY_GRADIENTS
    if algorithm.spec.name == "fast_trpo" and algorithm.device == "cuda":  # by the stock update
        expected.remove("train/grad_norm")
    if algorithm.traits.online:
        expected -= OF_UPDATES_OF_ROLLOUTS
    assert expected <= records.latest.keys()


def test_every_key_is_documented(algorithm: Algorithm):
    """Those of the stock algorithms are documented by SB3."""
    model = algorithm()
    records = record(model)
    model.learn(4 * STEPS, log_interval=1)
    documented = {re.sub("<.>", "1", key) for key in re.findall("`([^`]+)`", DOCUMENTATION)}
    keys = {re.sub(r"(epoch|fps|clip_fraction)_[\d.]+$", r"\1_1", key) for key in records.latest}
    undocumented = keys - documented
    assert undocumented <= (set() if algorithm.has_own_constructor else SB3S_OWN)


def test_everything_logged_is_a_finite_number(algorithm: Algorithm):
    model = algorithm()
    records = record(model)
    model.learn(4 * STEPS, log_interval=1)
    for key, value in (item for logged in records.dumps for item in logged.items()):
        assert isinstance(value, Number), key
        assert math.isfinite(value), key


def printed_keys(table: str) -> set[str]:
    """The keys of tables as SB3 prints them: a group's name, and indented under it what is in the group."""
    keys, group = set(), ""
    for line in table.splitlines():
        if line.startswith("| "):
            name = line.split("|")[1].rstrip()
            if name.endswith("/"):
                group = name.strip()
            else:
                keys.add(group + name.strip())
    return keys


def test_details_and_counters_at_zero_are_in_every_file_but_not_printed(algorithm: Algorithm, tmp_path, capsys):
    model = algorithm()
    model.set_logger(configure(str(tmp_path), ["stdout", "log", "csv", "json"]))
    capsys.readouterr()
    model.learn(4 * STEPS, log_interval=1)
    model.logger.close()
    with open(tmp_path / "progress.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    counters = {
        key
        for key in ("rollout/n_dropped", "train/n_skipped", "workers/n_stale", "workers/restarts")
        if key in rows[-1]
    }
    assert {row[key] for row in rows for key in counters} <= {"0", ""}
    assert counters >= {"rollout/n_dropped", "train/n_skipped"}
    for table in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        assert rows[-1].keys() - printed_keys(table) == counters | NOT_PRINTED.get(algorithm.spec.name, set())
    with open(tmp_path / "progress.json") as file:
        assert {key for line in file for key in json.loads(line)} == rows[-1].keys()
