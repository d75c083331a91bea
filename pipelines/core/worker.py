"""A worker process of the local runner: Beam's own, quiet, and without the pipeline's credentials in its log.

Beam's worker writes all pipeline options to its log when it starts.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

from pipelines.core.allocator import keep_freed_memory
from pipelines.core.logs import quiet
from pipelines.core.runners import DRIVER, hide_credentials
from pipelines.core.start import imported

_LOOK = 1.0  # seconds between looks at the driver


def end_with(driver: int, end: Path) -> None:
    """End this process when the driver is gone or a file says so: nobody would read what it still writes."""
    while not end.exists():
        time.sleep(_LOOK)
        try:
            os.kill(driver, 0)
        except OSError:
            break
    os._exit(1)


def main() -> None:
    """Serve the runner that started this process, as the environment says."""
    from apache_beam.runners.worker import sdk_worker_main

    imported()
    driver, _, end = os.environ.get(DRIVER, "").partition(" ")
    if driver.isdigit():
        threading.Thread(target=end_with, args=(int(driver), Path(end)), daemon=True).start()
    keep_freed_memory()
    logging.getLogger().handlers.clear()  # made by Beam's import; logs go to the runner, not to this console
    quiet()
    hide_credentials(sdk_worker_main._parse_pipeline_options(os.environ.get("PIPELINE_OPTIONS")))
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
