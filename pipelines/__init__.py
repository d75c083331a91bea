"""The pipelines of Gristmill, one module per stage."""

import logging


def _is_for_us(record: logging.LogRecord) -> bool:
    return "apitools not found" not in str(record.msg)


# Beam warns on every import that an optional Google library is missing; who did not ask for it cannot act on it.
logging.getLogger().addFilter(_is_for_us)
