"""The logger's place: what it holds, and what its files hold."""

from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HumanOutputFormat,
    JSONOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
)

VALUES = ("name_to_value", "name_to_count", "name_to_excluded")


def note(logger: Logger) -> dict[str, Any]:
    """What was recorded and not yet written, and what has been written.

    :param logger: the logger of a training
    """
    return {
        "values": {name: dict(getattr(logger, name)) for name in VALUES},
        "folder": logger.dir,
        "texts": [(type(output).__name__, _read(output)) for output in logger.output_formats],
    }


def put_back(logger: Logger, noted: dict[str, Any], num_timesteps: int) -> None:
    """Let a logger go on where another was. Files of its own are overwritten by what the other had written.

    :param logger: the logger
    :param noted: what :func:`note` gave
    :param num_timesteps: number of steps of the training
    """
    for name in VALUES:
        values = getattr(logger, name)
        values.clear()
        values.update(noted["values"][name])
    texts = list(noted["texts"])
    for output in logger.output_formats:
        for index, (name, text) in enumerate(texts):
            if name == type(output).__name__:
                del texts[index]
                _rewrite(output, text)
                break
        if isinstance(output, TensorBoardOutputFormat) and noted["folder"] and Path(noted["folder"]).is_dir():
            _continue_events(logger, output, noted["folder"], num_timesteps)


def _file_of(output: KVWriter) -> Any:
    """The file on the disk that an output writes; None if there is none."""
    if not isinstance(output, CSVOutputFormat | HumanOutputFormat | JSONOutputFormat):
        return None
    name = getattr(output.file, "name", None)
    return output.file if isinstance(name, str) and Path(name).is_file() else None


def _read(output: KVWriter) -> str | None:
    file = _file_of(output)
    if file is None:
        return None
    file.flush()
    return Path(file.name).read_text(encoding="utf-8")


def _rewrite(output: KVWriter, text: str | None) -> None:
    file = _file_of(output)
    if file is None or text is None:
        return
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
    if isinstance(output, CSVOutputFormat):
        output.keys = text.partition("\n")[0].split(output.separator) if text else []


def _continue_events(logger: Logger, output: TensorBoardOutputFormat, folder: str, num_timesteps: int) -> None:
    """Write into the folder of the other; TensorBoard hides what stands there of later steps."""
    writer_class = type(output.writer)
    output.writer.close()
    output.writer = writer_class(log_dir=folder, purge_step=num_timesteps + 1)
    logger.dir = folder
