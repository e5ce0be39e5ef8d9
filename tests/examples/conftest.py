import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

Python = Callable[..., str]


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Python]:
    """``install(example, module)`` builds a wheel of a third party's package and installs it into a fresh environment.

    It gives ``python(*arguments)``, which runs the Python of that environment in a copy of the example, without the
    module or package that is installed, and gives its output.
    """

    def install(example: Path, module: str) -> Python:
        source = shutil.copytree(
            example, tmp_path_factory.mktemp("source") / "plugin", ignore=shutil.ignore_patterns("__pycache__")
        )
        root = tmp_path_factory.mktemp("environment")
        venv.create(root, with_pip=False)
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        executable = root / ("Scripts" if os.name == "nt" else "bin") / Path(sys.executable).name

        def run(*arguments: str | Path, program: str | Path = executable) -> str:
            command = [program, *arguments]
            done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        # What is installed here is visible there, by way of site.addsitedir, which also heeds editable installs.
        here, there = sysconfig.get_path("purelib"), run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        Path(there.strip(), "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        pip = ["-m", "pip", "--disable-pip-version-check", "--python", executable]
        build = [*pip[:3], "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
        run(*build, "-w", root / "wheels", ".", program=sys.executable)
        (wheel,) = (root / "wheels").iterdir()
        run(*pip, "install", "--no-deps", "--no-index", wheel, program=sys.executable)
        installed = source / module
        shutil.rmtree(installed) if installed.is_dir() else installed.unlink()
        return run

    return install
