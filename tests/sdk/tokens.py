"""Answers by the unmodified OpenAI and Anthropic SDKs for Python, mixed and at once; prints what they reported as JSON.

usage: tokens.py ANSWERS (environment: SERIN_URL). Prints {"answers", "fresh" and one sum for each kind of token}.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai

KINDS = ["input", "output", "cached_input", "reasoning", "cache_write", "fresh"]
URL = os.environ["SERIN_URL"]
ask_openai = openai.OpenAI(base_url=f"{URL}/v1", api_key="sk-test", max_retries=0, timeout=60)
ask_anthropic = anthropic.Anthropic(base_url=URL, api_key="sk-test", max_retries=0, timeout=60)


def of_chat(usage):
    cached = usage.prompt_tokens_details.cached_tokens
    reasoning = usage.completion_tokens_details.reasoning_tokens
    return usage.prompt_tokens, usage.completion_tokens, cached, reasoning, 0, usage.prompt_tokens - cached


def of_responses(usage):
    cached = usage.input_tokens_details.cached_tokens
    reasoning = usage.output_tokens_details.reasoning_tokens
    return usage.input_tokens, usage.output_tokens, cached, reasoning, 0, usage.input_tokens - cached


def of_claude(usage):
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    return usage.input_tokens, usage.output_tokens, read, 0, written, usage.input_tokens


def chat(messages, most, extra):
    return of_chat(ask_openai.chat.completions.create(model="any", messages=messages, max_tokens=most, extra_headers=extra).usage)


def chat_streamed(messages, most, extra):
    usage = None
    options = {"include_usage": True}
    for chunk in ask_openai.chat.completions.create(
        model="any", messages=messages, max_tokens=most, stream=True, stream_options=options, extra_headers=extra
    ):
        usage = chunk.usage or usage
    return of_chat(usage)


def responses(messages, most, extra):
    return of_responses(ask_openai.responses.create(model="any", input=messages, max_output_tokens=most, extra_headers=extra).usage)


def responses_streamed(messages, most, extra):
    with ask_openai.responses.stream(model="any", input=messages, max_output_tokens=most, extra_headers=extra) as stream:
        stream.until_done()
        return of_responses(stream.get_final_response().usage)


def claude(messages, most, extra):
    return of_claude(ask_anthropic.messages.create(model="any", messages=messages, max_tokens=most, extra_headers=extra).usage)


def claude_streamed(messages, most, extra):
    with ask_anthropic.messages.stream(model="any", messages=messages, max_tokens=most, extra_headers=extra) as stream:
        return of_claude(stream.get_final_message().usage)


WAYS = [chat, chat_streamed, responses, responses_streamed, claude, claude_streamed]


def one(index: int) -> tuple[int, ...]:
    messages = [{"role": "user", "content": "word " * (1 + index % 17)}]
    return WAYS[index % len(WAYS)](messages, 1 + index % 13, {"x-user-id": f"python-{index % 97}"})


def main() -> None:
    answers = int(sys.argv[1])
    with ThreadPoolExecutor(16) as pool:
        counted = list(pool.map(one, range(answers)))
    total = {"answers": len(counted)} | {kind: sum(each[at] for each in counted) for at, kind in enumerate(KINDS)}
    print(json.dumps({**total, "sdk": f"openai {openai.__version__}, anthropic {anthropic.__version__} (python)"}))


if __name__ == "__main__":
    main()
