"""`python -m nucleus --root DIR [--config FILE]`: runs the daemon without the command line's packages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nucleus import app
from nucleus.core import errors


def main() -> int:
    parser = argparse.ArgumentParser(prog="nucleus", description="Runs the Marram nucleus.")
    parser.add_argument("--root", type=Path, required=True, help="the nucleus's folder; made if absent")
    parser.add_argument(
        "--config", type=Path, help="file that replaces the whole configuration, once (default: ROOT/config.yaml)"
    )
    arguments = parser.parse_args()
    try:
        return app.run(arguments.root, arguments.config)
    except errors.NucleusError as error:
        print(f"error: {error.detail} [{error.code}]", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
