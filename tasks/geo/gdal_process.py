"""Writing a layer with GDAL: Arrow record batches in, a file out. By itself a process that is fed by a pipe.

It says on its standard output why it could not, and exits with 1.

order: path, driver, layer, geometry, kind, crs, options; source: a GeoPackage whose only layer is copied instead.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

if __name__ == "__main__":  # pyogrio imports both where they are installed: half a second
    sys.modules.update({"pandas": None, "geopandas": None})  # type: ignore[dict-item]

import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

ROWS_AT_ONCE = 4096

# nobody sees a file before it is whole, and then it is synced
pyogrio.set_gdal_config_options({"OGR_SQLITE_SYNCHRONOUS": "OFF"})


def refusal(batches: Any, order: dict[str, Any]) -> str | None:
    """Writes the file, or says why not.

    batches  a pyarrow.RecordBatchReader
    """
    try:
        pyogrio.write_arrow(
            batches, order["path"], driver=order["driver"], layer=order["layer"], geometry_name=order["geometry"],
            geometry_type=order["kind"], crs=order["crs"], encoding=order.get("encoding"),
            layer_options=order["options"],
        )  # fmt: skip
    except (DataLayerError, DataSourceError) as exc:
        return str(exc) or type(exc).__name__
    except (OSError, ValueError, pa.ArrowException) as exc:
        return f"{type(exc).__name__}: {exc}"
    return None


def main(order: dict[str, Any]) -> int:
    """From the standard input, or a file."""
    warnings.simplefilter("ignore")  # a layer without CRS, a Z among flat ones: as ordered
    if "source" in order:
        with pyogrio.open_arrow(order["source"], use_pyarrow=True, batch_size=ROWS_AT_ONCE) as (_, reader):
            why = refusal(reader, order)
    else:
        why = refusal(pa.ipc.open_stream(pa.PythonFile(sys.stdin.buffer, "r")), order)
    if why is not None:
        print(why)  # noqa: T201 - the parent reads it
    return 0 if why is None else 1


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
