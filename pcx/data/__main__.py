"""Read a data set, and download it on request: `python -m pcx.data mnist --data-dir ~/data`."""

import argparse
import sys

from pcx.data import DATASETS, load


def main() -> None:
    """Read the set that the command line names, and print what it holds."""
    parser = argparse.ArgumentParser(prog="python -m pcx.data", description=__doc__)
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("--data-dir", default=".", help="where the set's folder is, or will be")
    parser.add_argument(
        "--download",
        nargs="?",
        const=True,
        default=False,
        metavar="ADDRESS",
        help="fetch missing files from the official server, or from this one; checked by their MD5",
    )
    arguments = parser.parse_args()
    try:
        data = load(arguments.name, arguments.data_dir, download=arguments.download)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{data}\n")


if __name__ == "__main__":
    main()
