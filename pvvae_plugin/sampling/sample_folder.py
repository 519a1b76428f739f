"""The folder that generated videos are written to, and what it says of them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pvvae_plugin.files import file_sha256, write_atomically
from pvvae_plugin.safe_globals import load_array_safely
from pvvae_plugin.visualization import write_video
from pvvae_plugin.visualization.video_files import TEMPORARY

MANIFEST = 'samples.json'


class SampleFolder:
    """Videos of one run of sampling, one file each, and ``samples.json``.

    Every file appears whole or not at all. ``samples.json`` is there from the start and says ``"complete": true`` when
    everything else is: a run that was stopped goes on where it stood, and a folder with anything else in it is
    refused. Until the pictures of all are drawn, the clips that they show lie in ``.shown``, as they are, without a
    codec's loss.

    Args:
        root: The folder.
        run: All that the videos follow from. What differs in it does not go together in a folder.
        about: What else to write down of the run.
        entries: Of each video, ``index``, ``label`` and ``class`` (None for none), and what else to write down.
        shown: Indices of the videos that the pictures show.

    Example:
        >>> from pathlib import Path
        >>> from pvvae_plugin.sampling import SampleFolder
        >>> entries = [{'index': 0, 'label': 1, 'class': 'orbit'}]
        >>> folder = SampleFolder(Path('samples'), run=dict(seed=0), about={}, entries=entries, shown=[0])
        >>> folder.start()
        >>> folder.add(0, np.zeros((9, 32, 32, 3), np.uint8), fps=8)
        >>> folder.finish()
        >>> folder.check(), sorted(path.name for path in Path('samples').iterdir())  # complete
        (True, ['00000_orbit.webm', 'samples.json'])
    """

    def __init__(
        self,
        root: Path,
        run: dict[str, Any],
        about: dict[str, Any],
        entries: Sequence[dict[str, Any]],
        shown: Sequence[int],
    ) -> None:
        self.root = root
        self.run = json.loads(json.dumps(run))  # tuples become lists, as in what is read
        self.about = about
        self.entries = [{'file': file_name(entry), **entry} for entry in entries]
        self.shown = set(shown)

    def check(self) -> bool:
        """Whether the videos of this run are there already, all of them.

        Raises:
            ValueError: If the folder cannot be written to, or holds anything but videos of this run.
        """
        if not os.access(next(p for p in (self.root, *self.root.absolute().parents) if p.exists()), os.W_OK):
            raise ValueError(f'no right to write to {self.root}: choose another output folder')
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f'{self.root} is a file: choose another output folder')
        other = 'choose another output folder, or delete this one'
        manifest = self.root / MANIFEST
        if not manifest.is_file():
            present = [path.name for path in self.root.glob('*') if not path.name.startswith('.')]
            if present:
                raise ValueError(f'{self.root} is not empty ({", ".join(sorted(present)[:3])}): {other}')
            return False
        try:
            found = json.loads(manifest.read_text(encoding='utf-8'))
            run, complete = found['run'], found['complete']
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{manifest} cannot be read ({error!r}): {other}') from error
        differing = [f'{k}={run.get(k)!r} (here {v!r})' for k, v in self.run.items() if run.get(k) != v]
        if differing:
            raise ValueError(f'{self.root} holds samples of another run, with {", ".join(differing)}: {other}')
        return bool(complete)

    def start(self) -> None:
        """Say what will be here, and clear away what a killed process left half done."""
        for leftover in self.root.glob(f'{TEMPORARY}*'):
            shutil.rmtree(leftover)
        self._write(complete=False)

    def is_done(self, index: int) -> bool:
        """Whether a video is written."""
        return self._path(index).is_file() and (index not in self.shown or self._exact(index).is_file())

    def add(self, index: int, clip: np.ndarray, fps: float) -> None:
        """Write a video, uint8 ``(T, H, W, 3)``."""
        if index in self.shown:
            exact = self._exact(index)
            exact.parent.mkdir(parents=True, exist_ok=True)
            temporary = exact.with_name(f'{TEMPORARY}{exact.name}')
            np.save(temporary, clip)
            os.replace(temporary, exact)
        write_video(self._path(index), clip, fps)

    def shown_clips(self) -> dict[int, np.ndarray]:
        """Index -> uint8 ``(T, H, W, 3)`` of the videos that the pictures show.

        Raises:
            RuntimeError: If videos of other processes are not here.
            ValueError: If one of the clips is damaged.
        """
        missing = [entry['file'] for i, entry in enumerate(self.entries) if not self.is_done(i)]
        if missing:
            raise RuntimeError(
                f'{len(missing)} videos are not in {self.root}, e.g. {missing[0]}: all processes must see one folder '
                'under this name'
            )
        return {index: load_array_safely(self._exact(index)) for index in sorted(self.shown)}

    def finish(self) -> None:
        """Say that everything is here, with the digest of every video."""
        for i, entry in enumerate(self.entries):
            entry['sha256'] = file_sha256(self._path(i))
        self._write(complete=True)
        shutil.rmtree(self.root / '.shown')

    def _path(self, index: int) -> Path:
        return self.root / self.entries[index]['file']

    def _exact(self, index: int) -> Path:
        return self.root / '.shown' / f'{index}.npy'

    def _write(self, complete: bool) -> None:
        content = {'complete': complete, **self.about, 'run': self.run, 'files': self.entries}
        write_atomically(self.root / MANIFEST, (json.dumps(content, indent=1) + '\n').encode())


def file_name(entry: dict[str, Any]) -> str:
    """``00003_orbit.webm``; a class without a name gives its number, and no class nothing."""
    if entry['label'] is None:
        return f'{entry["index"]:05d}.webm'
    name = re.sub(r'[^\w.-]+', '-', entry['class'] or f'class{entry["label"]}')
    return f'{entry["index"]:05d}_{name}.webm'
