"""`python -m cloud --root DIR [--api-port N …]`: runs the service; port 0 takes a free one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cloud import app, settings
from nucleus.core import errors


def main() -> int:
    parser = argparse.ArgumentParser(prog="cloud", description="Runs the Marram service.")
    parser.add_argument("--root", type=Path, required=True, help="the service's folder, made by `marram cloud init`")
    defaults = settings.Settings()
    for name in ("api_port", "device_port", "mqtt_port"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument("--host", default=defaults.host, help="address to listen on")
    parser.add_argument("--name", action="append", default=[], help="name that devices use; may be repeated")
    arguments = parser.parse_args()
    chosen = settings.Settings(
        api_port=arguments.api_port,
        device_port=arguments.device_port,
        mqtt_port=arguments.mqtt_port,
        host=arguments.host,
        names=tuple(arguments.name) or defaults.names,
    )
    try:
        return app.run(arguments.root, chosen)
    except (errors.NucleusError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
