"""The command line: RL Zoo's scripts with the registered algorithms, and a few of our own."""

import argparse
import importlib
import os
import runpy
import select
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from sb3_pg_ext.plugins import registry
from sb3_pg_ext.version import __version__


@dataclass(frozen=True)
class Script:
    """A script of the command line, imported only when it is asked for.

    :param summary: one line for ``--help``
    :param module: where it lies
    :param function: what to call; None: the module does its work when it is run as a program
    :param algorithms: whether it takes ``--algo`` and needs the registered algorithms
    :param play: whether it loads a model only to act
    """

    summary: str
    module: str
    function: str | None = None
    algorithms: bool = False
    play: bool = False

    def load(self) -> Callable[[], object]:
        """Import the script, as far as it can be imported without running it."""
        if self.function is None:
            return partial(runpy.run_module, self.module, run_name="__main__", alter_sys=True)
        return getattr(importlib.import_module(self.module), self.function)


SCRIPTS = {
    "train": Script(
        "train an agent; with -optimize, search hyper-parameters", "rl_zoo3.train", "train", algorithms=True
    ),
    "sweep": Script("train many runs: algorithms × environments × settings × seeds", "sb3_pg_ext.zoo.sweep", "main"),
    "enjoy": Script("watch a trained agent", "rl_zoo3.enjoy", "enjoy", algorithms=True, play=True),
    "evaluate": Script(
        "play a trained agent from fixed seeds: mean, IQM, intervals, worst episodes",
        "sb3_pg_ext.zoo.evaluation",
        "evaluate",
        algorithms=True,
        play=True,
    ),
    "plot_train": Script("plot training returns against steps", "sb3_pg_ext.zoo.plots", "plot_train"),
    "all_plots": Script("gather the evaluations of many runs", "sb3_pg_ext.zoo.plots", "all_plots"),
    "plot_from_file": Script("plot what all_plots has gathered", "sb3_pg_ext.zoo.plots", "plot_from_file"),
    "record_video": Script("record a video of a trained agent", "rl_zoo3.record_video", algorithms=True, play=True),
    "push_to_hub": Script("upload an agent to the Hugging Face Hub", "rl_zoo3.push_to_hub", algorithms=True, play=True),
    "report": Script("write a page about many runs: curves, scores, comparisons", "sb3_pg_ext.zoo.report", "report"),
    "load_from_hub": Script(
        "download an agent from the Hub", "sb3_pg_ext.zoo.downloads", "load_from_hub", algorithms=True
    ),
    "plugins": Script("list what plug-ins provide, and which failed to load", "sb3_pg_ext.zoo.commands", "plugins"),
    "inspect": Script("say what a model's file holds, and whether it is safe", "sb3_pg_ext.zoo.commands", "inspect"),
    "convert": Script("convert a file to one without pickles, or back", "sb3_pg_ext.zoo.commands", "convert"),
    "check": Script("check an estimator, a baseline or an algorithm by its name", "sb3_pg_ext.zoo.commands", "check"),
}


def main() -> None:
    """Run one script with the rest of the command line."""
    parser = _make_parser()
    options = parser.parse_args()
    script = SCRIPTS.get(options.script)
    if script is None:
        close = get_close_matches(options.script, SCRIPTS)
        parser.error(
            f"unknown script {options.script!r}"
            + (f", did you mean {' or '.join(close)}?" if close else f"; allowed: {', '.join(SCRIPTS)}")
        )
    sys.argv = [f"{parser.prog} {options.script}", *options.arguments]
    if script.play and sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")  # without it MuJoCo wants a display, and crashes
    try:
        if script.algorithms:
            _prepare_algorithms(script, options.arguments)
        run = script.load()
        if script.play:
            run = _distrusting(run)
    except ModuleNotFoundError as error:
        parser.error(f'{options.script} needs {error.name}, which is not installed: pip install "sb3_pg_ext[zoo]"')
    except ImportError as error:  # of a version of a package that RL Zoo does not go with
        parser.error(f"{options.script} cannot be loaded: {error}")
    except ValueError as error:
        parser.error(str(error))
    try:
        run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _is_nobody_reading():  # it is another pipe, of a worker perhaps
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written at the end
        parser.exit(1)
    except Exception as error:
        explanation = _explain(error)
        if explanation is None:
            raise
        parser.exit(2, f"{sys.argv[0]}: error: {explanation}\n")


def _is_nobody_reading() -> bool:
    """Whether nobody reads any more what is printed, as after ``| head``."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _distrusting(run: Callable[[], object]) -> Callable[[], object]:
    """A script that plays a run which comes from elsewhere without running its files, unless ``--trust`` says so."""
    from sb3_pg_ext.zoo import downloads

    trusts = downloads.take_trust(sys.argv)

    def run_distrusting() -> None:
        try:
            with downloads.playing(trusts):
                run()
        finally:
            if {"-h", "--help"} & {*sys.argv}:  # of RL Zoo's script, which does not know it
                print("  --trust               play a downloaded run as RL Zoo does: its files may run code")

    return run_distrusting


def _explain(error: Exception) -> str | None:
    """What to tell the user instead of a traceback; None where the error may be a bug."""
    if "rl_zoo3" not in sys.modules:  # without it nothing was run that may fail so
        return None
    from sb3_pg_ext.zoo.user_errors import explain

    return explain(error)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pg",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run RL Zoo with the algorithms and advantage estimators of sb3_pg_ext and of its plug-ins.",
        epilog="scripts:\n"
        + "\n".join(f"  {name:<16}{script.summary}" for name, script in SCRIPTS.items())
        + "\n\nsb3-pg SCRIPT --help tells the arguments of a script. An example:"
        + "\n  sb3-pg train --algo reinforce --env CartPole-v1 --progress",
    )
    parser.add_argument("--version", action="version", version=f"sb3_pg_ext {__version__}")
    parser.add_argument("script", metavar="SCRIPT", help="one of the scripts below")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="the arguments of the script")
    return parser


def _prepare_algorithms(script: Script, arguments: list[str]) -> None:
    from sb3_pg_ext.zoo import bridge  # RL Zoo takes seconds to import, and may not be installed

    plugins = registry()
    bridge.install(plugins, play=script.play)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo", nargs="?")
    name = parser.parse_known_args(arguments)[0].algo
    if name is not None:
        bridge.require_algorithm(plugins, name)


if __name__ == "__main__":
    main()
