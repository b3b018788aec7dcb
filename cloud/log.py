"""Logs of the service: events as records, one line each, as text for people or JSON for machines."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(*, json: bool = False, stream: TextIO | None = None, level: str = "info") -> structlog.stdlib.BoundLogger:
    """Sets up the process's logging to a stream (standard error by default); returns the root logger.

    The stream stays the caller's to close. Raises ValueError for an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"cannot log at level {level!r}: choose one of {', '.join(LEVELS)}")
    stream = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_rendering(json, colors=stream.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger


def _rendering(json: bool, *, colors: bool) -> list[structlog.typing.Processor]:
    if json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Plain tracebacks: rich's are for terminals and cost memory.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, pad_event_to=24)]
