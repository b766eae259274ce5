"""What four unmodified SDKs report is what serin counts, to the token, and what it charges, over answers mixed and at once.

usage: tokens_agree.py NODE_FOLDER (under with_serin.py, whose prices are below); SERIN_ANSWERS (1200), half from each language.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ADMIN = os.environ["SERIN_ADMIN"]
ANSWERS = int(os.environ.get("SERIN_ANSWERS", "1200"))
KINDS = ("input", "output", "cached_input", "reasoning", "cache_write")
PRICES_NANO = {"fresh": 400, "cached_input": 100, "cache_write": 500, "output": 1600}  # those of with_serin.py, 10^-9 dollars a token
HERE = Path(__file__).parent


def metrics() -> dict[str, float]:
    """Answers, tokens and cost, over all arms."""
    with urllib.request.urlopen(f"{ADMIN}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    wanted = {
        "answers": r'serin_requests_total\{.*outcome="success"',
        "all": r"serin_requests_total\{",
        **{kind: rf'serin_tokens_total\{{.*type="{kind}"' for kind in KINDS},
        "cost": r"serin_cost_usd_total\{",
        "canary": r'serin_tokens_total\{.*arm="canary".*type="output"',
    }
    lines = text.splitlines()
    return {
        name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(pattern, line)) for name, pattern in wanted.items()
    }


def set_weight(percent: float) -> None:
    body = json.dumps({"weight": percent, "reason": "SDK test"}).encode()
    request = urllib.request.Request(
        f"{ADMIN}/api/v1/rollouts/{os.environ['SERIN_ROLLOUT']}/weight", data=body, method="PUT", headers={"content-type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def main() -> int:
    set_weight(40.0)
    before = metrics()
    half = str(ANSWERS // 2)
    commands = [[sys.executable, str(HERE / "tokens.py"), half], ["node", str(HERE / "tokens.mjs"), sys.argv[1], half]]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        print(f"an SDK failed: {[process.returncode for process in running]} {outputs}")
        return 1
    told = [json.loads(output) for output in outputs]
    expect = {name: sum(part[name] for part in told) for name in ("answers", "fresh", *KINDS)}
    until = time.monotonic() + 10
    while True:
        now = metrics()
        counted = {name: now[name] - before[name] for name in now}
        if counted["all"] >= expect["answers"] or time.monotonic() > until:
            break
        time.sleep(0.05)
    cost_nano = sum(expect[kind] * price for kind, price in PRICES_NANO.items())
    same = all(counted[name] == expect[name] for name in ("answers", *KINDS)) and round(counted["cost"] * 1e9) == cost_nano
    print(f"SDKs: {expect}, {cost_nano} billionths of a dollar; serin: {counted}")
    if not same or counted["canary"] == 0 or any(expect[kind] == 0 for kind in expect):
        print("they do not agree")
        return 1
    print(f"{'; '.join(part['sdk'] for part in told)}: {expect['answers']} answers, tokens of five kinds and cost equal to the token")
    return 0


if __name__ == "__main__":
    sys.exit(main())
