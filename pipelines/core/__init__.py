"""What all pipelines share: shards, datasets, commit, ledger, runners, configuration, the command line."""

import logging

# Beam warns on import about optional cloud packages; a person who did not ask for them cannot act on it.
logging.disable(logging.WARNING)
import apache_beam  # noqa: E402, F401

logging.disable(logging.NOTSET)
