"""Licences, banned crates and sources of the whole dependency tree against deny.toml, without the network."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def allowed(expression: str, licences: set[str]) -> bool:
    """Whether an SPDX expression can be met by the licences; the old `/` is OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def any_of() -> bool:
        met = all_of()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = all_of() or met
        return met

    def all_of() -> bool:
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one() -> bool:
        token = tokens.pop(0)
        if token == "(":
            met = any_of()
            tokens.pop(0)
            return met
        if tokens[:1] == ["WITH"]:
            tokens.pop(0)
            token = f"{token} WITH {tokens.pop(0)}"
        return token in licences

    met = any_of()
    if tokens:
        raise ValueError(f"not an SPDX expression: {expression}")
    return met


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    licences = set(rules["licenses"]["allow"])
    assert allowed("MIT", licences) and not allowed("GPL-3.0", licences)
    assert allowed("GPL-3.0 OR (MIT AND ISC)", licences) and not allowed("MIT AND GPL-3.0", licences)
    banned = {ban["crate"]: ban["reason"] for ban in rules["bans"]["deny"]}
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    def cargo(*words: str) -> str:
        return subprocess.run(["cargo", *words, "--locked", "--all-features"], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    # The tree has what is built; the metadata also names what a weak feature could have turned on.
    lines = cargo("tree", "--target", "all", "--prefix", "none", "--format", "{p}").splitlines()
    built = {tuple(line.split()[:2]) for line in lines if line}
    packages = json.loads(cargo("metadata", "--format-version", "1"))["packages"]
    packages = [package for package in packages if (package["name"], f"v{package['version']}") in built]
    assert len(packages) == len(built) > 50, f"{len(packages)} of {len(built)} packages are known"
    faults = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["name"] in banned:
            faults.append(f"{name}: banned, {banned[package['name']]}")
        if package["source"] is not None and package["source"] not in registries:
            faults.append(f"{name}: from {package['source']}")
        if not package["license"] or not allowed(package["license"], licences):
            faults.append(f"{name}: licence {package['license']}")
    print(f"{len(packages)} packages, {len(faults)} faults")
    print("".join(f"{fault}\n" for fault in faults), end="")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
