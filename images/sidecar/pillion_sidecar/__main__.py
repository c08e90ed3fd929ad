"""`pillion sidecar`: one sidecar beside one app."""

from __future__ import annotations

import os
import sys

from pillion_common import config, lifecycle, logs
from pillion_common.errors import ConfigError
from pillion_common.trust import Token
from pillion_sidecar.settings import DESCRIPTION, PROGRAM, Settings, with_fallbacks
from pillion_sidecar.sidecar import Sidecar, open_spool


def main(argv: list[str] | None = None) -> int:
    """Run the sidecar; returns the exit code."""
    try:
        settings = config.load(Settings, PROGRAM, sys.argv[1:] if argv is None else argv, with_fallbacks(os.environ), DESCRIPTION)
        token = Token.load(settings.token_file)
        logs.set_up(PROGRAM, settings.log_level)
        spool = open_spool(settings)
    except ConfigError as exc:
        return lifecycle.refuse(PROGRAM, exc)
    return lifecycle.run(PROGRAM, lambda life: Sidecar(life, settings, token, spool))


if __name__ == "__main__":
    sys.exit(main())
