"""The wheel without what an earlier build of this folder left. All else is in pyproject.toml."""

from __future__ import annotations

import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class Fresh(build_py):
    """setuptools copies into build/lib and packs all that lies there: of an older commit too, modules that are gone."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(cmdclass={"build_py": Fresh})
