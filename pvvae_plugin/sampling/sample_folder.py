"""Output folder of a sampling run: videos and their manifest."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pvvae_plugin.files import file_sha256, publish, write_atomically
from pvvae_plugin.safe_globals import load_array_safely
from pvvae_plugin.visualization import write_video
from pvvae_plugin.visualization.video_files import TEMPORARY

MANIFEST = 'samples.json'


class SampleFolder:
    """Output folder of a sampling run, with one file per video and the manifest ``samples.json``.

    All files are written atomically. ``samples.json`` is written first and says ``"complete": true`` once all videos
    are done, so an interrupted run can be resumed. Folders with other content are rejected. Clips shown in
    the overview sheets are kept losslessly in ``.shown`` until the sheets are drawn.

    Args:
        root: The folder.
        run: Settings that determine the videos. A folder only takes videos with equal settings.
        about: Further information to record about the run.
        entries: One dict per video: ``index``, ``label`` and ``class`` (None if unconditional), and anything else to
            record.
        shown: Indices of the videos that the sheets show.

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
        self.run = json.loads(json.dumps(run))  # turn tuples into lists, like the manifest that is read
        self.about = about
        self.entries = [{'file': file_name(entry), **entry} for entry in entries]
        self.shown = set(shown)

    def check(self) -> bool:
        """Check that the folder can be used, and return True if the run is already complete.

        Raises:
            ValueError: If the folder is not writable, or contains anything other than videos of this run, or a video
                of a complete run was changed.
        """
        if not os.access(next(p for p in (self.root, *self.root.absolute().parents) if p.exists()), os.W_OK):
            raise ValueError(f'{self.root} is not writable: choose another output folder')
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
        if not complete or not all(self._path(i).is_file() for i in range(len(self.entries))):
            return False
        for i, entry in enumerate(found.get('files', ())):
            if entry.get('sha256') not in (None, file_sha256(self._path(i))):
                raise ValueError(f'{self._path(i)} was changed since it was sampled: delete it to sample it again')
        return True

    def start(self) -> None:
        """Write the manifest as incomplete, and delete partial files of a killed process."""
        for leftover in self.root.glob(f'{TEMPORARY}*'):
            shutil.rmtree(leftover)
        self._write(complete=False)

    def is_done(self, index: int) -> bool:
        """Return True if a video has been written."""
        return self._path(index).is_file() and (index not in self.shown or self._exact(index).is_file())

    def add(self, index: int, clip: np.ndarray, fps: float) -> None:
        """Write a video, uint8 ``(T, H, W, 3)``."""
        if index in self.shown:
            exact = self._exact(index)
            exact.parent.mkdir(parents=True, exist_ok=True)
            temporary = exact.with_name(f'{TEMPORARY}{exact.name}')
            np.save(temporary, clip)
            publish(temporary, exact)
        write_video(self._path(index), clip, fps)

    def shown_clips(self) -> dict[int, np.ndarray]:
        """Return the clips that the sheets show, as a dict from index to uint8 ``(T, H, W, 3)``.

        Raises:
            RuntimeError: If videos of other processes are missing from this folder.
            ValueError: If a clip is damaged.
        """
        missing = [entry['file'] for i, entry in enumerate(self.entries) if not self.is_done(i)]
        if missing:
            raise RuntimeError(
                f'{len(missing)} videos are missing from {self.root}, e.g. {missing[0]}: all processes must share this '
                'folder'
            )
        return {index: load_array_safely(self._exact(index)) for index in sorted(self.shown)}

    def finish(self) -> None:
        """Write the manifest as complete, with the SHA-256 of every video."""
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
    """Return ``00003_orbit.webm``, ``00003_class5.webm`` (unnamed class) or ``00003.webm`` (no class)."""
    if entry['label'] is None:
        return f'{entry["index"]:05d}.webm'
    name = re.sub(r'[^\w.-]+', '-', entry['class'] or f'class{entry["label"]}')
    return f'{entry["index"]:05d}_{name}.webm'
