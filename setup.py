"""Build step that puts configs and model lists into the wheel; everything else is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies ``configs/`` and ``model-index.yml`` to ``pvvae_plugin/.mim`` in the build: MMEngine looks there."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            source, target = Path(__file__).parent, Path(self.build_lib) / 'pvvae_plugin' / '.mim'
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(source / 'configs', target / 'configs', dirs_exist_ok=True, ignore=ignored)
            for index in source.glob('model-index.yml'):
                shutil.copy(index, target)


setup(cmdclass={'build_py': BuildWithConfigs})
