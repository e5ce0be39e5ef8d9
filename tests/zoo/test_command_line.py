"""``sb3-pg SCRIPT …``: help, errors, and the scripts that are our own."""

import json
import subprocess
import sys
from types import ModuleType

import pytest

from sb3_pg_ext import testing
from sb3_pg_ext.plugins import Provider, Registry, load_registry
from sb3_pg_ext.testing import checking
from sb3_pg_ext.version import __version__
from sb3_pg_ext.zoo import __main__, commands


@pytest.fixture(autouse=True)
def _same_plugins(monkeypatch, plugins):
    for module in (commands, checking):
        monkeypatch.setattr(module, "registry", lambda: plugins)


def error_of(zoo, capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        zoo(*arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_help_lists_every_script(zoo, capsys):
    with pytest.raises(SystemExit) as exit_:
        zoo("--help")
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    for name, script in __main__.SCRIPTS.items():
        assert any(line.split(maxsplit=1) == [name, script.summary] for line in shown.splitlines())


def test_version(zoo, capsys):
    with pytest.raises(SystemExit):
        zoo("--version")
    assert capsys.readouterr().out == f"sb3_pg_ext {__version__}\n"


def test_an_unknown_script_is_an_error_with_close_matches(zoo, capsys):
    assert "unknown script 'trian', did you mean train?" in error_of(zoo, capsys, "trian")
    assert "allowed: train, sweep, enjoy," in error_of(zoo, capsys, "xyz")


@pytest.mark.parametrize("script", ["train", "enjoy", "record_video", "push_to_hub", "load_from_hub"])
def test_an_unknown_algorithm_is_an_error_that_names_the_others(zoo, capsys, script):
    shown = error_of(zoo, capsys, script, "--algo", "toyy")
    assert "Unknown algorithm 'toyy'; did you mean 'toy'?" in shown
    assert "plug-in 'broken' of broken-box 0.1 failed to load" in shown


@pytest.mark.parametrize("arguments", [("--algo", "toyy"), ("--algo=toyy",), ("--env", "X", "--al", "toyy")])
def test_the_algorithm_is_found_however_it_is_written(zoo, capsys, arguments):
    assert "Unknown algorithm 'toyy'" in error_of(zoo, capsys, "train", *arguments)


def test_a_missing_value_is_left_to_rl_zoo(zoo, capsys):
    assert "usage: sb3-pg train" in error_of(zoo, capsys, "train", "--algo")


def test_the_help_of_a_script_is_rl_zoos_own_with_our_algorithms(zoo, capsys):
    with pytest.raises(SystemExit):
        zoo("train", "--help")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: sb3-pg train")
    assert "toy" in shown


def test_scripts_that_are_programs_are_run_as_such(zoo, capsys):
    with pytest.raises(SystemExit):
        zoo("record_video", "--help")
    shown = capsys.readouterr().out
    assert "--output-folder" in shown
    assert "toy" in shown


def test_a_program_that_does_not_go_with_what_is_installed(zoo, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_sb3.push_to_hub", ModuleType("huggingface_sb3.push_to_hub"))
    shown = error_of(zoo, capsys, "push_to_hub", "--help")
    assert "push_to_hub: error: it cannot be loaded: cannot import name '" in shown
    assert "Traceback" not in shown


WITHOUT_RL_ZOO = """
import sys
sys.modules["rl_zoo3"] = None
from sb3_pg_ext.zoo.__main__ import main
for script in ("train", "plot_train"):
    sys.argv = ["sb3-pg", script]
    try:
        main()
    except SystemExit as exit_:
        print(exit_.code)
"""


def test_without_rl_zoo_the_error_says_what_to_install():
    done = subprocess.run([sys.executable, "-c", WITHOUT_RL_ZOO], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "2"]
    for script in ("train", "plot_train"):
        assert f"{script} needs rl_zoo3" in done.stderr
    assert done.stderr.count('pip install "sb3_pg_ext[zoo]"') == 2


def test_plugins_as_a_table(zoo, capsys):
    zoo("plugins")
    assert capsys.readouterr().out.splitlines() == [
        "kind       name    package  version",
        "algorithm  replay  toy-box  1.2",
        "algorithm  toy     toy-box  1.2",
        "",
        "failed to load: broken of broken-box 0.1",
        "  ImportError: no module named antigravity",
    ]


def test_plugins_explains_a_switch_that_is_none(zoo, capsys, monkeypatch):
    monkeypatch.setattr(commands, "registry", load_registry)
    monkeypatch.setenv("SB3_PG_EXT_STRICT", "yes")
    assert "SB3_PG_EXT_STRICT='yes'; allowed: 1" in error_of(zoo, capsys, "plugins")


def test_plugins_for_programs(zoo, capsys, monkeypatch, plugins):
    skipped = Registry(plugins.entries[:1], plugins.failures, (Provider("other", "other-box", "3.0"),))
    monkeypatch.setattr(commands, "registry", lambda: skipped)
    zoo("plugins", "--json")
    assert json.loads(capsys.readouterr().out) == {
        "registered": [{"kind": "algorithm", "name": "toy", "package": "toy-box", "version": "1.2"}],
        "failed": [
            {
                "plugin": "broken",
                "package": "broken-box",
                "version": "0.1",
                "reason": "ImportError: no module named antigravity",
            }
        ],
        "skipped": [{"plugin": "other", "package": "other-box", "version": "3.0"}],
    }
    zoo("plugins")
    assert "not loaded, as SB3_PG_EXT_LOAD_PLUGINS says: other of other-box 3.0" in capsys.readouterr().out


def test_check_says_that_a_contract_is_kept(zoo, capsys, monkeypatch):
    monkeypatch.setattr(testing, "check", lambda name: None, raising=False)
    zoo("check", "toy")
    assert capsys.readouterr().out == "toy passes all checks\n"


def test_check_says_what_fails(zoo, monkeypatch):
    def fail(name):
        raise AssertionError("loses its parameters")

    monkeypatch.setattr(testing, "check", fail, raising=False)
    with pytest.raises(SystemExit, match="toy fails:\nloses its parameters"):
        zoo("check", "toy")


def test_check_of_an_unknown_name_is_an_error(zoo, capsys):
    assert "Unknown name 'toyy'" in error_of(zoo, capsys, "check", "toyy")


def test_an_error_of_what_is_checked_is_no_unknown_name(zoo, monkeypatch):
    def fail(name):
        raise ValueError("a bug of the plug-in")

    monkeypatch.setattr(testing, "check", fail)
    with pytest.raises(ValueError, match="a bug of the plug-in"):
        zoo("check", "toy")


def test_nobody_has_to_read_all_that_is_printed():
    """As after ``| head -c 1``; Python would end in a traceback."""
    command = [sys.executable, "-m", "sb3_pg_ext.zoo", "plugins", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
