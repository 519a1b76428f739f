"""Missing packages and files, collected and reported together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Missing:
    """Collect errors about missing packages and files, to raise them as one error.

    Attributes:
        errors (list[Exception]): The errors so far.

    Example:
        >>> from pvvae_plugin.missing import Missing
        >>> missing = Missing()
        >>> missing.collect(open, 'no_such_weights.pth')
        >>> missing.collect(__import__, 'no_such_package')
        >>> try:
        ...     missing.report()
        ... except FileNotFoundError as error:
        ...     print(error)
        2 things are missing:
        - [Errno 2] No such file or directory: 'no_such_weights.pth'
        - No module named 'no_such_package'
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def collect(self, call: Callable[..., Any], *args: Any) -> Any:
        """Return ``call(*args)``, or None if a package or a file is missing."""
        try:
            return call(*args)
        except (FileNotFoundError, ImportError) as error:
            self.errors += getattr(error, 'parts', [error])  # of another report
            return None

    def report(self) -> None:
        """Raise the errors, if any.

        Raises:
            FileNotFoundError, ImportError: The type of the first error.
        """
        texts = list(dict.fromkeys(map(str, self.errors)))
        if len(texts) == 1:
            raise self.errors[0]
        if texts:
            listed = '\n'.join(f'- {text}' for text in texts)
            error = type(self.errors[0])(f'{len(texts)} things are missing:\n{listed}')
            error.parts = self.errors
            raise error
