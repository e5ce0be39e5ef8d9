import pytest

from sb3_pg_ext.plugins import AlgorithmSpec, Entry, EstimatorSpec, Provider, Registry, registry
from sb3_pg_ext.testing import check, checking

ENTRIES = registry().entries


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(
            entry.spec,
            id=f"{entry.spec.kind}-{entry.spec.name}",
            marks=[pytest.mark.slow] if isinstance(entry.spec, AlgorithmSpec) else [],
        )
        for entry in ENTRIES
    ],
)
def test_everything_registered_keeps_its_contract(spec):
    check(spec)


def test_a_registered_name_and_parameters_are_enough():
    check("n_step", n=3)


def test_a_record_may_be_of_a_class_of_its_own():
    class Record(EstimatorSpec):
        """Of a plug-in that adds something."""

    check(Record("gae", registry().find(EstimatorSpec, "gae").factory))
    with pytest.raises(AssertionError, match="does not keep its contract"):
        check(Record("nothing", lambda: lambda rollout: None))


def test_wrong_parameters_are_no_matter_of_the_contract():
    with pytest.raises(ValueError, match="n=0; allowed"):
        check("n_step", n=0)


def test_an_unknown_name_says_what_is_known_of_every_kind():
    with pytest.raises(ValueError, match=r"Unknown name 'n_stepp'; did you mean 'n_step'\?") as raised:
        check("n_stepp")
    for name in ("gae", "mean", "reinforce"):
        assert name in str(raised.value)


def test_a_name_of_several_kinds_stands_for_all_of_them(monkeypatch):
    checked = []
    other = Entry(EstimatorSpec("mean", object), Provider("some", "some-package", "1.0"))
    monkeypatch.setattr(checking, "registry", lambda: Registry((*ENTRIES, other)))
    finders = {kind: lambda spec, kind=kind: checked.append(kind.kind) or [] for kind in checking.FAILURE_FINDERS}
    monkeypatch.setattr(checking, "FAILURE_FINDERS", finders)
    check("mean")
    assert checked == ["estimator", "baseline"]
