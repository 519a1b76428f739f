"""Build step that adds configs, scripts and the model index to the wheel; all metadata is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Build step that copies configs, tools and the model index to ``pvvae_plugin/.mim``, where MMEngine looks."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            source, target = Path(__file__).parent, Path(self.build_lib) / 'pvvae_plugin' / '.mim'
            ignored = shutil.ignore_patterns('__pycache__')
            for folder in ('configs', 'tools'):
                shutil.copytree(source / folder, target / folder, dirs_exist_ok=True, ignore=ignored)
            for index in source.glob('model-index.yml'):
                shutil.copy(index, target)


setup(cmdclass={'build_py': BuildWithConfigs})
