"""Parallel, resumable execution of the stages of a study."""

from __future__ import annotations

import contextlib
import ctypes
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
from pvvae_plugin.engine.stop_request import EXIT_CODE, INTERRUPTED
from pvvae_plugin.files import read_json, write_json

from .plan import Stage, python_path

POLL = 0.2  # seconds
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
# Exit codes of a stage that was asked to stop: its own, or of a signal that it does not handle. tools/launch.py sends
# SIGUSR1 to its processes.
STOPPED = (EXIT_CODE, INTERRUPTED, -signal.SIGTERM, -signal.SIGKILL, -signal.SIGUSR1, 256 - signal.SIGUSR1)


class Running(NamedTuple):
    """A running stage."""

    stage: Stage
    process: subprocess.Popen
    started: float


class Outcome(NamedTuple):
    """Result of :meth:`Runner.run`.

    Attributes:
        done: Number of finished stages.
        failed: Names of the stages that failed in this call.
        stopped: Whether the call was asked to stop or reached its time limit.
    """

    done: int
    failed: list[str]
    stopped: bool


class Runner:
    """Scheduler that starts stages in order, as soon as their dependencies are done and a slot is free.

    Args:
        stages: All stages.
        out: Folder of the study, for logs and records of the stages.
        jobs: Maximum number of concurrent stages.
        threads: CPU threads per stage; None uses torch's default.
        minutes: Time limit, after which running stages are asked to save and exit; None for no limit.
        grace: Seconds that stages get to save and exit.
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
        """Return whether a stage is finished."""
        return self._record_file(stage).is_file()

    def run(self) -> Outcome:
        """Run all unfinished stages. A failed stage blocks only the stages that depend on it."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._ask_to_stop)
        self._wait_for_earlier()
        for stage in filter(self.is_done, self.stages):
            _delete_unmeasured(stage)  # in case a kill prevented this when the stage ended
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
        """Start a stage. If this fails, e.g. because the disk is full, mark the stage as failed and return None."""
        try:
            process = self._launch(stage)
        except OSError as error:
            self._failed.append(stage.name)
            say(f'{stage.name} could not be started: {error}', sys.stderr)
            return None
        with contextlib.suppress(OSError):  # without this file, a later call does not wait for this stage
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
                start_new_session=True,  # the runner forwards Ctrl-C
                preexec_fn=_leave_with_parent if sys.platform == 'linux' else None,
            )

    def _wait_for_earlier(self) -> None:
        """Wait until stages of a killed call have saved their state. They were signalled when that call died."""
        for stage in self.stages:
            if self._pid_file(stage).is_file():
                text = self._pid_file(stage).read_text(encoding='utf-8').strip()
                pid = int(text) if text.isdigit() else 0
                if _runs(pid, stage.command):
                    say(f'waiting for {stage.name} of an earlier call, which is still saving its state')
                while _runs(pid, stage.command) and not self._stop:
                    if self.deadline is not None and time.monotonic() > self.deadline:
                        self._stop = True
                    time.sleep(POLL)
                if not self._stop:
                    self._count_killed(stage)
                    self._pid_file(stage).unlink()

    def _count_killed(self, stage: Stage) -> None:
        """Add the time of a stage in a killed call, from its start to the last write to its log."""
        if stage.resumable and not self.is_done(stage) and self._log_file(stage).is_file():
            started, ended = (file(stage).stat().st_mtime for file in (self._pid_file, self._log_file))
            self._add_seconds(stage, max(0.0, ended - started))

    def _settle(self, one: Running) -> None:
        """Record how a stage ended."""
        stage, code = one.stage, one.process.returncode
        self._pid_file(stage).unlink(missing_ok=True)
        if code == 0:
            self._record_done(one)
            return
        self._add_attempt(one)
        if code == EXIT_CODE:  # a stop request to a stage, e.g. by a scheduler, is meant for the whole study
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
            say(f'{stage.name} finished, but its record could not be written: {error}', sys.stderr)
            return
        self._seconds[stage.name] = seconds
        self._attempts_file(stage).unlink(missing_ok=True)
        _delete_unmeasured(stage)

    def _end(self, running: list[Running]) -> None:
        """Ask all running stages to save their state, and wait for them."""
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
            if one.process.returncode not in STOPPED:
                self._settle(one)
                self._report(one, running)
                continue
            self._add_attempt(one)
            anew = (
                ''
                if one.stage.resumable
                else ', which will restart from scratch; allow enough time for it in the next call'
            )
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
        """Estimate the remaining seconds from finished stages of the same kind; None if a kind has not run yet."""
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
        say('stopping: waiting for stages to save their state', sys.stderr)

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
        """Return the seconds spent on a stage in earlier calls, or 0 if that record is damaged."""
        path = self._attempts_file(stage)
        try:
            return float(read_json(path, 'the record of an interrupted stage')['seconds']) if path.is_file() else 0.0
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f'the time spent in earlier calls is lost: {path}: {error}', sys.stderr)
            return 0.0

    def _add_attempt(self, one: Running) -> None:
        if one.stage.resumable:
            self._add_seconds(one.stage, time.monotonic() - one.started)

    def _add_seconds(self, stage: Stage, seconds: float) -> None:
        with contextlib.suppress(OSError):  # ignore a full disk: only this number is lost
            self._write(self._attempts_file(stage), {'seconds': self._attempts(stage) + seconds})

    @staticmethod
    def _write(path: Path, content: dict[str, Any]) -> None:
        now = datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC')
        write_json(path, {**content, 'written': now})


def say(text: str, stream: IO[str] | None = None) -> None:
    """Print a line. Ignore a closed pipe, e.g. if ``| tee`` ended first."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else Python fails to flush it at exit


def _delete_unmeasured(stage: Stage) -> None:
    """Delete the checkpoints of a finished stage that are not measured, including those of interruptions."""
    for folder in {path.parent for path in stage.keeps}:
        for path in set(folder.glob('iter_*.pth')) - set(stage.keeps):
            path.unlink(missing_ok=True)


def machine() -> str:
    """Return the name of this machine's GPU, or of its CPU and the number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{processor()}, {os.cpu_count()} cores'


def _runs(pid: int, command: Sequence[str]) -> bool:
    """Return whether a process exists and runs this command. Always False without ``/proc``."""
    try:
        there = Path(f'/proc/{pid}/cmdline').read_bytes().decode(errors='replace').split('\0')
    except OSError:
        return False
    return there[1 : len(command)] == list(command[1:])


def _leave_with_parent() -> None:
    """Make the kernel send SIGTERM to the stage when the process of the study dies."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)
