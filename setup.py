"""Copy conf/ and experiments/*.yaml into the package when a wheel is built."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Add the configuration files, which an editable installation reads from the checkout."""

    def run(self) -> None:
        """Build the package, and then add the files."""
        super().run()
        if self.editable_mode:
            return
        for file in [*Path("conf").rglob("*.yaml"), *Path("experiments").glob("*.yaml")]:
            target = Path(self.build_lib, "reranker", file)
            self.mkpath(str(target.parent))
            self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildWithConfigs})
