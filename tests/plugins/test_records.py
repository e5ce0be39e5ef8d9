from pathlib import Path

import pytest

from sb3_pg_ext.plugins import AlgorithmSpec, BaselineSpec, EstimatorSpec


@pytest.mark.parametrize("name", ["", None, 3])
@pytest.mark.parametrize(
    "record",
    [
        lambda name: EstimatorSpec(name, object),
        lambda name: BaselineSpec(name, object),
        lambda name: AlgorithmSpec(name, object, "config.yml", "module:sampler", "module:converter"),
    ],
)
def test_a_name_is_a_string(record, name):
    with pytest.raises(ValueError, match=f"name={name!r}; allowed: a string that is not empty"):
        record(name)


@pytest.mark.parametrize("requires", ["truncation", ["truncation"], {"truncation"}, frozenset({"true_end"})])
def test_requirements_are_a_frozenset_of_known_ones(requires):
    with pytest.raises(ValueError, match=r"requires=.*allowed: .*raw_rewards.*target_log_probs.*truncation"):
        EstimatorSpec("name", object, requires)


def test_records_are_values():
    assert EstimatorSpec("gae", object) == EstimatorSpec("gae", object, frozenset())
    assert EstimatorSpec("gae", object) != BaselineSpec("gae", object)


@pytest.mark.parametrize("record", [EstimatorSpec, BaselineSpec])
def test_a_factory_can_be_called(record):
    with pytest.raises(ValueError, match="factory=3; allowed: a callable"):
        record("name", 3)


def test_an_algorithm_is_a_class():
    with pytest.raises(ValueError, match="cls='PPO'; allowed: a class"):
        AlgorithmSpec("name", "PPO", "config.yml", "module:sampler", "module:converter")


def test_a_configuration_is_a_path():
    AlgorithmSpec("name", object, Path("config.yml"), "module:sampler", "module:converter")
    with pytest.raises(ValueError, match="config=None; allowed: a path, 'package:file', or a list of them"):
        AlgorithmSpec("name", object, None, "module:sampler", "module:converter")


@pytest.mark.parametrize("config", [[], ["config.yml", None], [3]])
def test_or_a_list_of_paths(config):
    spec = AlgorithmSpec("name", object, ["first.yml", Path("second.yml")], "module:sampler", "module:converter")
    assert spec.configs == ["first.yml", Path("second.yml")]
    with pytest.raises(ValueError, match=r"config=\[.*allowed: a path, 'package:file', or a list of them"):
        AlgorithmSpec("name", object, config, "module:sampler", "module:converter")
