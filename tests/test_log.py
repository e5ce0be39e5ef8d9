"""What is logged, but not printed."""

import io

import pytest
from stable_baselines3.common.logger import HumanOutputFormat, Logger

from sb3_pg_ext.log import TABLE, record_count


@pytest.fixture
def table():
    return io.StringIO()


@pytest.fixture
def logger(table):
    return Logger(None, [HumanOutputFormat(table)])


def test_a_counter_is_printed_once_it_has_counted(logger, table):
    for count in (0, 3, 4):
        logger.record("train/loss", 0.5)
        record_count(logger, "train/n_skipped", count)
        assert logger.name_to_value["train/n_skipped"] == count
        logger.dump()
    first, second, third = table.getvalue().split("train/")[1:]
    assert "n_skipped" not in first
    assert "n_skipped | 3" in second
    assert "n_skipped | 4" in third


def test_details_are_not_printed(logger, table):
    logger.record("train/loss", 0.5)
    logger.record("train/detail", 0.25, exclude=TABLE)
    logger.dump()
    assert "loss" in table.getvalue()
    assert "detail" not in table.getvalue()
