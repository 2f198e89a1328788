"""One run of a flow as a plain function, like a user's script: tests kill it, cut it off and fill its disk.

`python one_run.py FLOW '{"portal_url": ...}'` prints the report as one line of JSON. Exit codes as the command line's.
With `--wait` it begins when it reads a line, everything imported.
"""

import json
import sys
from importlib import import_module

from tasks.errors import ConfigurationError, OutsideUnreachable

name, given = sys.argv[1:3]
flow = getattr(import_module(f"flows.{name}"), name)
if "--wait" in sys.argv:
    sys.stdin.readline()
try:
    report = flow(**json.loads(given))
except (ConfigurationError, OutsideUnreachable) as exc:
    print(f"landrecords: {exc}", file=sys.stderr)
    sys.exit(2 if isinstance(exc, ConfigurationError) else 3)
print(report.model_dump_json())
sys.exit(report.exit_code)
