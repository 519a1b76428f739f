"""Start a script in several processes with torchrun, and end as they end.

python tools/launch.py GPUS SCRIPT [ARGUMENTS ...]

Used by dist_train.sh and dist_test.sh. Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. On one node
a free port is found, so that runs do not get in each other's way; PORT names another.

SIGTERM, SIGUSR1 and Ctrl-C are handed to the processes, which save their state and leave. The exit code is theirs
where all that failed agree (75 after such a stop, 130 after Ctrl-C), and else 1. torchrun itself would give them 30
seconds, and exit with 1.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

INTERRUPTED = 130
PREEMPTED = 75  # pvvae_plugin.engine.stop_request.EXIT_CODE, without the time that its import takes


def children() -> list[int]:
    """Processes that this one has started."""
    me = os.getpid()
    tasks = Path(f'/proc/{me}/task').glob('*/children')  # Linux
    return [int(number) for task in tasks for number in task.read_text().split()]


received: list[int] = []


def hand_on(number: int, frame: FrameType | None) -> None:
    """Ask the processes to leave, by a signal that torchrun does not handle."""
    received.append(number)
    if not children():
        sys.exit(INTERRUPTED if number == signal.SIGINT else PREEMPTED)
    print(f'{signal.Signals(number).name}: the processes are asked to save their state and leave', file=sys.stderr)
    for child in children():
        os.kill(child, signal.SIGUSR1)


def settings() -> dict[str, str]:
    """Options of torchrun from the environment.

    Raises:
        ValueError: If one is missing or the port is taken, saying what to set.
    """
    nodes, rank = os.environ.get('NNODES', '1'), os.environ.get('NODE_RANK', '0')
    if not (nodes.isdigit() and rank.isdigit() and int(rank) < int(nodes)):
        raise ValueError(f'NODE_RANK must lie in 0..NNODES - 1, got NODE_RANK={rank} and NNODES={nodes}')
    address, port = os.environ.get('MASTER_ADDR', '127.0.0.1'), os.environ.get('PORT')
    if int(nodes) > 1 and ('MASTER_ADDR' not in os.environ or port is None):
        raise ValueError(
            f'NNODES={nodes} needs MASTER_ADDR, the address of the node of NODE_RANK=0, and PORT, free there and the '
            'same on all nodes'
        )
    if port is not None and not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f'PORT must be a number from 1 to 65535, got {port!r}')
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if rank == '0':
                probe.bind(('', int(port or 0)))
        except OSError as error:
            raise ValueError(
                f'PORT={port} cannot be used on this machine ({error.strerror}), by another run perhaps: set PORT to '
                'another, or on one node leave it unset'
            ) from error
        port = port or str(probe.getsockname()[1])
    return {'nnodes': nodes, 'node-rank': rank, 'master-addr': address, 'master-port': port}


def main() -> int:
    if len(sys.argv) < 3 or not sys.argv[1].isdigit() or int(sys.argv[1]) < 1:
        print(f'error: usage: {sys.argv[0]} GPUS SCRIPT [ARGUMENTS ...], GPUS at least 1', file=sys.stderr)
        return 2
    processes, script, *arguments = sys.argv[1:]
    try:
        options = [f'--{name}={value}' for name, value in settings().items()]
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for name in ('SIGTERM', 'SIGUSR1', 'SIGINT'):
        signal.signal(getattr(signal, name), hand_on)
    # Seconds, in which a signal must not be lost.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser
    from torch.distributed.run import main as torchrun

    if '--signals-to-handle' in get_args_parser().format_help():  # older ones take these signals themselves
        # Under nohup the end of a terminal is ignored.
        hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else ['SIGHUP']
        options.append(f'--signals-to-handle={",".join([*hangup, "SIGQUIT"])}')
    try:
        torchrun([*options, f'--nproc-per-node={processes}', script, *arguments])
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if codes & {PREEMPTED, -signal.SIGUSR1} and codes <= {PREEMPTED, -signal.SIGTERM, -signal.SIGUSR1}:
            return INTERRUPTED if signal.SIGINT in received else PREEMPTED
        print(error, file=sys.stderr)
        rank, first = error.get_first_failure()
        how = f'exit code {first.exitcode}' if first.exitcode > 0 else signal.Signals(-first.exitcode).name
        print(
            f'process {rank} ended first, by {how}: its message is above. --resume goes on from the last checkpoint',
            file=sys.stderr,
        )
        return max(1, codes.pop() if len(codes) == 1 else 1)
    return 0


if __name__ == '__main__':
    sys.exit(main())
