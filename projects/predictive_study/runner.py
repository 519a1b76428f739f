"""Runs the stages of a study, several at once, and goes on where an earlier call stopped."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from pvvae_plugin import __version__
from pvvae_plugin.devices import processor
from pvvae_plugin.engine.stop_request import EXIT_CODE
from pvvae_plugin.files import read_json, write_atomically

from .plan import Stage, python_path

POLL = 0.2  # seconds
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class Running(NamedTuple):
    """A stage at work."""

    stage: Stage
    process: subprocess.Popen
    started: float


class Outcome(NamedTuple):
    """How a call of :meth:`Runner.run` ended.

    Attributes:
        done: How many stages are done.
        failed: Names of those that failed in this call.
        stopped: Whether it was asked to stop, or its time was over.
    """

    done: int
    failed: list[str]
    stopped: bool


class Runner:
    """Runs stages in their order, each when those it needs are done and a place is free.

    Args:
        stages: All of them.
        out: The study's folder: logs and records of stages go there.
        jobs: How many at once.
        threads: CPU threads of each; None leaves it to torch.
        minutes: After so many, stages are asked to save their state and leave; None for no limit.
        grace: Seconds that they get for it.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        out: Path,
        jobs: int,
        threads: int | None,
        minutes: float | None,
        grace: float = 45.0,
    ) -> None:
        self.stages = list(stages)
        self.out = out
        self.jobs = jobs
        self.threads = threads
        self.grace = grace
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self._stop = False
        self._seconds = {stage.name: self._record(stage).get('seconds') for stage in self.stages if self.is_done(stage)}
        self._failed: list[str] = []

    def is_done(self, stage: Stage) -> bool:
        """Whether an earlier call finished it."""
        return self._record_file(stage).is_file()

    def run(self) -> Outcome:
        """Run all that is not done. A stage that fails costs those that need it, and no others."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._ask_to_stop)
        self._wait_for_earlier()
        for stage in filter(self.is_done, self.stages):
            _delete_unmeasured(stage)  # where a kill came between the stage's end and that
        running: list[Running] = []
        while True:
            if self.deadline is not None and time.monotonic() > self.deadline:
                self._stop = True
            if self._stop:
                self._end(running)
                break
            for stage in self._ready(running):
                if len(running) < self.jobs and (one := self._start(stage)):
                    running.append(one)
            if not running:
                break
            time.sleep(POLL)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                self._settle(one)
                self._report(one, running)
        return Outcome(sum(map(self.is_done, self.stages)), self._failed, self._stop)

    def _ready(self, running: Sequence[Running]) -> list[Stage]:
        at_work = {one.stage.name for one in running}
        done = {stage.name for stage in self.stages if self.is_done(stage)}
        return [
            stage
            for stage in self.stages
            if stage.name not in done | at_work | set(self._failed) and done.issuperset(stage.needs)
        ]

    def _start(self, stage: Stage) -> Running | None:
        """Start a stage; one that cannot be started, as where a disk is full, has failed, and costs no other."""
        try:
            process = self._launch(stage)
        except OSError as error:
            self._failed.append(stage.name)
            say(f'{stage.name} cannot be started: {error}', sys.stderr)
            return None
        with contextlib.suppress(OSError):  # without it a later call may start before this one has saved its state
            self._pid_file(stage).write_text(f'{process.pid}\n', encoding='utf-8')
        return Running(stage, process, time.monotonic())

    def _launch(self, stage: Stage) -> subprocess.Popen:
        log = self._log_file(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        self._pid_file(stage).parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, 'PYTHONPATH': python_path()}
        if self.threads:
            environment['OMP_NUM_THREADS'] = str(self.threads)
        with log.open('a', encoding='utf-8') as file:
            file.write(f'\n$ {shlex.join(stage.command)}\n')
            file.flush()
            return subprocess.Popen(
                stage.command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is ours to hand on
                preexec_fn=_leave_with_parent if sys.platform == 'linux' else None,
            )

    def _wait_for_earlier(self) -> None:
        """Let stages of a call that was killed save their state; they have been asked to when it went."""
        for stage in self.stages:
            if self._pid_file(stage).is_file():
                text = self._pid_file(stage).read_text(encoding='utf-8').strip()
                pid = int(text) if text.isdigit() else 0
                if _runs(pid, stage.command):
                    say(f'{stage.name} of an earlier call is still saving its state')
                while _runs(pid, stage.command) and not self._stop:
                    self._stop = self.deadline is not None and time.monotonic() > self.deadline
                    time.sleep(POLL)
                if not self._stop:
                    self._count_killed(stage)
                    self._pid_file(stage).unlink()

    def _count_killed(self, stage: Stage) -> None:
        """Count what a stage took in a call that could not write it: from its start to the last line of its log."""
        if stage.resumable and not self.is_done(stage) and self._log_file(stage).is_file():
            started, ended = (file(stage).stat().st_mtime for file in (self._pid_file, self._log_file))
            self._add_seconds(stage, max(0.0, ended - started))

    def _settle(self, one: Running) -> None:
        """Take note of how a stage has ended."""
        stage, code = one.stage, one.process.returncode
        self._pid_file(stage).unlink(missing_ok=True)
        if code == 0:
            self._record_done(one)
            return
        self._add_attempt(one)
        if code == EXIT_CODE:  # whoever asked it to stop, as a cluster asks all processes of a job, meant the study
            self._stop = True
        else:
            self._failed.append(stage.name)

    def _record_done(self, one: Running) -> None:
        stage = one.stage
        seconds = time.monotonic() - one.started + self._attempts(stage)
        record = {'command': stage.command, 'seconds': seconds, 'threads': self.threads, 'machine': machine()}
        versions = {'torch': torch.__version__, 'pvvae_plugin': __version__}
        try:
            self._write(self._record_file(stage), {**record, **versions})
        except OSError as error:
            self._failed.append(stage.name)
            say(f'{stage.name} has ended, but its record cannot be written: {error}', sys.stderr)
            return
        self._seconds[stage.name] = seconds
        self._attempts_file(stage).unlink(missing_ok=True)
        _delete_unmeasured(stage)

    def _end(self, running: list[Running]) -> None:
        """Ask all to save their state, and wait for them."""
        for one in running:
            one.process.send_signal(signal.SIGTERM)
        limit = time.monotonic() + self.grace
        for one in running:
            try:
                one.process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(one.process.pid, signal.SIGKILL)
                one.process.wait()
            self._pid_file(one.stage).unlink(missing_ok=True)
            if one.process.returncode == 0:
                self._settle(one)
                continue
            self._add_attempt(one)
            anew = '' if one.stage.resumable else ', which will start anew: it needs a call with time enough for it'
            say(f'stopped: {one.stage.name}{anew}')

    def _report(self, one: Running, running: Sequence[Running]) -> None:
        seconds = time.monotonic() - one.started
        done = sum(map(self.is_done, self.stages))
        if one.process.returncode == 0:
            left = self._time_left(running)
            eta = f', about {left / 60:.0f} min left' if left else ''
            say(f'[{done}/{len(self.stages)}] {one.stage.name}: {seconds:.0f} s{eta}')
            return
        log = self._log_file(one.stage)
        tail = log.read_text(encoding='utf-8', errors='replace').replace('\r', '\n').splitlines()[-12:]
        heading = f'{one.stage.name} ended with code {one.process.returncode}, log {log}:'
        say('\n'.join([heading, *(f'  {line[:300]}' for line in tail)]), sys.stderr)

    def _time_left(self, running: Sequence[Running]) -> float | None:
        """Seconds, from those that stages of a kind took; None while a kind has not been met."""
        of_kind: dict[str, list[float]] = {}
        for stage in self.stages:
            if self._seconds.get(stage.name):
                of_kind.setdefault(stage.kind, []).append(self._seconds[stage.name])
        left = [stage for stage in self.stages if not self.is_done(stage)]
        if any(stage.kind not in of_kind for stage in left):
            return None
        total = sum(sum(of_kind[stage.kind]) / len(of_kind[stage.kind]) for stage in left)
        spent = sum(time.monotonic() - one.started for one in running)
        return max(0.0, total - spent) / self.jobs

    def _ask_to_stop(self, number: int, frame: Any) -> None:
        if self._stop:
            return
        self._stop = True
        say('stopping: stages save their state', sys.stderr)

    def _record_file(self, stage: Stage) -> Path:
        return self.out / 'stages' / f'{stage.name}.json'

    def _attempts_file(self, stage: Stage) -> Path:
        return self.out / 'stages' / f'{stage.name}.begun.json'

    def _pid_file(self, stage: Stage) -> Path:
        return self.out / 'stages' / f'{stage.name}.pid'

    def _log_file(self, stage: Stage) -> Path:
        return self.out / 'logs' / f'{stage.name}.log'

    def _record(self, stage: Stage) -> dict[str, Any]:
        return read_json(self._record_file(stage), 'the record of a finished stage')

    def _attempts(self, stage: Stage) -> float:
        """Seconds of earlier calls that counted; a damaged record of them costs these, and no more."""
        path = self._attempts_file(stage)
        try:
            return float(read_json(path, 'the record of an interrupted stage')['seconds']) if path.is_file() else 0.0
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f'the time of earlier calls is lost: {path}: {error}', sys.stderr)
            return 0.0

    def _add_attempt(self, one: Running) -> None:
        if one.stage.resumable:
            self._add_seconds(one.stage, time.monotonic() - one.started)

    def _add_seconds(self, stage: Stage, seconds: float) -> None:
        with contextlib.suppress(OSError):  # a full disk costs this number
            self._write(self._attempts_file(stage), {'seconds': self._attempts(stage) + seconds})

    @staticmethod
    def _write(path: Path, content: dict[str, Any]) -> None:
        now = datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC')
        write_atomically(path, (json.dumps({**content, 'written': now}, indent=2) + '\n').encode())


def say(text: str, stream: IO[str] | None = None) -> None:
    """Print, though nobody may read any more: what reads our output can be gone before us, as with ``| tee``."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python tries once more on leaving


def _delete_unmeasured(stage: Stage) -> None:
    """Delete a finished stage's checkpoints that are not measured, those of interruptions among them."""
    for folder in {path.parent for path in stage.keeps}:
        for path in set(folder.glob('iter_*.pth')) - set(stage.keeps):
            path.unlink(missing_ok=True)


def machine() -> str:
    """What this is, for the records."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{processor()}, {os.cpu_count()} cores'


def _runs(pid: int, command: Sequence[str]) -> bool:
    """Whether a process is there and is that command; never, where the system does not tell."""
    try:
        there = Path(f'/proc/{pid}/cmdline').read_bytes().decode(errors='replace').split('\0')
    except OSError:
        return False
    return there[1 : len(command)] == list(command[1:])


def _leave_with_parent() -> None:
    """Let the kernel ask the stage to stop when the study's process is gone, however that ended."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)
