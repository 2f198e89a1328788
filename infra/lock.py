"""Keep requirements.txt in step with pyproject.toml; run by `make lock` and `make lint`.

`lock.py inputs` prints what `make lock` resolves beside the project's own requirements: what builds it, so
the editable install of `make setup` fetches nothing. `lock.py check` needs no network: it compares names and
versions and exits 1 with one line for each difference.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)")
# uv's note under a package that pyproject asks for itself.
ASKED_FOR = re.compile(r"^    #\s+(via )?landrecords \(pyproject\.toml\)$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
ADDRESS = re.compile(r"://|^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b")


def build_requirements(pyproject: dict[str, Any]) -> list[str]:
    return list(pyproject["build-system"]["requires"])


def wanted(pyproject: dict[str, Any]) -> list[Requirement]:
    """What the lock must hold: what the project runs on, its `dev` extra, and what builds it."""
    project = pyproject["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"] + build_requirements(pyproject)
    return [Requirement(line) for line in lines]


def locked(lock: str) -> tuple[dict[str, set[str]], set[str]]:
    """Each locked package's versions (several where Pythons differ), and the packages asked for by name."""
    versions: dict[str, set[str]] = {}
    asked: set[str] = set()
    name = ""
    for line in lock.splitlines():
        if pin := PIN.match(line):
            name = canonicalize_name(pin["name"])
            versions.setdefault(name, set()).add(pin["version"])
        elif ASKED_FOR.match(line):
            asked.add(name)
    return versions, asked


def differences(pyproject: dict[str, Any], lock: str) -> list[str]:
    versions, asked = locked(lock)
    requirements = wanted(pyproject)
    names = {canonicalize_name(requirement.name) for requirement in requirements}
    found = [f"{name} is locked but pyproject.toml no longer asks for it" for name in sorted(asked - names)]
    for requirement in requirements:
        pinned = versions.get(canonicalize_name(requirement.name))
        if not pinned:
            found.append(f"{requirement} is not locked")
        elif not all(requirement.specifier.contains(version, prereleases=True) for version in pinned):
            found.append(f"{requirement} is locked at {', '.join(sorted(pinned))}")
    return found


def blemishes(lock: str) -> list[str]:
    """Lines that must not be in the lock: an index address, or a package without a hash."""
    lines = lock.splitlines()
    found = [f"line {n} holds an address: {line}" for n, line in enumerate(lines, 1) if ADDRESS.search(line)]
    neighbours = zip(lines, [*lines[1:], ""], strict=True)
    return found + [f"{line} has no hash" for line, after in neighbours if PIN.match(line) and not HASH.match(after)]


def main(command: str) -> int:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if command == "inputs":
        sys.stdout.write("\n".join(build_requirements(pyproject)) + "\n")
        return 0
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = differences(pyproject, lock) + blemishes(lock)
    for line in found:
        sys.stderr.write(f"requirements.txt: {line}\n")
    if found:
        sys.stderr.write("Run: make lock\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
