"""One flow per workload, and the `landrecords` command."""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect sends usage data and prints a notice of it unless told not to
