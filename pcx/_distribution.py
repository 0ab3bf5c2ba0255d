"""Who else installs a package called `pcx`, and how to install what is optional here."""

import importlib.metadata
import warnings
from pathlib import Path

from ._version import __version__ as __version__

NAME = "pcx-networks"

OTHER = """another distribution, {name} {version}, is installed in this environment and has a package `pcx` too \
({where}); of two in one folder, files are mixed. This is {ours} {ours_version}. Keep one of them: \
`pip uninstall {name} {ours}`, then install the one you want."""


def warn_of_another() -> None:
    """Warn when the index's other `pcx` is installed as well: pip lets one overwrite the other's files.

    An editable install has no files of that name and is left alone. The look-up takes less than a
    millisecond, since importing equinox has read the folders before.
    """
    for found in importlib.metadata.distributions(name="pcx"):
        where = Path(str(found.locate_file("pcx/__init__.py")))
        if where.is_file():
            message = OTHER.format(
                name="pcx", version=found.version, where=where, ours=NAME, ours_version=__version__
            )
            warnings.warn(message, stacklevel=4)
            return


warn_of_another()
