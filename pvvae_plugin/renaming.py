"""Deprecated names of arguments and command-line options, accepted with a warning for one release."""

from __future__ import annotations

import argparse
import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar('F', bound=Callable[..., Any])


def renamed_arguments(**new_names: str) -> Callable[[F], F]:
    """Accept deprecated argument names in a function or an ``__init__``.

    Args:
        **new_names: Old name -> new name.

    Returns:
        A decorator. It stores the mapping as attribute ``old_names`` of the function.

    Raises:
        TypeError: Raised by the decorated function if an argument is given under both names.

    Example:
        >>> import warnings
        >>> from pvvae_plugin.renaming import renamed_arguments
        >>> @renamed_arguments(steps='num_inference_steps')
        ... def sample(num_inference_steps=100):
        ...     return num_inference_steps
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter('ignore')
        ...     sample(steps=5)
        5
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f'{function.__qualname__} got {new!r} and its old name {old!r}; pass only {new!r}')
                warn_renamed(old, new, function.__qualname__)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        call.old_names = {**getattr(function, 'old_names', {}), **new_names}
        return call

    return decorate


def warn_renamed(old: str, new: str, owner: str, stacklevel: int = 3) -> None:
    """Warn that ``old`` is now called ``new``."""
    warnings.warn(
        f'{owner}: {old!r} is now {new!r}; the old name will be removed in the next release',
        FutureWarning,
        stacklevel,
    )


def add_old_option(parser: argparse.ArgumentParser, old: str, new: str, **kwargs: Any) -> None:
    """Accept a deprecated name of a command-line option. ``--help`` does not list it.

    Args:
        parser: Parser that already has the option ``new``.
        old: Old name, e.g. ``'--guidance'``.
        new: New name.
        **kwargs: ``type`` and ``nargs`` of the option.
    """

    class OldOption(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, *_: Any) -> None:
            warn_renamed(old, new, parser.prog)
            setattr(namespace, self.dest, value)

    dest = new.removeprefix('--').replace('-', '_')
    parser.add_argument(old, dest=dest, action=OldOption, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **kwargs)
