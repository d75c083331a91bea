"""A worker process of the local runner: Beam's own, quiet, and without the pipeline's credentials in its log.

Beam's worker writes all pipeline options to its log when it starts.
"""

from __future__ import annotations

import logging
import os
import sys

from pipelines.core.logs import quiet
from pipelines.core.runners import hide_credentials


def main() -> None:
    """Serve the runner that started this process, as the environment says."""
    from apache_beam.runners.worker import sdk_worker_main

    logging.getLogger().handlers.clear()  # made by Beam's import; logs go to the runner, not to this console
    quiet()
    hide_credentials(sdk_worker_main._parse_pipeline_options(os.environ.get("PIPELINE_OPTIONS")))
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
