"""What NPG logs is what the documentation says."""

from pathlib import Path

import pytest
from envs import RandomEnv

from sb3_pg_ext import NPG

DOCUMENTATION = (Path(__file__).parents[3] / "docs/logging.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [{}, {"line_search": True}, {"step": "fixed"}])
def test_every_key_is_documented(arguments):
    model = NPG("MlpPolicy", RandomEnv(), n_steps=32, device="cpu", **arguments).learn(32, log_interval=None)
    keys = model.logger.name_to_value.keys()
    assert {key for key in keys if f"`{key}`" not in DOCUMENTATION} == set()
    of_the_line_search = {"train/line_search_steps", "train/is_line_search_success"}
    assert keys & of_the_line_search == (of_the_line_search if "line_search" in arguments else set())
