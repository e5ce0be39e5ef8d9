"""``save()``, with the algorithm's name in the file, which SB3 leaves out."""

from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pg_ext.plugins import AlgorithmSpec, registry


class SavesItsName(BaseAlgorithm):
    """Stands in its files, as ``saved_as``, under its name in the registry; ``None`` where it is not registered."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the model, as SB3's ``save`` and with its arguments."""
        specs = (entry.spec for entry in registry().entries)
        names = (spec.name for spec in specs if isinstance(spec, AlgorithmSpec) and spec.cls is type(self))
        self.saved_as = next(names, None)
        super().save(*args, **kwargs)
