"""The unmodified OpenAI SDK through serin: every answer tagged, every user true to one version while the weight rises.

Environment: SERIN_URL, SERIN_ADMIN, SERIN_ROLLOUT, SERIN_STABLE, SERIN_CANARY (see with_serin.py); SERIN_CALLS (10000).
"""

import asyncio
import json
import math
import os
import sys
import threading
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import openai

URL = os.environ["SERIN_URL"]
ADMIN = os.environ["SERIN_ADMIN"]
ROLLOUT = os.environ["SERIN_ROLLOUT"]
STABLE = os.environ["SERIN_STABLE"]
CANARY = os.environ["SERIN_CANARY"]
CALLS = int(os.environ.get("SERIN_CALLS", "10000"))
USERS = 1000
WEIGHTS = (1.0, 5.0, 25.0, 50.0)
MESSAGES = [{"role": "user", "content": "sing me a song"}]

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="sk-test", max_retries=0, timeout=20)


class Wrong(Exception):
    """Something is not as it must be."""


def check(condition: bool, message: str) -> None:
    if not condition:
        raise Wrong(message)


def set_weight(percent: float) -> None:
    body = json.dumps({"weight": percent, "reason": "SDK test"}).encode()
    request = urllib.request.Request(
        f"{ADMIN}/api/v1/rollouts/{ROLLOUT}/weight", data=body, method="PUT", headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        rollout = json.load(answer)
    check(abs(rollout["weight"] - percent) < 1e-9, f"asked for {percent} %, serin says {rollout['weight']} %")


def tagged(headers, user: str) -> str:
    """The version that the tags name, once they agree with each other and with the model server."""
    version, arm = headers.get("serin-version"), headers.get("serin-arm")
    check(headers.get("serin-rollout") == ROLLOUT, f"{user}: Serin-Rollout is {headers.get('serin-rollout')!r}")
    check(version in (STABLE, CANARY), f"{user}: Serin-Version is {version!r}")
    check((arm == "canary") == (version == CANARY), f"{user}: Serin-Arm {arm!r} with Serin-Version {version!r}")
    check(bool(headers.get("x-request-id")), f"{user}: no x-request-id")
    check(headers.get("x-upstream-version") == version, f"{user}: tagged {version!r}, answered by {headers.get('x-upstream-version')!r}")
    return version


def ask(user: str, stream: bool) -> str:
    extra = {"x-user-id": user}
    if stream:
        raw = client.chat.completions.with_raw_response.create(
            model="any", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, extra_headers=extra
        )
        version = tagged(raw.headers, user)
        text, usage = "", None
        for chunk in raw.parse():
            check(chunk.model == version, f"{user}: a chunk of {chunk.model} under the tag {version}")
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
        check(usage is not None and usage.completion_tokens == len(text.split()), f"{user}: usage {usage}, text {text!r}")
        return version
    raw = client.chat.completions.with_raw_response.create(model="any", messages=MESSAGES, extra_headers=extra)
    version = tagged(raw.headers, user)
    answer = raw.parse()
    check(answer.model == version, f"{user}: an answer of {answer.model} under the tag {version}")
    check(answer.usage.completion_tokens == len(answer.choices[0].message.content.split()), f"{user}: {answer.usage}")
    return version


def surfaces() -> None:
    """Every way in that an application may take, once."""
    check([model.id for model in client.models.list()] == [STABLE], "models.list")
    response = client.responses.create(model="any", input="sing", extra_headers={"x-user-id": "u"})
    check(response.status == "completed" and bool(response.output_text), f"responses.create: {response}")
    with client.responses.stream(model="any", input="sing") as stream:
        kinds = [event.type for event in stream]
    check(kinds[0] == "response.created" and kinds[-1] == "response.completed", f"responses.stream: {kinds}")
    with client.chat.completions.stream(model="any", messages=MESSAGES) as stream:
        stream.until_done()
        check(bool(stream.get_final_completion().choices[0].message.content), "chat.completions.stream")

    async def both() -> None:
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="sk-test", max_retries=0) as other:
            whole = await other.chat.completions.create(model="any", messages=MESSAGES)
            check(bool(whole.choices[0].message.content), "async create")
            stream = await other.chat.completions.create(model="any", messages=MESSAGES, stream=True)
            check(len([chunk async for chunk in stream]) > 2, "async stream")

    asyncio.run(both())


def walk() -> str:
    """The calls, a quarter under each weight; who was once on the canary stays there."""
    lock = threading.Lock()
    home: dict[str, str] = {}
    lines = []
    with ThreadPoolExecutor(16) as pool:
        for weight in WEIGHTS:
            set_weight(weight)

            def one(index: int) -> tuple[str, str]:
                user = f"sdk-user-{index % USERS}"
                version = ask(user, stream=index % 4 == 0)
                with lock:
                    before = home.get(user)
                    check(not (before == CANARY and version == STABLE), f"{user} went back from canary to stable at {weight} %")
                    home[user] = version
                return user, version

            seen = list(pool.map(one, range(CALLS // len(WEIGHTS))))
            # Within one weight nobody may have seen both.
            users = {}
            for user, version in seen:
                check(users.setdefault(user, version) == version, f"{user} saw both versions at {weight} %")
            share = Counter(users.values())[CANARY] / len(users)
            bound = 5 * math.sqrt(weight / 100 * (1 - weight / 100) / len(users))
            check(abs(share - weight / 100) <= bound, f"{share:.2%} of users on the canary at {weight} % (± {bound:.2%})")
            lines.append(f"{weight:g} %: {len(seen)} calls, {share:.1%} of {len(users)} users on the canary")
    return "\n".join(lines)


def main() -> int:
    try:
        set_weight(0.0)
        surfaces()
        print(walk())
    except (Wrong, openai.OpenAIError, OSError) as error:
        print(f"openai {openai.__version__}: {type(error).__name__}: {error}")
        return 1
    print(f"openai {openai.__version__}: {CALLS} calls, every answer tagged, nobody moved back")
    return 0


if __name__ == "__main__":
    sys.exit(main())
