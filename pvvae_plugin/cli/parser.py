"""Argument parser of the commands."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """``ArgumentParser`` for a command: accepts ``--debug``, and suggests an option for an unknown one.

    Args:
        description: Docstring of the command; ``--help`` prints it unchanged.

    Example:
        >>> from pvvae_plugin.cli.parser import CommandParser
        >>> parser = CommandParser(description='Train a model.')
        >>> _ = parser.add_argument('--work-dir')
        >>> parser.parse_args(['--work-dir', 'runs']).work_dir
        'runs'
        >>> parser.suggest('--work_dir')
        ['--work-dir']
    """

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        # cli.console.start handles this option.
        self.add_argument('--debug', action='store_true', help='show the traceback of an error')

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            near = [option for text in unknown for option in self.suggest(text)]
            meant = f'; did you mean {", ".join(near)}?' if near else ''
            self.error(f'unrecognized arguments: {" ".join(unknown)}{meant}')
        return parsed

    def suggest(self, text: str) -> list[str]:
        """Return the option that is most similar to an unknown one, in a list; empty if none is similar."""
        listed = [action for action in self._actions if action.help != argparse.SUPPRESS]
        options = [option for action in listed for option in action.option_strings]
        return difflib.get_close_matches(text.partition('=')[0], options, n=1) if text.startswith('-') else []
