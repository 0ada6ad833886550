"""What pyproject.toml cannot say: the experiments of `configs/` go into the package, too."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["maskrcnn_jax*"]), "maskrcnn_jax.configs"],
    package_dir={"maskrcnn_jax.configs": "configs"},
)
