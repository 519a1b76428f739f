"""A data worker that hangs in a file, or dies of it, is named by the main process."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pvvae_plugin.datasets import ClipDataset
from pvvae_plugin.datasets.checking import worker_watchdog
from pvvae_plugin.datasets.checking.worker_watchdog import describe_reading

FAST = 20e-6  # seconds a clip may take to be noted


class Stuck(ClipDataset):
    """Clips of which some open a pipe that nobody writes to: the worker waits in C for ever."""

    def __init__(self, pipe, stuck, length=6):
        self.pipe, self.stuck, self.length = pipe, set(stuck), length
        super().__init__(clip_len=1, pipeline=[dict])

    def load_data_list(self):
        return [{'path': f'/clips/{i} ä\n.mp4', 'label': i} for i in range(self.length)]

    def load_clip(self, info, rng):
        if info['label'] in self.stuck:
            os.close(os.open(self.pipe, os.O_RDONLY))
        return np.zeros((1, 2, 2, 3), np.uint8)


class Timing(Stuck):
    """How long it takes to note a clip, as its label."""

    def load_clip(self, info, rng):
        times = []
        for _ in range(200):
            start = time.perf_counter()
            worker_watchdog.note_reading(info['path'])
            worker_watchdog.note_done()
            times.append(time.perf_counter() - start)
        info['label'] = float(np.median(times))
        return np.zeros((1, 2, 2, 3), np.uint8)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('TMPDIR', str(tmp_path))  # of workers that are spawned
    monkeypatch.setattr(worker_watchdog.tempfile, 'tempdir', str(tmp_path))


@pytest.fixture
def torchs_handler(monkeypatch):
    """A run of ours in this process has taken torch's handler of dead workers away; torch sets it once a process."""
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, '_SIGCHLD_handler_set', False)


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    return str(tmp_path / 'pipe')


def labels(batch):
    return [sample['label'] for sample in batch]


def load(dataset, context, timeout=0, workers=2):
    return DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=labels,
        timeout=timeout,
        multiprocessing_context=context,
        prefetch_factor=1,
    )


@pytest.mark.parametrize('context', ['fork', pytest.param('spawn', marks=pytest.mark.long)])
def test_the_hanging_file_is_named(pipe, context, torchs_handler):
    others = load(Stuck(pipe, []), context)
    iterator = iter(load(Stuck(pipe, [3]), context, timeout=4 if context == 'fork' else 25))
    found = []
    with pytest.raises(RuntimeError, match='timed out'):
        for batch in iterator:
            found += batch
            if len(found) == 1:
                assert len(list(others)) == 6  # a second dataset, whose workers come and go
    assert found == [0, 1, 2]
    text = describe_reading()
    match = re.fullmatch(r'worker 1 \(pid (\d+)\) has been reading /clips/3 ä\n\.mp4 for (\d+) s', text)
    assert match and int(match[2]) >= 3, text
    assert int(match[1]) in {worker.pid for worker in iterator._workers}
    with pytest.raises(RuntimeError, match='killed by signal'):  # torch raises it wherever the main process is
        os.kill(int(match[1]), signal.SIGKILL)
        time.sleep(20)
    text = describe_reading()
    assert re.fullmatch(
        rf'worker 1 \(pid {match[1]}\), which has died, started to read /clips/3 ä\n\.mp4 \d+ s ago', text
    )


def test_nothing_is_known_where_nothing_hangs(pipe):
    assert labels(Stuck(pipe, [])) == list(range(6))  # the main process reads: no worker is noted
    assert sum(load(Stuck(pipe, []), 'fork'), []) == list(range(6))
    assert describe_reading() == ''


def test_noting_a_clip_is_cheap(pipe):
    seconds = sum(load(Timing(pipe, []), 'fork', workers=1), [])
    print(f'{np.median(seconds) * 1e6:.1f} us a clip')
    assert min(seconds) < FAST


def test_nothing_stays_behind_in_the_temporary_folder(pipe, tmp_path):
    script = 'import sys\nfrom test_hanging_worker import Stuck, load\nlist(load(Stuck(sys.argv[1], []), "fork"))\n'
    (tmp_path / 'temporary').mkdir()
    command = [sys.executable, '-c', script, pipe]
    search = os.pathsep.join([str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, 'PYTHONPATH': search, 'TMPDIR': str(tmp_path / 'temporary')}
    subprocess.run(command, check=True, timeout=120, env=environment)
    assert not list((tmp_path / 'temporary').glob('pvvae*'))


def test_a_folder_that_cannot_be_made_stops_nothing(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_watchdog.tempfile, 'tempdir', str(tmp_path / 'missing'))
    assert sum(load(Stuck(pipe, []), 'fork'), []) == list(range(6))
    assert describe_reading() == ''
