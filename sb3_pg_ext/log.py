"""What is logged for TensorBoard and the files, but not printed."""

from stable_baselines3.common.logger import Logger

TABLE = ("stdout", "log")
"""Both names of the table in SB3's logger: on the screen, and in ``log.txt``.

Details are recorded with ``exclude=TABLE``. TensorBoard, CSV and JSON have them all the same.
"""


def record_count(logger: Logger, key: str, count: int) -> None:
    """Record how often something happened that should not; it is in the table once it has.

    :param logger: SB3's logger
    :param key: the name
    :param count: how often
    """
    logger.record(key, count, exclude=() if count else TABLE)
