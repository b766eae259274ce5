"""The Kubernetes manifests against the product: embedded configurations pass `serin check`, grace periods outlast the drain.

usage: manifests.py SERIN FILE...
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)\s*(ms|s|m|h)", text))


def main() -> int:
    serin, *files = sys.argv[1:]
    faults, checked = [], 0
    for file in files:
        documents = [document for document in yaml.safe_load_all(Path(file).read_text()) if "kind" in document]
        configs = [d["data"]["serin.toml"] for d in documents if d["kind"] == "ConfigMap"]
        for config in configs:
            checked += 1
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "serin.toml"
                path.write_text(config)
                ran = subprocess.run([serin, "check", str(path)], capture_output=True, text=True, check=False)
            if ran.returncode != 0:
                faults.append(f"{file}: {ran.stdout}{ran.stderr}")
            drain = tomllib.loads(config)["drain"]
            need = seconds(drain["delay"]) + seconds(drain["timeout"])
            for deployment in (d for d in documents if d["kind"] == "Deployment"):
                grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
                if grace <= need:
                    faults.append(f"{file}: terminationGracePeriodSeconds {grace} is not above the drain's {need:g}")
    if checked < 2:
        faults.append(f"only {checked} configurations were found")
    print(f"{checked} embedded configurations, {len(faults)} faults")
    print("".join(f"{fault}\n" for fault in faults), end="")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
