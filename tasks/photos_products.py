"""What is made of a site once its photos are read: outliers marked, tables, a map, a thumbnail."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from prefect import task

from tasks.errors import refuse_when_stopped
from tasks.photos_tools import Job, Toolbox, toolbox
from tasks.pipeline import PAGE, PageResult
from tasks.postgres import sql_text
from tasks.site_names import store_folder
from tasks.site_outliers import find_outliers
from tasks.site_photo import SitePhoto
from tasks.site_products import THUMBNAIL, site_products


@dataclass(frozen=True)
class Made:
    """Files on this machine that belong into the store: path -> key, media type."""

    site: str
    files: dict[Path, tuple[str, str]]
    photos: int
    positioned: int
    outliers: int
    as_of: str


@dataclass(frozen=True)
class Stored(PageResult):
    """A site's products in the store.

    addresses  file name -> URL
    size       of all of them, bytes
    thumbnail  its file here, as long as the run lasts
    """

    site: str = ""
    photos: int = 0
    positioned: int = 0
    outliers: int = 0
    addresses: dict[str, str] = field(default_factory=dict)
    size: int = 0
    thumbnail: Path | None = None


@task(**PAGE, task_run_name="products-{site}")
def make_products(job: Job, site: str) -> Made:
    """Mark the outliers of a site, then make its GeoJSON, CSV, GeoPackage, map and thumbnail."""
    tools = toolbox(job)
    refuse_when_stopped(tools.stop)
    as_of = str(tools.database.rows("SELECT clock_timestamp()::text")[0][0])
    numbers, photos = _photos(tools, site)
    outlying = find_outliers(photos)
    _mark(tools, site, [number for number, out in zip(numbers, outlying, strict=True) if out])
    photos = [replace(photo, outlier=out) for photo, out in zip(photos, outlying, strict=True)]
    folder = Path(tempfile.mkdtemp(dir=tools.work))
    files = {}
    for product in site_products(site, photos):
        path = folder / product.name
        path.write_bytes(product.content)
        files[path] = (f"{store_folder(site)}/{product.name}", product.media_type)
    positioned = sum(photo.position is not None for photo in photos)
    return Made(site, files, len(photos), positioned, sum(outlying), as_of)


@task(**PAGE, task_run_name="upload-{made.site}")
def upload_products(job: Job, made: Made) -> Stored:
    """Put a site's products into the store; its row then says as of when they are."""
    tools = toolbox(job)
    refuse_when_stopped(tools.stop)
    addresses, size = {}, sum(path.stat().st_size for path in made.files)
    for path, (key, media_type) in made.files.items():
        addresses[path.name] = tools.store.put_replacing(key, path, content_type=media_type, stop=tools.stop).url
    for path in made.files:
        if path.name != THUMBNAIL:  # the report shows it
            path.unlink()
    tools.database.rows(
        "UPDATE sites SET products_at = %s WHERE host = %s AND site = %s", (made.as_of, job.access.name, made.site)
    )
    thumbnail = next((path for path in made.files if path.name == THUMBNAIL), None)
    return Stored(0, (), {}, made.site, made.photos, made.positioned, made.outliers, addresses, size, thumbnail)


def sites_to_make(tools: Toolbox, names: list[str]) -> list[str]:
    """Of these sites, those whose photos changed or were read since their products were made, or that have none."""
    rows = tools.database.rows(sql_text("photos_sites_to_make"), {"host": tools.job.access.name, "sites": names})
    return [site for (site,) in rows]


def _photos(tools: Toolbox, site: str) -> tuple[list[int], list[SitePhoto]]:
    rows = tools.database.rows(sql_text("photos_of_site"), {"host": tools.job.access.name, "site": site})
    numbers, photos = [], []
    for number, of_site, folder, raw_path, *facts in rows:
        flag, lat, lon, altitude, ref, relative, direction, taken_at, camera, size, status = facts
        numbers.append(number)
        photos.append(
            SitePhoto(
                site=of_site,
                folder=folder,
                path=os.fsdecode(bytes(raw_path)),
                flag=flag,
                latitude=lat,
                longitude=lon,
                altitude_m=altitude,
                altitude_ref=ref,
                relative_altitude_m=relative,
                direction_deg=direction,
                taken_at=taken_at,
                camera=camera,
                size=size,
                status=status,
            )
        )
    return numbers, photos


def _mark(tools: Toolbox, site: str, outlying: list[int]) -> None:
    """Only rows whose mark changes are written."""
    tools.database.rows(
        "UPDATE site_images SET outlier = NOT outlier WHERE host = %s AND site = %s AND outlier <> (id = ANY(%s))",
        (tools.job.access.name, site, outlying),
    )
