"""The comparison of PPO's surrogates, on a miniature."""

import json

import numpy as np
import ppo_surrogates
import pytest
from ppo_surrogates import PUBLISHED, RANDOM, SETTINGS, annealed, interval, normalized, resampled, table, verdict

pytest.importorskip("mujoco")
TASK, OTHER = "InvertedPendulum-v4", "Reacher-v4"
CLIPPING, ADAPTIVE = "clipping, ε = 0.2", "adaptive KL, target 0.01"


def run(setting, env_id, seed, score):
    return {"setting": setting, "env": env_id, "seed": seed, "score": score}


def chosen(*runs):
    return {(each["setting"], each["env"], each["seed"]): each for each in runs}


EXAMPLE = chosen(
    run(RANDOM, TASK, 0, 10.0),
    run(RANDOM, OTHER, 0, -40.0),
    *(run(CLIPPING, TASK, seed, score) for seed, score in enumerate((110.0, 60.0))),
    *(run(CLIPPING, OTHER, seed, score) for seed, score in enumerate((-20.0, -30.0))),
    *(run(ADAPTIVE, TASK, seed, score) for seed, score in enumerate((60.0, 10.0))),
    *(run(ADAPTIVE, OTHER, seed, score) for seed, score in enumerate((-40.0, 0.0))),
    run("fixed KL, β = 1", TASK, 0, 1e6),
)


def test_scores_lie_between_random_actions_and_the_best_run():
    scores = normalized(EXAMPLE)
    assert scores.keys() == {CLIPPING, ADAPTIVE}  # the third one is not complete
    np.testing.assert_allclose(scores[CLIPPING], [[1, 0.5], [0.5, 0.25]])
    np.testing.assert_allclose(scores[ADAPTIVE], [[0.5, 0], [0, 1]])


def test_bootstrap():
    samples = resampled(np.array([[0.0, 1.0, 5.0]]), np.random.default_rng(0))
    assert set(np.round(samples * 3).astype(int)) == {0, 1, 2, 3, 5, 6, 7, 10, 11, 15}
    assert samples.mean() == pytest.approx(2, abs=0.05)
    assert interval(resampled(np.full((3, 2), 0.5), np.random.default_rng(0))) == (0.5, 0.5)


def test_the_verdict_is_cautious():
    scores = {CLIPPING: np.array([[0.8, 1.0, 0.9]])}
    scores |= {ADAPTIVE: np.array([[0.85, 0.95, 0.9]]), "no clipping or penalty": np.array([[0.1, 0.2, 0.0]])}
    scores |= {"fixed KL, β = 1": np.array([[1.8, 2.0, 1.9]])}
    lines = verdict(scores).splitlines()
    assert [line.split(f" {CLIPPING}")[0] for line in lines] == [
        f"- {ADAPTIVE} is not to be told apart from",
        "- no clipping or penalty is worse than",
        "- fixed KL, β = 1 is better than",
    ]
    assert "No verdict" in verdict({ADAPTIVE: scores[ADAPTIVE]})


def test_the_learning_rate_would_reach_0_at_a_million_steps():
    assert annealed(300_000, 1.0) == 3e-4
    assert annealed(300_000, 0.0) == pytest.approx(0.7 * 3e-4)
    assert annealed(1_000_000, 0.5) == pytest.approx(1.5e-4)
    assert annealed(1_000_000, 0.0) == 0


def test_the_settings_are_those_of_the_paper():
    assert len(SETTINGS) == 11
    assert (PUBLISHED[CLIPPING], PUBLISHED[ADAPTIVE], PUBLISHED["no clipping or penalty"]) == (0.82, 0.74, -0.39)
    assert f"| {CLIPPING} | 0.56 | " in table(normalized(EXAMPLE))


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_a_miniature_goes_on_where_it_stopped(tmp_path, capsys):
    results, figure = tmp_path / "runs.jsonl", tmp_path / "plot.png"
    arguments = ["--envs", TASK, "--seeds", "0", "--steps", "2048", "--workers", "1", "--results", str(results)]
    ppo_surrogates.main([*arguments, "--settings", CLIPPING])
    first = results.read_text()
    assert [json.loads(line)["setting"] for line in first.splitlines()] == [RANDOM, CLIPPING]
    ppo_surrogates.main([*arguments, "--settings", CLIPPING, ADAPTIVE, "--plot", str(figure)])
    assert results.read_text().startswith(first)
    assert len(results.read_text().splitlines()) == 3
    assert figure.stat().st_size > 0
    output = capsys.readouterr().out
    assert f"| {ADAPTIVE} |" in output
    assert f"- {ADAPTIVE} is " in output
