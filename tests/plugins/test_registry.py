import pytest

from sb3_pg_ext.plugins import AlgorithmSpec, BaselineSpec, Entry, EstimatorSpec, Failure, Provider, Registry

PROVIDER = Provider("some", "some-package", "3.1")
SPECS = [
    EstimatorSpec("upgo", object),
    EstimatorSpec("gae", object),
    BaselineSpec("gae", object),
    AlgorithmSpec("npg", object, "npg.yml", "npg:sampler", "npg:converter"),
]


@pytest.fixture
def registry():
    failure = Failure(Provider("bad", "bad-package", "0.1"), ImportError("no torch"))
    return Registry(tuple(Entry(spec, PROVIDER) for spec in SPECS), (failure,))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_a_record_is_found_by_kind_and_name(registry, spec):
    assert registry.find(type(spec), spec.name) is spec


def test_names_are_those_of_one_kind_in_order(registry):
    assert registry.names(EstimatorSpec) == ["gae", "upgo"]
    assert registry.names(AlgorithmSpec) == ["npg"]


def test_an_unknown_name_says_what_is_known_and_what_failed(registry):
    with pytest.raises(ValueError, match="estimator") as raised:
        registry.find(EstimatorSpec, "gea")
    assert str(raised.value).splitlines() == [
        "Unknown estimator 'gea'; did you mean 'gae'?",
        "If a saved model names this estimator, the plug-in that provided it is not installed",
        "Known estimators: gae, upgo",
        "plug-in 'bad' of bad-package 0.1 failed to load (ImportError: no torch)",
    ]


def test_a_name_of_another_kind_is_unknown(registry):
    with pytest.raises(ValueError, match=r"Unknown algorithm 'upgo'\nKnown algorithms: npg"):
        registry.find(AlgorithmSpec, "upgo")


def test_an_empty_registry_knows_no_name():
    with pytest.raises(ValueError, match=r"(?s)Unknown baseline 'mean'\n.*\nKnown baselines: none"):
        Registry(()).find(BaselineSpec, "mean")


def test_a_record_is_found_by_its_factory():
    specs = [EstimatorSpec("one", int), BaselineSpec("two", float), EstimatorSpec("again", int)]
    found = Registry(tuple(Entry(spec, PROVIDER) for spec in (*specs, SPECS[-1])))
    assert found.find_by_factory(EstimatorSpec, int) is specs[0]
    assert found.find_by_factory(BaselineSpec, float) is specs[1]
    assert found.find_by_factory(EstimatorSpec, float) is None
    assert found.find_by_factory(BaselineSpec, object) is None
