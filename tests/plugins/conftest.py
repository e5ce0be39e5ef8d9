import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """``install(plugin, source)`` puts a distribution with one module and one entry point on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def install(plugin: str, source: str, package: str | None = None) -> None:
        package = package or f"{plugin}-package"
        module = f"fake_{package}_{plugin}".replace("-", "_")
        info = tmp_path / f"{package.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[sb3_pg_ext]\n{plugin} = {module}\n")
        (tmp_path / f"{module}.py").write_text(f"from sb3_pg_ext.plugins import *\n{source}")
        modules.append(module)

    yield install
    for module in modules:
        sys.modules.pop(module, None)
