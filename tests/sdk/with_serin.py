"""Starts two scripted model servers and a serin between, then runs a command with their addresses in its environment.

usage: with_serin.py SERIN MODEL_SERVER COMMAND...

The command finds SERIN_URL (the listener), SERIN_ADMIN (the admin API), SERIN_ROLLOUT, SERIN_STABLE and SERIN_CANARY (version
names). Its exit code is ours. Everything listens on free ports of 127.0.0.1; serin says which.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

CONFIG = """
[admin]
listen = "127.0.0.1:0"

[listeners.sdk]
listen = "127.0.0.1:0"

[log]
format = "json"

[rollouts.chat]
unit = ["header:x-user-id"]
weight = 0.0
prices = {{ input = 0.4, cached_input = 0.1, cache_write = 0.5, output = 1.6, per = "1M" }}
# A plain split: what is tested here is whose version is whose, not the judge.
[rollouts.chat.evaluator]
enabled = false

[rollouts.chat.stable]
version = "model-a"
endpoints = ["http://{stable}"]
# The model server ends connections that are idle for 30 s; on a machine that stands still, be well below that.
pool = {{ idle_for = "5s" }}

[rollouts.chat.canary]
version = "model-b"
endpoints = ["http://{canary}"]
pool = {{ idle_for = "5s" }}
"""
START_S = 20


def addresses(value, path=""):
    """All (key path, address) pairs inside a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from addresses(inner, f"{path}.{key}")
        labels = [text for text in value.values() if isinstance(text, str)]
        for text in labels:
            if re.fullmatch(r"127\.0\.0\.1:\d+", text):
                yield path + "." + ".".join(labels), text
    elif isinstance(value, list):
        for inner in value:
            yield from addresses(inner, path)
    elif isinstance(value, str):
        for found in re.findall(r"127\.0\.0\.1:\d+", value):
            yield path + "." + value, found


def bound(log: Path, process) -> tuple[str, str]:
    """The listener's and the admin's address, from what serin printed."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        admin = listener = None
        for line in log.read_text().splitlines():
            try:
                pairs = list(addresses(json.loads(line)))
            except ValueError:
                pairs = [(line[: found.start()], found.group()) for found in re.finditer(r"127\.0\.0\.1:\d+", line)]
            for path, address in pairs:
                if "admin" in path:
                    admin = admin or address
                elif "listener" in path or "sdk" in path:
                    listener = listener or address
        if admin and listener and admin != listener:
            return listener, admin
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"serin did not say where it listens:\n{log.read_text()}")


def wait_ready(admin: str) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://{admin}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.05)
    raise SystemExit("serin did not become ready")


def main() -> int:
    serin, model_server = (str(Path(path).resolve()) for path in sys.argv[1:3])
    command = sys.argv[3:]
    started = []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "serin.log"
        try:
            models = []
            for version in ("model-a", "model-b"):
                model = subprocess.Popen(
                    [model_server, version, "--caches"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                started.append(model)
                models.append(model.stdout.readline().strip())
            config = Path(folder) / "serin.toml"
            config.write_text(CONFIG.format(stable=models[0], canary=models[1]))
            with log.open("w") as stream:
                process = subprocess.Popen([serin, "run", "-c", str(config)], cwd=folder, stdout=stream, stderr=stream)
            started.append(process)
            listener, admin = bound(log, process)
            wait_ready(admin)
            environment = os.environ | {
                "SERIN_URL": f"http://{listener}",
                "SERIN_ADMIN": f"http://{admin}",
                "SERIN_ROLLOUT": "chat",
                "SERIN_STABLE": "model-a",
                "SERIN_CANARY": "model-b",
            }
            code = subprocess.run(command, env=environment, check=False).returncode
            if code == 0 and process.poll() is not None:
                print(f"serin ended by itself with {process.returncode}")
                code = 1
            if code != 0:
                print("".join(log.read_text().splitlines(keepends=True)[-40:]))
                return code
            process.send_signal(signal.SIGTERM)
            ended = process.wait(30)
            if ended != 0:
                print(f"serin ended with {ended} after TERM:\n{log.read_text()[-4000:]}")
                return 1
            return 0
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()


if __name__ == "__main__":
    sys.exit(main())
