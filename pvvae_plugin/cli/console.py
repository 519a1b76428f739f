"""Console command ``pvvae``. Imports only the standard library until a command is chosen.

Each command is a module with ``main(argv=None)``; ``tools/`` has an equivalent script for each. All of them run in
:func:`start`, which reports errors.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """Module of a command, relative to its package, and its line in ``pvvae --help``."""

    module: str
    help: str


COMMON = {
    'train': Command('train', 'train a VAE or a generator from a config'),
    'test': Command('test', 'evaluate a checkpoint with the test set and metrics of its config'),
    'sample': Command('sample', 'generate videos with a trained generator'),
    'evaluate': Command('evaluate', 'compare two sets of videos: FVD, KVD, Inception Score, PSNR, SSIM, LPIPS'),
    'extract-latents': Command('extract_latents', 'encode a dataset once, to train generators on the latents'),
    'export': Command('export', 'save a trained VAE as a folder that from_pretrained() loads'),
    'verify': Command('verify', 'find unreadable or damaged videos in a dataset'),
    'web': Command('web', 'serve a local web page to try a VAE and a generator'),
}
OTHERS = {
    'inflate': Command('inflate', 'initialize a video VAE from an image VAE'),
    'browse': Command('browse', 'save pictures of the clips that a config gives to the model'),
    'print-config': Command('analysis.print_config', 'print a config with inheritance and overrides applied'),
    'report': Command('analysis.report', 'print the metrics that "pvvae test --out" saved as a table'),
    'get-flops': Command('analysis.get_flops', 'count the parameters and FLOPs of a config'),
    'latents': Command('analysis.latents', "plot a VAE's latents and their Latent Temporal Distance"),
    'probe-latents': Command('analysis.probe_latents', 'measure how well linear probes read motion from latents'),
    'class-accuracy': Command('analysis.class_accuracy', 'measure the class accuracy of a conditional generator'),
    'train-classifier': Command('analysis.train_classifier', 'train the classifier of ClassAccuracy and ProxyFVD'),
    'metric-sensitivity': Command('analysis.metric_sensitivity', 'measure FVD on clips with increasing damage'),
    'plot-logs': Command('analysis.plot_logs', 'plot the logged curves of a run'),
    'convert-ucf101': Command('converters.ucf101', 'check UCF101 and write its lists'),
    'convert-realestate10k': Command('converters.realestate10k', 'write the lists of RealEstate10K'),
    'benchmark': Command('benchmarks', 'measure speed and memory; "pvvae benchmark" lists the benchmarks'),
}


# Each launcher sets one of these to the rank of the process.
RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
# Seconds that other processes wait before they report an error. If the first process failed as well, its error is
# printed, and the launcher ends the others in the meantime.
WAIT_FOR_FIRST = 5.0


def start(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> int | None:
    """Run the ``main`` function of a command, and print errors that are meant for its user without a traceback.

    Unexpected errors keep their traceback. ``--debug``, which every command accepts, shows all tracebacks.

    Args:
        main: The function.
        argv: Its arguments (default: ``sys.argv[1:]``).

    Returns:
        The exit code; ``None`` is 0.

    Example:
        >>> from pvvae_plugin.cli.console import start
        >>> from pvvae_plugin.cli.train import main
        >>> start(main, ['no_such_config'])  # prints "error: no config 'no_such_config.py' in ..."
        1
    """
    argv = sys.argv[1:] if argv is None else argv
    debug = '--debug' in argv
    try:
        return main([argument for argument in argv if argument != '--debug'])
    except Exception as error:
        message = message_for_users(error)
        if debug or message is None:
            raise
        rank = next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)
        if rank:
            time.sleep(WAIT_FOR_FIRST)
        print(f'error: {message}' + (f' (process {rank})' if rank else ''), file=sys.stderr)
        return 1


def message_for_users(error: Exception) -> str | None:
    """Return the message of an error that tells a user what to change, or None if the error is unexpected.

    Messages are meant for users if they are about files and packages, or come from a ``raise`` statement of this
    package or of MMEngine, or from MMEngine's registry, which builds the components of a config.
    """
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    frames = [(frame.filename, frame.line or '') for frame in traceback.extract_tb(error.__traceback__)]
    if 'in DataLoader worker process' in message:  # PyTorch puts the traceback of the worker into the message
        frames = re.findall(r'File "(.+)", line \d+, in .+\n +(.+)', message)
        message = message.rpartition(f'{type(error).__name__}: ')[2].strip()
    file, line = frames[-1]
    packages = [Path(find_spec(name).origin).parent for name in ('pvvae_plugin', 'mmengine')]
    deliberate = line.startswith('raise ') and any(Path(file).is_relative_to(package) for package in packages)
    of_a_config = Path(file).is_relative_to(packages[1] / 'registry')
    return message if deliberate or of_a_config or isinstance(error, (OSError, ImportError)) else None


def main(argv: list[str] | None = None) -> int | None:
    """Run a command of ``pvvae``.

    Args:
        argv: The command and its arguments (default: ``sys.argv[1:]``).

    Returns:
        The exit code; ``None`` is 0.

    Example:
        >>> from pvvae_plugin.cli.console import main
        >>> main(['trian'])
        2
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ['--version']:
        from pvvae_plugin.version import __version__

        print(__version__)
        return 0
    groups = {'commands': COMMON, 'more commands': OTHERS}
    return start(lambda arguments: run_command('pvvae', 'pvvae_plugin.cli', groups, arguments), argv)


def run_command(prog: str, package: str, groups: dict[str, dict[str, Command]], argv: list[str]) -> int | None:
    """Run one of several commands, or list them.

    Args:
        prog: The command line before the command name.
        package: The package that contains the command modules.
        groups: Commands by name, for each group heading.
        argv: The command name and its arguments.
    """
    if not argv or argv[0] in ('-h', '--help'):
        print(help_text(prog, groups), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *arguments = argv
    commands = {name: command for group in groups.values() for name, command in group.items()}
    if name not in commands:
        close = difflib.get_close_matches(name.replace('_', '-'), commands, n=1)
        meant = f'did you mean {close[0]!r}? ' if close else ''
        print(f'error: {prog} has no command {name!r}; {meant}"{prog} --help" lists all commands', file=sys.stderr)
        return 2
    module = importlib.import_module(f'{package}.{commands[name].module}')
    # argparse reads the name for "usage: ..." from sys.argv.
    saved, sys.argv = sys.argv, [f'{prog} {name}', *arguments]
    try:
        return module.main(arguments)
    finally:
        sys.argv = saved


def help_text(prog: str, groups: dict[str, dict[str, Command]]) -> str:
    """Return the text of ``--help``, one line per command."""
    width = max(len(name) for group in groups.values() for name in group) + 2
    lines = [f'usage: {prog} COMMAND [ARGUMENTS ...]']
    for heading, group in groups.items():
        lines += ['', f'{heading}:', *(f'  {name:<{width}}{command.help}' for name, command in group.items())]
    return '\n'.join(
        [
            *lines,
            '',
            f'"{prog} COMMAND --help" describes a command and its arguments.',
            'With --debug, every command shows the traceback of an error.',
        ]
    )


if __name__ == '__main__':  # for launchers that start a module
    sys.exit(main())
