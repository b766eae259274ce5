"""Answers by the unmodified OpenAI and Anthropic SDKs for Python, mixed and at once; prints what they reported as JSON.

usage: tokens.py ANSWERS (environment: SERIN_URL). Prints {"answers", "input", "output"}.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai

URL = os.environ["SERIN_URL"]
ask_openai = openai.OpenAI(base_url=f"{URL}/v1", api_key="sk-test", max_retries=0, timeout=60)
ask_anthropic = anthropic.Anthropic(base_url=URL, api_key="sk-test", max_retries=0, timeout=60)


def chat(messages, most, extra):
    answer = ask_openai.chat.completions.create(model="any", messages=messages, max_tokens=most, extra_headers=extra)
    return answer.usage.prompt_tokens, answer.usage.completion_tokens


def chat_streamed(messages, most, extra):
    usage = None
    options = {"include_usage": True}
    for chunk in ask_openai.chat.completions.create(
        model="any", messages=messages, max_tokens=most, stream=True, stream_options=options, extra_headers=extra
    ):
        usage = chunk.usage or usage
    return usage.prompt_tokens, usage.completion_tokens


def responses(messages, most, extra):
    answer = ask_openai.responses.create(model="any", input=messages, max_output_tokens=most, extra_headers=extra)
    return answer.usage.input_tokens, answer.usage.output_tokens


def responses_streamed(messages, most, extra):
    with ask_openai.responses.stream(model="any", input=messages, max_output_tokens=most, extra_headers=extra) as stream:
        stream.until_done()
        usage = stream.get_final_response().usage
    return usage.input_tokens, usage.output_tokens


def claude(messages, most, extra):
    answer = ask_anthropic.messages.create(model="any", messages=messages, max_tokens=most, extra_headers=extra)
    return answer.usage.input_tokens, answer.usage.output_tokens


def claude_streamed(messages, most, extra):
    with ask_anthropic.messages.stream(model="any", messages=messages, max_tokens=most, extra_headers=extra) as stream:
        usage = stream.get_final_message().usage
    return usage.input_tokens, usage.output_tokens


WAYS = [chat, chat_streamed, responses, responses_streamed, claude, claude_streamed]


def one(index: int) -> tuple[int, int]:
    messages = [{"role": "user", "content": "word " * (1 + index % 17)}]
    return WAYS[index % len(WAYS)](messages, 1 + index % 13, {"x-user-id": f"python-{index % 97}"})


def main() -> None:
    answers = int(sys.argv[1])
    with ThreadPoolExecutor(16) as pool:
        counted = list(pool.map(one, range(answers)))
    total = {"answers": len(counted), "input": sum(c[0] for c in counted), "output": sum(c[1] for c in counted)}
    print(json.dumps({**total, "sdk": f"openai {openai.__version__}, anthropic {anthropic.__version__} (python)"}))


if __name__ == "__main__":
    main()
