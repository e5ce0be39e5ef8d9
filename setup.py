"""The packages of the distribution; everything else about it stands in setup.cfg.

``zoo_configs/`` lies beside the package and is installed inside it, which ``packages = find:`` alone cannot say.
"""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["sb3_pg_ext", "sb3_pg_ext.*"]), "sb3_pg_ext.zoo_configs"])
