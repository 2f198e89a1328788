"""Templates filled and refused."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import ConfigurationError
from tasks.tile_urls import TileUrls


@pytest.mark.parametrize(
    ("template", "options", "url"),
    [
        ("https://a.org/{z}/{x}/{y}.png", {}, "https://a.org/3/2/5.png"),
        ("https://a.org/{z}/{x}/{-y}.png", {}, "https://a.org/3/2/2.png"),
        ("https://a.org/{z}/{x}/{y}.png", {"scheme": "tms"}, "https://a.org/3/2/2.png"),
        ("https://a.org/{z}/{x}/{-y}.png", {"scheme": "tms"}, "https://a.org/3/2/5.png"),
        ("https://a.org/t?k={q}&z={z}", {}, "https://a.org/t?k=212&z=3"),
        ("https://{s}.a.org/{z}/{x}/{y}", {"subdomains": ["u", "v", "w"]}, "https://v.a.org/3/2/5"),
        (
            "https://a.org/wms/?d={x}/{y}/{z}/{variant}",
            {"values": {"variant": "2024 jaro/{x}"}},
            "https://a.org/wms/?d=2/5/3/2024%20jaro%2F%7Bx%7D",
        ),
        (
            "http://a.org:8080/wms?bbox={bbox-epsg-3857}",
            {},
            "http://a.org:8080/wms?bbox=-10018754.1714,-10018754.1714,-5009377.0857,-5009377.0857",
        ),
        ("http://[::1]:80/{z}/{x}/{y}?%7B={x}", {}, "http://[::1]:80/3/2/5?%7B=2"),
    ],
)
def test_filling(template: str, options: dict[str, Any], url: str) -> None:
    assert TileUrls(template, **options).of(3, 2, 5) == url


def test_a_tile_keeps_its_subdomain_and_all_are_used_alike() -> None:
    urls = TileUrls("https://{s}.a.org/{z}/{x}/{y}", subdomains=["a", "b", "c"])
    again = TileUrls("https://{s}.a.org/{z}/{x}/{y}", subdomains=["a", "b", "c"])
    made = [urls.of(9, x, y) for x in range(30) for y in range(30)]
    assert made == [again.of(9, x, y) for x in range(30) for y in range(30)]
    assert {sum(url.startswith(f"https://{label}.") for url in made) for label in "abc"} == {300}


def test_every_host_is_named() -> None:
    urls = TileUrls("https://u:p@{s}.A.org:444/{z}/{x}/{y}", subdomains=["a", "b"])
    assert urls.hosts() == ["a.a.org:444", "b.a.org:444"]
    assert TileUrls("https://a.org/{q}").hosts() == ["a.org"]


@pytest.mark.parametrize(
    ("template", "options", "says"),
    [
        ("https://a.org/{z}/{x}.png", {}, "does not name a tile"),
        ("https://a.org/all.png", {}, "does not name a tile"),
        ("https://a.org/{z}/{x}/{y}/{token}", {}, "asks for {token}"),
        ("https://a.org/{z}/{x}/{y}/{}", {}, "asks for {}"),
        ("https://a.org/{z}/{x}/{y}}", {}, "brace"),
        ("https://a.org/{z}/{x}/{y", {}, "brace"),
        ("ftp://a.org/{z}/{x}/{y}", {}, "no address"),
        ("a.org/{z}/{x}/{y}", {}, "no address"),
        ("https://a.org:port/{z}/{x}/{y}", {}, "no address"),
        ("https://a.org/{z}/{x}/{y} ", {}, "no address"),
        ("https://a.org/{z}/{x}/{y}\r\nHost: b", {}, "no address"),
        ("https://{x}.a.org/{z}/{x}/{y}", {}, "host"),
        ("https://{s}.a.org/{z}/{x}/{y}", {}, "subdomains"),
        ("https://{s}.a.org/{z}/{x}/{y}", {"subdomains": ["a/b"]}, "subdomain"),
        ("https://{s}.a.org/{z}/{x}/{y}", {"subdomains": [""]}, "subdomain"),
        ("https://a.org/{z}/{x}/{y}", {"scheme": "wms"}, "scheme"),
        ("https://a.org/{z}/{x}/{y}", {"values": {"x": "1"}}, "part of the tile"),
    ],
)
def test_templates_that_cannot_work(template: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        TileUrls(template, **options)
    assert "\n" not in str(caught.value)


def test_a_message_keeps_keys_and_passwords_to_itself() -> None:
    with pytest.raises(ConfigurationError) as caught:
        TileUrls("https://me:geheim@a.org/{z}/{x}?key=geheim")
    assert "geheim" not in str(caught.value)
