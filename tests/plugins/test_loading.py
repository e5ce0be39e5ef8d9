import subprocess
import sys

import pytest

from sb3_pg_ext.plugins import EstimatorSpec, Provider, load_registry, loading, registry


def estimators(*names, of="object"):
    """The source of a plug-in with these estimators."""
    records = "".join(f"    yield EstimatorSpec({name!r}, {of})\n" for name in names)
    return f"@hookimpl\ndef sb3_pg_ext_estimators():\n{records}"


FAILED = r"plug-in 'broken' of broken-package 1.2 failed to load \((?s:.*)"
BROKEN = {
    "import error": ("import no_such_module", "ModuleNotFoundError.*no_such_module"),
    "exit on import": ("raise SystemExit('bye')", "SystemExit: bye"),
    "no hook": ("def sb3_pg_ext_estimators(): yield EstimatorSpec('fake', object)", "is @hookimpl missing"),
    "misspelt hook": ("@hookimpl\ndef sb3_pg_ext_estimator(): return []", "unknown hook 'sb3_pg_ext_estimator'"),
    "hook with an argument": ("@hookimpl\ndef sb3_pg_ext_estimators(registry): return []", "registry"),
    "not iterable": ("@hookimpl\ndef sb3_pg_ext_estimators(): return 7", "TypeError"),
    "returned instead of yielded": (
        "@hookimpl\ndef sb3_pg_ext_estimators(): return EstimatorSpec('fake', object)",
        r"sb3_pg_ext_estimators returned EstimatorSpec\(.*; allowed: an iterable of EstimatorSpec: yield it",
    ),
    "nothing": ("@hookimpl\ndef sb3_pg_ext_estimators(): pass", "sb3_pg_ext_estimators returned None; allowed"),
    "an error of its own kind on import": ("class Bye(BaseException): pass\nraise Bye('now')", "Bye: now"),
    "no factory": (
        "@hookimpl\ndef sb3_pg_ext_estimators():\n    yield EstimatorSpec('fake', 3)",
        "factory=3; allowed: a callable",
    ),
    "wrong type": (
        "@hookimpl\ndef sb3_pg_ext_estimators():\n"
        "    yield EstimatorSpec('fake', object)\n    yield BaselineSpec('fake', object)",
        "yielded BaselineSpec.*; allowed: EstimatorSpec",
    ),
    "wrong record": (
        "@hookimpl\ndef sb3_pg_ext_estimators():\n    yield EstimatorSpec('fake', object, {'true_end'})",
        "requires={'true_end'}; allowed",
    ),
    "raises while consumed": (estimators("fake") + "    raise KeyError('late')", "KeyError: 'late'"),
    "a message that cannot be read": (
        "class Mute(Exception):\n    def __str__(self): raise KeyError\nraise Mute",
        r"Mute, whose message cannot be read \(KeyError\)",
    ),
    "asks for the registry": (
        "@hookimpl\ndef sb3_pg_ext_estimators():\n    load_registry()\n    return []",
        "RuntimeError: what is registered is not known while plug-ins are loaded",
    ),
    "one name twice": (estimators("fake", "fake"), "provides the estimator 'fake' twice"),
    "a built-in name": (estimators("fake", "gae"), "claims the estimator 'gae', which is built in"),
}


