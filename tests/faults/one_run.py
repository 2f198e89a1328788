"""One documents run as a plain function, like a user's script: tests kill it, cut it off and fill its disk.

`python one_run.py '{"portal_url": ...}'` prints the report as one line of JSON. Exit codes as the command line's.
"""

import json
import sys

from flows.documents import documents
from tasks.errors import ConfigurationError, OutsideUnreachable

try:
    report = documents(**json.loads(sys.argv[1]))
except (ConfigurationError, OutsideUnreachable) as exc:
    print(f"landrecords: {exc}", file=sys.stderr)
    sys.exit(2 if isinstance(exc, ConfigurationError) else 3)
print(report.model_dump_json())
sys.exit(report.exit_code)
