"""Start a script in several processes with torchrun and pass on their exit code.

python tools/launch.py GPUS SCRIPT [ARGUMENTS ...]

Used by dist_train.sh and dist_test.sh. For several nodes, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each node. On
one node a free port is selected, so several runs can share it; set PORT to choose the port.

SIGTERM, SIGUSR1 and Ctrl-C are forwarded to the processes, which save their state and exit. If all failed processes
have the same exit code, it is returned (75 after such a signal, 130 after Ctrl-C), else 1. torchrun alone would kill
the processes after 30 seconds and exit with 1.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

INTERRUPTED = 130
PREEMPTED = 75  # pvvae_plugin.engine.stop_request.EXIT_CODE, copied here to avoid the slow import


def children() -> list[int]:
    """Return the child processes of this process."""
    me = os.getpid()
    tasks = Path(f'/proc/{me}/task').glob('*/children')  # Linux
    return [int(number) for task in tasks for number in task.read_text().split()]


received: list[int] = []


def hand_on(number: int, frame: FrameType | None) -> None:
    """Ask the processes to exit, with a signal that torchrun does not handle."""
    received.append(number)
    if not children():
        sys.exit(INTERRUPTED if number == signal.SIGINT else PREEMPTED)
    print(f'{signal.Signals(number).name}: asking the processes to save their state and exit', file=sys.stderr)
    for child in children():
        os.kill(child, signal.SIGUSR1)


def settings() -> dict[str, str]:
    """Return the options of torchrun from the environment.

    Raises:
        ValueError: If a variable is missing or invalid, or the port is in use.
    """
    nodes, rank = os.environ.get('NNODES', '1'), os.environ.get('NODE_RANK', '0')
    if not (nodes.isdigit() and rank.isdigit() and int(rank) < int(nodes)):
        raise ValueError(f'NODE_RANK must be in 0..NNODES - 1, got NODE_RANK={rank} and NNODES={nodes}')
    address, port = os.environ.get('MASTER_ADDR', '127.0.0.1'), os.environ.get('PORT')
    if int(nodes) > 1 and ('MASTER_ADDR' not in os.environ or port is None):
        raise ValueError(
            f'NNODES={nodes} needs MASTER_ADDR, the address of the node with NODE_RANK=0, and PORT, a free port '
            'there; set both to the same values on all nodes'
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
                f'PORT={port} cannot be used on this machine ({error.strerror}); another run may use it. Set PORT '
                'to another port or, on one node, unset it'
            ) from error
        port = port or str(probe.getsockname()[1])
    return {'nnodes': nodes, 'node-rank': rank, 'master-addr': address, 'master-port': port}


def main() -> int:
    if len(sys.argv) < 3 or not sys.argv[1].isdigit() or int(sys.argv[1]) < 1:
        print(f'error: usage: {sys.argv[0]} GPUS SCRIPT [ARGUMENTS ...], where GPUS is at least 1', file=sys.stderr)
        return 2
    processes, script, *arguments = sys.argv[1:]
    try:
        options = [f'--{name}={value}' for name, value in settings().items()]
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for name in ('SIGTERM', 'SIGUSR1', 'SIGINT'):
        signal.signal(getattr(signal, name), hand_on)
    # These imports take seconds; set the handlers first, so that no signal is lost.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser
    from torch.distributed.run import main as torchrun

    if '--signals-to-handle' in get_args_parser().format_help():  # older versions handle these signals themselves
        # nohup ignores SIGHUP; keep it so.
        hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else ['SIGHUP']
        options.append(f'--signals-to-handle={",".join([*hangup, "SIGQUIT"])}')
    try:
        torchrun([*options, f'--nproc-per-node={processes}', script, *arguments])
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if codes & {PREEMPTED, -signal.SIGUSR1} and codes <= {PREEMPTED, -signal.SIGTERM, -signal.SIGUSR1}:
            return INTERRUPTED if signal.SIGINT in received else PREEMPTED
        rank, first = error.get_first_failure()
        if first.exitcode < 0:  # killed, so it printed no error
            print(error, file=sys.stderr)
        how = f'exit code {first.exitcode}' if first.exitcode > 0 else signal.Signals(-first.exitcode).name
        print(
            f'process {rank} ended first ({how}); see its message above. Use --resume to continue',
            file=sys.stderr,
        )
        return max(1, codes.pop() if len(codes) == 1 else 1)
    return 0


if __name__ == '__main__':
    sys.exit(main())