def test_a_good_plugin_is_found_with_its_provider(install):
    install("good", estimators("fake"))
    loaded = load_registry()
    assert loaded.find(EstimatorSpec, "fake") == EstimatorSpec("fake", object)
    assert not loaded.failures
    entry = loaded.entries[-1]
    assert (entry.spec.kind, entry.spec.name) == ("estimator", "fake")
    assert entry.provider == Provider("good", "good-package", "1.2")


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_fails_as_a_whole_and_alone(install, source, reason):
    install("broken", source)
    install("good", estimators("works"))
    with pytest.warns(UserWarning, match=FAILED + reason) as warned:
        loaded = load_registry()
    assert len(warned) == 1
    assert [failure.provider for failure in loaded.failures] == [Provider("broken", "broken-package", "1.2")]
    names = loaded.names(EstimatorSpec)
    assert "fake" not in names
    assert {"gae", "works"} <= set(names)
    with pytest.raises(ValueError, match=rf"Unknown estimator 'fake'(?s:.*){FAILED}{reason}"):
        loaded.find(EstimatorSpec, "fake")


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN)
def test_strict_raises_the_error_of_the_plugin(install, monkeypatch, source, reason):
    monkeypatch.setenv("SB3_PG_EXT_STRICT", "1")
    install("broken", source)
    with pytest.raises(RuntimeError, match=FAILED + reason) as raised:
        load_registry()
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("metadata", [None, "Metadata-Version: 2.1\nName: half-package\n"])
def test_what_an_interrupted_uninstall_leaves_harms_nothing(install, tmp_path, metadata):
    info = tmp_path / "half_package-1.2.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[sb3_pg_ext]\nhalf = no_longer_there\n")
    if metadata:
        (info / "METADATA").write_text(metadata)
    install("good", estimators("works"))
    with pytest.warns(UserWarning, match=r"plug-in 'half' of .* without a version failed to load \(ModuleNotFound"):
        loaded = load_registry()
    assert loaded.find(EstimatorSpec, "works")
    assert all(isinstance(part, str) for failure in loaded.failures for part in vars(failure.provider).values())


def test_a_name_of_two_packages_is_an_error_only_when_used(install):
    install("one", estimators("fake", "first"))
    install("two", estimators("fake", "second"))
    loaded = load_registry()
    assert loaded.find(EstimatorSpec, "first")
    assert loaded.find(EstimatorSpec, "second")
    both = "'fake' is provided by plug-in 'one' of one-package 1.2 and by plug-in 'two' of two-package 1.2"
    with pytest.raises(ValueError, match=both):
        loaded.find(EstimatorSpec, "fake")


def test_one_name_may_stand_for_things_of_two_kinds(install):
    install("good", estimators("mean"))
    assert load_registry().find(EstimatorSpec, "mean").factory is object


@pytest.mark.parametrize("value", ["wanted", "other, wanted", "Wanted_Package", "wanted-package"])
def test_the_allow_list_names_plugins_or_packages(install, monkeypatch, value):
    install("wanted", estimators("fake"))
    install("unwanted", "import no_such_module")
    monkeypatch.setenv("SB3_PG_EXT_LOAD_PLUGINS", value)
    loaded = load_registry()
    assert {"fake", "gae"} <= set(loaded.names(EstimatorSpec))
    assert loaded.skipped == (Provider("unwanted", "unwanted-package", "1.2"),)
    with pytest.raises(ValueError, match=r"'unwanted'.* was not loaded: SB3_PG_EXT_LOAD_PLUGINS leaves it out"):
        loaded.find(EstimatorSpec, "missing")


def test_an_empty_allow_list_leaves_what_is_built_in(install, monkeypatch):
    install("good", estimators("fake"))
    monkeypatch.setenv("SB3_PG_EXT_LOAD_PLUGINS", "")
    assert "fake" not in (names := load_registry().names(EstimatorSpec))
    assert "gae" in names


def test_strict_takes_a_switch(monkeypatch):
    monkeypatch.setenv("SB3_PG_EXT_STRICT", "yes")
    with pytest.raises(ValueError, match=r"SB3_PG_EXT_STRICT='yes'; allowed: 1 .* and 0"):
        load_registry()


def test_a_checkout_that_is_not_installed_reads_its_setup_cfg(monkeypatch):
    installed = load_registry()
    monkeypatch.setattr(loading, "entry_points", lambda group: [])
    assert load_registry() == installed


def test_the_registry_is_loaded_once():
    assert registry() is registry()


def test_importing_the_package_loads_no_plugin_and_not_numba():
    code = "import sys, sb3_pg_ext, sb3_pg_ext.zoo.bridge, sb3_pg_ext.plugins as p"
    code += "; assert p.registry.cache_info().currsize == 0; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
