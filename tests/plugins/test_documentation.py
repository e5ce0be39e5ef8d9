"""The code of docs/writing_a_plugin.md keeps the contracts that the page describes."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.baselines import ActionFactors, Episodes
from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.plugins.registry import Entry, Registry
from sb3_pg_ext.testing import check

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "writing_a_plugin.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
EXCERPTS = re.findall(r"<!-- in (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
HOOKS = re.compile(r"def (sb3_pg_ext_\w+)\(")


@pytest.mark.parametrize(
    "code", [block for block in BLOCKS if HOOKS.search(block)], ids=lambda code: HOOKS.search(code)[1]
)
def test_what_the_page_registers_keeps_its_contract(code, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "algorithm_plugin")
    namespace = {"__name__": "plugin"}
    exec(code, namespace)
    for spec in namespace[HOOKS.search(code)[1]]():
        check(spec)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_the_baseline_that_sees_actions_takes_every_kind_and_has_no_bias(env, monkeypatch):
    """Of Gaussians ∇E[3·a_0] is 3 in μ_0 and 0 in σ. Of choices ``check`` finds it out."""
    namespace = {"__name__": "plugin"}
    exec(next(block for block in BLOCKS if "class FirstNumber" in block), namespace)
    baseline, rng = namespace["FirstNumber"](scale=3.0), np.random.default_rng(0)
    mean, actions, std = rng.normal(size=(5, 2)), rng.normal(size=(5, 2)), rng.uniform(0.5, 2, (5, 2))
    zeros = np.zeros(5)
    episodes = Episodes(zeros, zeros, zeros, zeros, zeros, actions=actions, policy=ActionFactors((), mean, std))
    of_mean = of_std = 0
    for others, terms in baseline.correction(episodes):
        deviations = (others - mean)[:, 0] / std[:, 0]
        of_mean, of_std = of_mean + terms * deviations / std[:, 0], of_std + terms * (deviations**2 - 1) / std[:, 0]
    np.testing.assert_allclose(of_mean, 3)
    np.testing.assert_allclose(of_std, 0, atol=1e-12)
    (spec,) = namespace["sb3_pg_ext_baselines"]()
    monkeypatch.setattr("sb3_pg_ext.algorithms.reinforce.reinforce.registry", lambda: Registry((Entry(spec, None),)))
    kwargs = {"baseline": spec.name, "baseline_kwargs": {"scale": 3.0}, "n_episodes": 1, "device": "cpu"}
    model = REINFORCE("MlpPolicy", env, **kwargs).learn(1)
    buffer = model.rollout_buffer
    np.testing.assert_array_equal(buffer.advantages, buffer.returns - 3 * buffer.actions[..., 0].astype(np.float32))


@pytest.mark.parametrize(("file", "shown"), EXCERPTS, ids=[f"{file}, {code[:30]!r}" for file, code in EXCERPTS])
def test_what_the_page_shows_of_an_example_is_in_it(file, shown):
    """Line by line, in the same order. The examples are installed and used in tests of their own."""
    rest = iter((ROOT / file).read_text(encoding="utf-8").splitlines())
    assert [line for line in shown.splitlines() if line and line not in rest] == []


def test_the_page_shows_every_file_of_the_algorithm():
    example = ROOT / "examples" / "algorithm_plugin"
    paths = [path for folder in (example, example / "sb3_pg_ext_spo") for path in folder.iterdir() if path.is_file()]
    files = {path.relative_to(example).as_posix() for path in paths}
    beside = {"README.md", "pyproject.toml", "test_spo.py", "sb3_pg_ext_spo/__init__.py"}
    shown = {file.removeprefix("examples/algorithm_plugin/") for file, _ in EXCERPTS}
    assert files - beside == shown & files


def test_the_build_files_of_both_examples_are_the_same():
    one, other = (ROOT / "examples" / f"{kind}_plugin" / "pyproject.toml" for kind in ("estimator", "algorithm"))
    assert one.read_text(encoding="utf-8") == other.read_text(encoding="utf-8")


def test_the_algorithm_that_is_varied_keeps_its_contract_and_differs():
    blocks = [block for block in BLOCKS if "ClippedREINFORCE" in block]
    namespace = {"__name__": "plugin"}
    exec("\n".join(blocks), namespace)
    namespace["test_it_has_an_effect"]()
    spec = registry().find(AlgorithmSpec, "reinforce")
    check(replace(spec, name="clipped", cls=namespace["ClippedREINFORCE"]))


def test_no_line_of_the_page_is_too_wide():
    lines = enumerate(PAGE.read_text(encoding="utf-8").splitlines(), start=1)
    assert [number for number, line in lines if len(line) > 120] == []


def test_the_page_shows_a_plugin_of_every_kind():
    assert sorted(name for block in BLOCKS for name in HOOKS.findall(block)) == [
        "sb3_pg_ext_algorithms",
        "sb3_pg_ext_algorithms",
        "sb3_pg_ext_baselines",
        "sb3_pg_ext_baselines",
        "sb3_pg_ext_estimators",
    ]
