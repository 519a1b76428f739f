"""Build step that puts the configs into the wheel; everything else is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies ``configs/`` to ``pvvae_plugin/.mim/configs`` in the build folder, where MMEngine looks for them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / 'pvvae_plugin' / '.mim' / 'configs'
            shutil.copytree(Path(__file__).parent / 'configs', target, dirs_exist_ok=True)


setup(cmdclass={'build_py': BuildWithConfigs})
