"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from semid_jax import artifacts


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Lends a temporary file that takes the place of `path` on success and is gone on error.

    Args:
      path: the final place; its folder is made, an older file there is replaced.

    Yields:
      A path in a temporary folder beside it, of the same name.

    Raises:
      InputError: the disk is full or not writable.
    """
    path = Path(path)
    with artifacts.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            yield temporary
            os.replace(temporary, path)
