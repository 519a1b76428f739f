"""Hook that counts unreadable clips and ends a run if there are too many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pvvae_plugin.datasets import NoReadableClipError
from pvvae_plugin.files import without_space, write_atomically
from pvvae_plugin.registry import HOOKS

KEY = 'skipped_clips'  # in the message hub, and therefore in checkpoints
REPORT = 'skipped_clips.json'
MAX_FILES, MAX_LISTED = 1000, 20


@HOOKS.register_module()
class SkippedClipsHook(Hook):
    """Count requested clips that could not be read, per file, across resumes and processes.

    The counts are stored in every checkpoint as ``skipped_clips`` of the message hub: ``dict(requested=...,
    skipped=..., files={path: dict(count=..., reason=...)}, more=...)``. A skipped sample counts once, and its files
    count each failed read. ``more`` counts the failures of files beyond the first 1,000. The counts are also written to
    ``work_dir/skipped_clips.json``.

    Args:
        interval: Iterations between two log lines, which are written only if there are new skipped clips. The counts of
            all processes are summed then, and before each checkpoint of :class:`AtomicCheckpointHook`.
        min_clips: Number of clips that a process must have requested before ``max_share`` applies.
        max_share: The run ends if a process skips more than this share of its clips.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='SkippedClipsHook', max_share=0.1))  # an entry of custom_hooks
        >>> hook.min_clips, hook.max_share
        (200, 0.1)
    """

    def __init__(self, interval: int = 100, min_clips: int = 200, max_share: float = 0.5) -> None:
        self.interval = interval
        self.min_clips = min_clips
        self.max_share = max_share
        self._mine = _nothing()  # counts of this process since the start or resume
        self._new = _nothing()  # counts not yet added to the total
        self._logged = 0

    def before_train(self, runner: Runner) -> None:
        self._mine, self._new = _nothing(), _nothing()
        self._logged = self._total(runner)['skipped']

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count the clips of a batch.

        Raises:
            NoReadableClipError: If more than ``max_share`` of the clips cannot be read.
        """
        for sample in (data_batch or {}).get('data_samples', ()):
            failures = sample.get('skipped_clips', ())
            for counts in (self._mine, self._new):
                _count(counts, failures)
        due = self.every_n_train_iters(runner, self.interval)
        if due or get_world_size() == 1:
            self.gather(runner)
        if due:
            self._log(runner)
        mine = self._mine
        if mine['requested'] >= self.min_clips and mine['skipped'] > self.max_share * mine['requested']:
            if get_world_size() == 1:
                self._write(runner)
            raise NoReadableClipError(
                f'{_share(mine)} could not be read by this process, more than max_share={self.max_share} of '
                f'SkippedClipsHook:\n{_listing(mine)}\nCheck that data_root is the right folder and complete. '
                '"python tools/verify_dataset.py CONFIG --write-list GOOD.txt" finds all such files and writes a list '
                'of the readable ones for ann_file. Use --resume to continue from the last checkpoint'
            )

    def after_train(self, runner: Runner) -> None:
        """Log and write the skipped clips of the whole run."""
        self.gather(runner)
        self._write(runner)
        total = self._total(runner)
        if total['skipped']:
            runner.logger.warning(
                f'{_share(total)} could not be read and were replaced by others:\n{_listing(total)}\n'
                f'The full list is in {Path(runner.work_dir) / REPORT}'
            )

    def gather(self, runner: Runner) -> None:
        """Add the counts of all processes to the total. All processes must call this together."""
        total = self._total(runner)
        for counts in all_gather_object(self._new):
            _add(total, counts)
        self._new = _nothing()
        runner.message_hub.update_info(KEY, total)

    def _total(self, runner: Runner) -> dict:
        return runner.message_hub.get_info(KEY, None) or _nothing()

    def _log(self, runner: Runner) -> None:
        total = self._total(runner)
        if total['skipped'] > self._logged:
            self._logged = total['skipped']
            runner.logger.warning(f'{_share(total)} so far could not be read; {_files(total)}: {REPORT} lists them')
            self._write(runner)

    def _write(self, runner: Runner) -> None:
        if is_main_process():
            content = json.dumps(self._total(runner), indent=2) + '\n'
            with without_space(REPORT):
                write_atomically(Path(runner.work_dir) / REPORT, content.encode(errors='surrogateescape'))


def _nothing() -> dict:
    return {'requested': 0, 'skipped': 0, 'files': {}, 'more': 0}


def _count(counts: dict, failures: list[tuple[str, str]]) -> None:
    counts['requested'] += 1
    counts['skipped'] += bool(failures)
    for path, reason in failures:
        _add_file(counts, path, {'count': 1, 'reason': reason})


def _add(total: dict, counts: dict) -> None:
    for name in ('requested', 'skipped', 'more'):
        total[name] += counts[name]
    for path, record in counts['files'].items():
        _add_file(total, path, record)


def _add_file(counts: dict, path: str, record: dict) -> None:
    files = counts['files']
    if path in files:
        files[path]['count'] += record['count']
    elif len(files) < MAX_FILES:
        files[path] = dict(record)
    else:
        counts['more'] += record['count']


def _share(counts: dict) -> str:
    share = counts['skipped'] / max(1, counts['requested'])
    return f'{counts["skipped"]} of {counts["requested"]} clips ({share:.2%})'


def _files(counts: dict) -> str:
    return f'{len(counts["files"])}{" or more" if counts["more"] else ""} file(s)'


def _listing(counts: dict) -> str:
    worst = sorted(counts['files'].items(), key=lambda item: -item[1]['count'])
    lines = [f'  {record["count"]} x {path}: {record["reason"]}' for path, record in worst[:MAX_LISTED]]
    if len(worst) > MAX_LISTED:
        lines.append(f'  and {len(worst) - MAX_LISTED} more files')
    return '\n'.join(lines)
