"""Files that ship inside installed packages, found without importing them: an import may take seconds."""

import importlib.util
from pathlib import Path

from jaxnets.errors import missing


def packaged(package: str, *parts: str, extra: str, what: str) -> Path:
    """Return the path of a file inside an installed package.

    Args:
        package: the package's import name.
        *parts: folders and file below the package's own folder.
        extra: the extra of jaxnets that installs the package.
        what: what the file holds, for the error.

    Raises:
        ModuleNotFoundError: if the package is not installed, or ships no such file.

    >>> packaged("numpy", "__init__.py", extra="data", what="the numbers").name
    '__init__.py'
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        error = missing(package, extra)
        error.add_note(f"{what} ship inside it")
        raise error
    file = Path(found.submodule_search_locations[0], *parts)
    if not file.is_file():
        raise ModuleNotFoundError(
            f"{what} ship inside {package}, but the one installed has no {'/'.join(parts)}: install another version"
        )
    return file
