#!/usr/bin/env python3
"""Writes the golden corpus: streams and documents as providers send and break them, and beside each NAME.sse or NAME.json
its NAME.toml: for what request it came, how it ended, which outcome class the exchange has, and every fact that is true of it.

What is expected is written here by hand, from the providers' documents; it is never taken from serin's own output.
Run `python3 make.py` in this folder after a change. Only what is named is expected; everything else must be silent.
"""
import base64, glob, json, os, struct, zlib

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = []

# The first tool that these answers call.
TOOLS_CALLED = {
    "f": """
        chat-call-behind-text chat-custom-tool chat-doc-bad-arguments chat-doc-tools chat-function-call chat-tool-call-id-repeated
        chat-tool-calls-interleaved chat-tool-calls-under-one-index messages-cut-in-tool messages-doc-tool messages-thinking-then-tool
        messages-tool-bad messages-tool-no-arguments messages-tool-truncated messages-tool messages-two-tools responses-custom-tool
        responses-doc-tool responses-text-and-tool responses-tool-bad responses-tool
    """,
    "look_up": """
        chat-cancelled-in-tool-call chat-tool-call-bad-arguments chat-tool-call-cut-before-finish chat-tool-call-empty-arguments
        chat-tool-call-truncated chat-tool-call converse-doc-tool gemini-doc-tool gemini-tool-call gemini-two-tool-calls
    """,
}
FIRST_TOOL = {name: tool for tool, names in TOOLS_CALLED.items() for name in names.split()}


class T(str):
    """An event that carries generated tokens."""


def j(value, spaces=False):
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": ") if spaces else (",", ":"))


def outcome(status, ending, expect):
    """The one class of an exchange. A stream whose answer was seen to its end is whole, however its body ends after that."""
    done = expect.get("done", False)
    if ending == "cancelled" and not done:
        return "cancelled"
    if status >= 400:
        return {429: "throttled", 504: "timeout"}.get(status, "upstream_error" if status >= 500 else "client_error")
    broken = ending == "broken" and not done
    wrong = any(expect.get(fact) for fact in ("cut", "in_band_error", "malformed"))
    return "upstream_error" if broken or wrong else "success"


def case(name, path, body, ext, expect, protocol="auto", ending="clean", media=None, tokens=None, status=200):
    file = f"{name}.{ext}"
    body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    with open(os.path.join(HERE, file), "wb") as out:
        out.write(body)
    media = media if media is not None else {"sse": "text/event-stream; charset=utf-8", "json": "application/json", "bin": "application/vnd.amazon.eventstream"}[ext]
    entry = {"file": file, "path": path, "media": media, "protocol": protocol, "ending": ending, "status": status, "class": outcome(status, ending, expect)}
    if tokens:
        entry["tokens"] = tokens
    if name in FIRST_TOOL:
        at = list(expect).index("tool_calls") + 1
        expect = dict([*list(expect.items())[:at], ("tool", FIRST_TOOL[name]), *list(expect.items())[at:]])
    CASES.append({**entry, "expect": expect})


def is_end(event):
    """The answer's last word in its dialect: what comes after it, or breaks after it, changes nothing."""
    lines = event.replace("data:[", "data: [").split("\n")
    named = ("event: message_stop", "event: response.completed", "event: response.incomplete", "event: response.failed")
    typed = ('data: {"type":"message_stop"', 'data: {"type":"response.completed"')
    rpc = any(line.startswith("data:") and '"jsonrpc"' in line and '"method"' not in line for line in lines)
    return "data: [DONE]" in lines or lines[0].startswith(named) or lines[0].startswith(typed) or rpc


def stream(name, path, events, expect, end="\n", ending="clean", cut=None, protocol="auto", media=None, mark="", status=200):
    """Each event is a list of lines joined by LF; `cut`: the body stops so many bytes before the end of the last event."""
    body = mark + "".join(e.replace("\n", end) + end + end for e in events)
    raw = body.encode()
    expect = dict(expect)
    if cut:
        raw = raw[:-cut]
        events = events[:-1] if cut > 2 else events
    responses = expect.get("dialect") == "Responses"
    if expect.get("dialect", "Unknown") != "Unknown" and any(is_end(e) for e in events if not (responses and "[DONE]" in e)):
        expect.setdefault("done", True)
    marks = [i for i, e in enumerate(events) if isinstance(e, T)]
    if marks:
        expect.setdefault("token_events", len(marks))
    plain = end == "\n" and not cut and not mark
    tokens = [marks[0], marks[-1]] if marks and plain else None
    case(name, path, raw, "sse", expect, protocol, ending, media, tokens, status)


# ---------------------------------------------------------------- OpenAI chat
CHAT = "/v1/chat/completions"


def chunk(delta=None, finish=None, index=0, spaces=False, **more):
    choices = [] if delta is None else [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return "data: " + j({"id": "chatcmpl-Aq1", "object": "chat.completion.chunk", "created": 1732190000,
                         "model": "gpt-large-0711", "system_fingerprint": "fp_44", "choices": choices, **more}, spaces)


ROLE = chunk({"role": "assistant", "content": "", "refusal": None})
USED = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 4, "accepted_prediction_tokens": 0}}
COUNTS = {"in": 19, "out": 10, "cached": 16, "reasoning": 4}
SAID = [T(chunk({"content": "Grüße"})), T(chunk({"content": ", 世界 🙂"})), T(chunk({"content": " say \"usage\": {} and \"content\":\"\""}))]
STOP = chunk({}, "stop")
USAGE = chunk(None, usage=USED)
DONE = "data: [DONE]"
CALL = [T(chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": ""}}]})),
        T(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{\"city\": \"Zü"}}]})),
        T(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "rich\\u00e9\"}"}}]}))]
C = {"dialect": "Chat"}
OK = {**C, "finish": "Stop"}


def chat(name, events, expect, **more):
    stream("chat-" + name, CHAT, events, expect, **more)


chat("good", [ROLE, *SAID, STOP, DONE], OK)
chat("good-usage", [ROLE, *SAID, STOP, USAGE, DONE], {**OK, **COUNTS})
chat("good-crlf", [ROLE, *SAID, STOP, USAGE, DONE], {**OK, **COUNTS}, end="\r\n")
chat("good-cr", [ROLE, *SAID, STOP, USAGE, DONE], {**OK, **COUNTS}, end="\r")
chat("good-byte-order-mark", [ROLE, *SAID, STOP, USAGE, DONE], {**OK, **COUNTS}, mark="\ufeff")
chat("good-openai-protocol", [ROLE, *SAID, STOP, DONE], OK, protocol="openai")
chat("plain-http-protocol", [ROLE, *SAID, STOP, DONE], {"token_events": 0, "streamed": False}, protocol="http")
chat("other-protocol-is-silent", [ROLE, *map(str, SAID), STOP, DONE], {"dialect": "Unknown"}, protocol="anthropic")
chat("comments", [": PROCESSING", ROLE + "\n: ping", ": ping", *SAID, ": ping\n: ping", STOP, DONE], OK)
chat("ids-and-retry", ["retry: 3000\nid: 1\n" + ROLE, *[T("id: x\n" + s) for s in SAID], STOP, DONE], OK)
chat("no-space-after-colon", [ROLE.replace("data: ", "data:"), *[T(s.replace("data: ", "data:")) for s in SAID], STOP, "data:[DONE]"], OK)
chat("spaces-in-json", [chunk({"role": "assistant", "content": ""}, spaces=True), T(chunk({"content": "a"}, spaces=True)), T(chunk({"content": "b"}, "stop", spaces=True)), chunk(None, usage=USED, spaces=True), DONE], {**OK, **COUNTS})
chat("multi-line-data", [ROLE, T(SAID[0].replace(",\"choices\"", ",\ndata: \"choices\"")), STOP, DONE], OK)
chat("content-with-finish", [ROLE, T(chunk({"content": "Hi"}, "stop")), DONE], OK)
chat("usage-in-every-chunk", [ROLE, *[T(chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n})) for n in (1, 2, 3)], STOP, DONE], {**OK, "in": 5, "out": 3})
chat("usage-null-in-every-chunk", [chunk({"role": "assistant"}, usage=None), T(chunk({"content": "a"}, usage=None)), chunk({}, "stop", usage=None), USAGE, DONE], {**OK, **COUNTS})
chat("two-usages", [ROLE, *SAID, STOP, chunk(None, usage={"prompt_tokens": 1, "completion_tokens": 1}), USAGE, DONE], {**OK, **COUNTS})
chat("usage-of-strange-types", [ROLE, *SAID, STOP, chunk(None, usage={"prompt_tokens": "many", "completion_tokens": 7.0, "prompt_tokens_details": []}), DONE], {**OK, "out": 7})
chat("duplicate-keys", [ROLE, *SAID, 'data: {"choices":[],"usage":{"prompt_tokens":1},"usage":{"prompt_tokens":2,"completion_tokens":3}}', STOP, DONE], {**OK, "in": 2, "out": 3})
chat("done-without-blank-line", [ROLE, *SAID, STOP, DONE], {**OK, "token_events": 3}, cut=1)
chat("done-without-line-end", [ROLE, *SAID, STOP, DONE], {**OK, "token_events": 3}, cut=2)
chat("length", [ROLE, *SAID, chunk({}, "length"), DONE], {**C, "finish": "Length", "truncated": True})
chat("filtered", [ROLE, *SAID, chunk({}, "content_filter"), DONE], {**C, "finish": "ContentFilter", "filtered": True})
chat("filtered-before-a-word", [ROLE, chunk({}, "content_filter"), DONE], {**C, "finish": "ContentFilter", "filtered": True})
chat("refusal", [ROLE, T(chunk({"refusal": "I can"})), T(chunk({"refusal": "not."})), STOP, DONE], {**OK, "refusal": True})
chat("empty", [ROLE, STOP, DONE], {**OK, "empty": True})
chat("only-done", [DONE], {**C, "empty": True})
chat("empty-content-null", [chunk({"role": "assistant", "content": None}), chunk({"content": None}, "stop"), DONE], {**OK, "empty": True})
chat("reasoning-then-text", [ROLE, T(chunk({"content": None, "reasoning_content": "hmm"})), T(chunk({"reasoning": "so"})), T(chunk({"content": "42"})), STOP, DONE], OK)
chat("reasoning-only-to-the-limit", [ROLE, T(chunk({"content": None, "reasoning_content": "hmm"})), chunk({}, "length"), DONE], {**C, "finish": "Length", "truncated": True, "empty": True})
chat("content-parts", [ROLE, T(chunk({"content": [{"type": "text", "text": "a"}]})), STOP, DONE], OK)
chat("padded", [ROLE, *[T(chunk({"content": "a"}, obfuscation="x" * n)) for n in range(1, 5)], chunk({}, "stop", obfuscation="xy"), DONE], OK)
chat("padded-then-told-with-text", [ROLE, *[T(chunk({"content": "a"}, obfuscation="x" * n)) for n in range(1, 3)], T(chunk({"content": "a"}, "length", obfuscation="x")), T(chunk({"content": "b"}, usage=USED)), DONE], {**C, **COUNTS, "finish": "Length", "truncated": True})
chat("error-behind-text", [ROLE, T(chunk({"content": "a"})), T(chunk({"content": "b"}, error={"message": "x"}))], {**C, "in_band_error": True})
chat("call-behind-text", [ROLE, T(chunk({"content": "a"})), T(chunk({"content": "b", "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]})), chunk({}, "tool_calls"), DONE], {**C, "finish": "ToolCalls", "tool_calls": 1, "tool_errors": 1})
chat("two-choices", [chunk({"role": "assistant"}), T(chunk({"content": "a"})), T(chunk({"content": "b"}, index=1)), chunk({}, "stop"), chunk({}, "length", 1), DONE], {**C, "finish": "Length", "truncated": True})
TOOLS = {**C, "finish": "ToolCalls", "tool_calls": 1}
chat("tool-call", [ROLE, *CALL, chunk({}, "tool_calls"), DONE], TOOLS)
chat("tool-call-bad-arguments", [ROLE, *CALL[:2], chunk({}, "tool_calls"), DONE], {**TOOLS, "tool_errors": 1})
chat("tool-call-empty-arguments", [ROLE, CALL[0], chunk({}, "tool_calls"), DONE], TOOLS)
chat("tool-call-cut-before-finish", [ROLE, *CALL[:2]], {**C, "tool_calls": 1, "cut": True})
chat("tool-call-truncated", [ROLE, *CALL[:2], chunk({}, "length"), DONE], {**C, "finish": "Length", "truncated": True, "tool_calls": 1, "tool_errors": 1})
chat("tool-calls-interleaved", [ROLE, *[T(chunk({"tool_calls": [{"index": i, "id": f"c{i}", "function": {"name": "f", "arguments": "{\"a\":"}}]})) for i in (0, 1)],
     *[T(chunk({"tool_calls": [{"index": i, "function": {"arguments": a}}]})) for i, a in ((1, "1}"), (0, "]}"))], chunk({}, "tool_calls"), DONE], {**TOOLS, "tool_calls": 2, "tool_errors": 1})
chat("tool-calls-under-one-index", [ROLE, *[T(chunk({"tool_calls": [{"index": 0, "id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}}]})) for i in (0, 1)], chunk({}, "tool_calls"), DONE], {**TOOLS, "tool_calls": 2})
chat("tool-call-id-repeated", [ROLE, *[T(chunk({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": a}}]})) for a in ("{", "}")], chunk({}, "tool_calls"), DONE], TOOLS)
chat("function-call", [ROLE, T(chunk({"function_call": {"name": "f", "arguments": "{}"}})), chunk({}, "function_call"), DONE], TOOLS)
ERROR = 'data: {"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}'
chat("error-first", [ERROR], {**C, "in_band_error": True})
chat("error-midway", [ROLE, *SAID, ERROR], {**C, "in_band_error": True})
chat("error-then-done", [ROLE, *SAID, ERROR, DONE], {**C, "in_band_error": True})
chat("error-named", [ROLE, *SAID, "event: error\ndata: {\"message\":\"overloaded\"}"], {**C, "in_band_error": True})
chat("error-finish", [ROLE, *SAID, chunk({}, "error"), DONE], {**C, "finish": "Error", "in_band_error": True})
chat("error-object", [ROLE, 'data: {"object":"error","message":"boom","code":50001}'], {**C, "in_band_error": True})
chat("error-null-is-none", [ROLE, T(chunk({"content": "a"}, error=None)), STOP, DONE], OK)
chat("cut-empty-body", [], {**C, "cut": True})
chat("cut-after-role", [ROLE], {**C, "cut": True})
chat("cut-after-token", [ROLE, *SAID], {**C, "cut": True})
chat("cut-after-finish", [ROLE, *SAID, STOP], {**OK, "cut": True})
chat("cut-after-usage", [ROLE, *SAID, STOP, USAGE], {**OK, **COUNTS, "cut": True})
chat("cut-in-event", [ROLE, *SAID, STOP], {**C, "cut": True, "token_events": 3}, cut=20)
chat("cut-in-utf8", [ROLE, SAID[0], T(chunk({"content": "🙂"}))], {**C, "cut": True, "token_events": 1}, cut=len('"},"logprobs":null,"finish_reason":null}]}\n\n') + 2)
chat("cut-in-field-name", [ROLE, *SAID, STOP, DONE], {**OK, "cut": True, "token_events": 3}, cut=12)
chat("cut-in-done", [ROLE, *SAID, STOP, DONE], {**OK, "cut": True, "token_events": 3}, cut=5)
chat("cut-by-reset", [ROLE, *SAID], {**C, "cut": True}, ending="broken")
chat("reset-after-done", [ROLE, *SAID, STOP, DONE], OK, ending="broken")
chat("cancelled", [ROLE, *SAID], C, ending="cancelled")
chat("cancelled-before-a-byte", [], C, ending="cancelled")
chat("cancelled-after-done", [ROLE, *SAID, STOP, DONE], OK, ending="cancelled")
chat("cancelled-in-tool-call", [ROLE, *CALL[:2]], {**C, "tool_calls": 1}, ending="cancelled")
chat("done-twice", [ROLE, *SAID, STOP, DONE, DONE], {**OK, "duplicates": 1})
chat("text-after-done", [ROLE, *SAID, STOP, DONE, str(SAID[0])], {**OK, "duplicates": 1})
chat("not-json-events", [ROLE, "data: hello", "data: {\"choices\":", *SAID, STOP, DONE], OK)
chat("strange-shapes", ["data: []", "data: 7", 'data: {"choices":{}}', 'data: {"choices":[7,{"delta":[]},{"delta":{"content":9,"tool_calls":[null]}}]}', *SAID, STOP, DONE], {**OK, "tool_calls": 1, "token_events": 4})
CASES[-1].pop("tokens", None)
chat("huge-event", [ROLE, T(chunk({"content": "x" * 300_000}, "length", usage=USED)), DONE], {**C, **COUNTS, "finish": "Length", "truncated": True, "oversized": 1})
chat("huge-comment", [ROLE, ": " + "x" * 400_000, *SAID, STOP, DONE], OK)
chat("azure", [chunk(None, prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}]), ROLE, *[T(chunk({"content": "a"}, content_filter_results={"hate": {"filtered": False, "severity": "safe"}}))] * 2, STOP, DONE], OK)
stream("chat-unknown-path", "/api/generate", [ROLE, *SAID, STOP, DONE], OK)
stream("chat-unknown-path-no-media", CHAT, [ROLE, *SAID, STOP, DONE], OK, media="")
stream("chat-media-text-plain", CHAT, [ROLE, *SAID, STOP, DONE], OK, media="text/plain")
stream("unknown-stream-is-silent", "/events", [f"data: {{\"n\":{n}}}" for n in range(20)] + [str(SAID[0])], {"dialect": "Unknown"})


def whole(name, path, value, expect, **more):
    body = value if isinstance(value, (str, bytes)) else j(value)
    case(name, path, body, "json", expect, **more)


def message(content="Hallo Zürich 🙂 \\ \"usage\":", finish="stop", usage=USED, **more):
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content, "refusal": None, **more}, "logprobs": None, "finish_reason": finish}],
            **({"usage": usage} if usage else {})}


def tool(arguments):
    return {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}


whole("chat-doc-good", CHAT, message(), {**OK, **COUNTS})
whole("chat-doc-indented", CHAT, json.dumps(message(), indent=2) + "\n", {**OK, **COUNTS})
whole("chat-doc-no-usage", CHAT, message(usage=None), OK)
whole("chat-doc-length", CHAT, message(finish="length"), {**C, **COUNTS, "finish": "Length", "truncated": True})
whole("chat-doc-empty", CHAT, message(""), {**OK, **COUNTS, "empty": True})
whole("chat-doc-null", CHAT, message(None), {**OK, **COUNTS, "empty": True})
whole("chat-doc-no-choices", CHAT, {"object": "chat.completion", "choices": []}, {**C, "empty": True})
whole("chat-doc-filtered", CHAT, message("", "content_filter"), {**C, **COUNTS, "finish": "ContentFilter", "filtered": True})
whole("chat-doc-refusal", CHAT, message(None, refusal="No."), {**OK, **COUNTS, "refusal": True})
whole("chat-doc-tools", CHAT, message(None, "tool_calls", tool_calls=[tool("{\"a\":[1,2]}"), tool("{}")]), {**TOOLS, **COUNTS, "tool_calls": 2})
whole("chat-doc-bad-arguments", CHAT, message(None, "tool_calls", tool_calls=[tool("{'a':1}"), tool("{}")]), {**TOOLS, **COUNTS, "tool_calls": 2, "tool_errors": 1})
whole("chat-doc-error", CHAT, {"error": {"message": "no", "type": "server_error"}}, {**C, "in_band_error": True})
whole("chat-doc-error-object", CHAT, {"object": "error", "message": "no"}, {**C, "in_band_error": True})
whole("chat-doc-cut", CHAT, j(message())[:-30], {**C, "cut": True})
whole("chat-doc-cut-by-reset", CHAT, j(message())[:-30], {**C, "cut": True}, ending="broken")
whole("chat-doc-cancelled", CHAT, j(message())[:-30], C, ending="cancelled")
whole("chat-doc-html", CHAT, "<html><body>502</body></html>", {**C, "malformed": True})
whole("chat-doc-trailing", CHAT, j(message()) + "{}", {**C, "malformed": True})
whole("chat-doc-trailing-space", CHAT, j(message()) + "\r\n \n", {**OK, **COUNTS})
whole("chat-doc-no-body", CHAT, "", {**C, "empty": True})
whole("chat-doc-huge", CHAT, message("x" * 300_000), {**OK, **COUNTS, "oversized": 1})
whole("chat-doc-huge-cut", CHAT, j(message("x" * 300_000))[:-400], {**C, "oversized": 1, "cut": True})
whole("chat-doc-unknown-path", "/gen", message(), {**OK, **COUNTS})
whole("chat-doc-text", CHAT, "just text", {}, media="text/plain")
whole("other-doc", "/v1/models", {"object": "list", "data": [{"id": "m", "object": "model"}]}, {})
whole("other-doc-long", "/things", {"things": ["thing"] * 1000}, {})

# ---------------------------------------------------------------- OpenAI completions, embeddings
OLD = "/v1/completions"


def text(t, finish=None, **more):
    return "data: " + j({"id": "cmpl-1", "object": "text_completion", "created": 1, "choices": [{"text": t, "index": 0, "logprobs": None, "finish_reason": finish}], "model": "m", **more})


P = {"dialect": "Completions"}
stream("completions-good", OLD, [T(text("Hi")), T(text(" you")), T(text("!", "stop")), DONE], {**P, "finish": "Stop"})
stream("completions-usage", OLD, [T(text("Hi")), text("", "length"), "data: " + j({"object": "text_completion", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}), DONE], {**P, "finish": "Length", "truncated": True, "in": 3, "out": 1})
stream("completions-cut", OLD, [T(text("Hi")), T(text(" you"))], {**P, "cut": True})
stream("completions-empty", OLD, [text("", "stop"), DONE], {**P, "finish": "Stop", "empty": True})
whole("completions-doc", OLD, {"object": "text_completion", "choices": [{"text": "x", "index": 0, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}, {**P, "finish": "Stop", "in": 3, "out": 1})
V = {"dialect": "Embeddings"}
vectors = lambda n: {"object": "list", "data": [{"object": "embedding", "index": i, "embedding": [0.1234567] * 20} for i in range(n)], "model": "e", "usage": {"prompt_tokens": 8, "total_tokens": 8}}
whole("embeddings-small", "/v1/embeddings", vectors(2), {**V, "in": 8})
whole("embeddings-large", "/v1/embeddings", vectors(500), {**V, "in": 8, "oversized": 1})
whole("embeddings-none", "/v1/embeddings", vectors(0), {**V, "in": 8, "empty": True})
whole("embeddings-cut", "/v1/embeddings", j(vectors(500))[:-20], {**V, "oversized": 1, "cut": True})

# ---------------------------------------------------------------- OpenAI responses
RESP = "/v1/responses"
R = {"dialect": "Responses"}
RUSED = {"input_tokens": 37, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 11, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 48}
RCOUNTS = {"in": 37, "out": 11, "cached": 5, "reasoning": 2}
number = 0


def ev(kind, last_type=False, **body):
    global number
    number += 1
    value = {**body, "sequence_number": number, "type": kind} if last_type else {"type": kind, "sequence_number": number, **body}
    return f"event: {kind}\ndata: " + j(value)


def response(status, output=(), usage=None, **more):
    return {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None, "incomplete_details": None, "instructions": None, "model": "m", "output": list(output), "text": {"format": {"type": "text"}}, "usage": usage, "user": None, "metadata": {}, **more}


SAY = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": "Hi", "annotations": []}]}
NO = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
DO = lambda a: {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "c", "name": "f", "arguments": a}
BEGIN = [ev("response.created", response=response("in_progress")), ev("response.in_progress", response=response("in_progress")),
         ev("response.output_item.added", output_index=0, item={**SAY, "content": []}), ev("response.content_part.added", item_id="msg_1", part={"type": "output_text", "text": ""})]
TELL = [T(ev("response.output_text.delta", item_id="msg_1", output_index=0, delta=d, obfuscation="xx")) for d in ("Hi", " \"delta\":", "🙂")]
SAIDIT = [ev("response.output_text.done", item_id="msg_1", text="Hi"), ev("response.output_item.done", output_index=0, item=SAY)]
END = ev("response.completed", response=response("completed", [SAY], RUSED))
ROK = {**R, "finish": "Stop"}
stream("responses-good", RESP, [*BEGIN, *TELL, *SAIDIT, END], {**ROK, **RCOUNTS})
stream("responses-crlf", RESP, [*BEGIN, *TELL, *SAIDIT, END], {**ROK, **RCOUNTS}, end="\r\n")
stream("responses-done-after", RESP, [*BEGIN, *TELL, *SAIDIT, END, DONE], {**ROK, **RCOUNTS})
nameless = lambda e: type(e)(e.split("\n", 1)[1])
stream("responses-without-names", RESP, [nameless(e) for e in [*BEGIN, *TELL, *SAIDIT, END]], {**ROK, **RCOUNTS})
stream("responses-type-last", RESP, [nameless(T(ev("response.output_text.delta", True, item_id="m", delta="a"))), nameless(ev("response.completed", True, response=response("completed", [SAY], RUSED)))], {**ROK, **RCOUNTS, "done": True})
stream("responses-only-end", RESP, [END], {**ROK, **RCOUNTS})
stream("responses-cut-midway", RESP, [*BEGIN, *TELL], {**R, "cut": True})
stream("responses-cut-before-end", RESP, [*BEGIN, *TELL, *SAIDIT], {**R, "cut": True})
stream("responses-done-is-no-end", RESP, [*BEGIN, *TELL, *SAIDIT, DONE], {**R, "cut": True})
stream("responses-cancelled", RESP, [*BEGIN, *TELL], R, ending="cancelled")
stream("responses-error", RESP, [*BEGIN, *TELL, ev("error", code="server_error", message="x", param=None)], {**R, "in_band_error": True})
stream("responses-failed", RESP, [*BEGIN, ev("response.failed", response=response("failed", error={"code": "server_error", "message": "x"}))], {**R, "in_band_error": True, "finish": "Error"})
stream("responses-incomplete", RESP, [*BEGIN, *TELL, ev("response.incomplete", response=response("incomplete", [SAY], RUSED, incomplete_details={"reason": "max_output_tokens"}))], {**R, **RCOUNTS, "finish": "Length", "truncated": True})
stream("responses-filtered", RESP, [*BEGIN, *TELL, ev("response.incomplete", response=response("incomplete", [], RUSED, incomplete_details={"reason": "content_filter"}))], {**R, **RCOUNTS, "finish": "ContentFilter", "filtered": True})
stream("responses-refusal", RESP, [*BEGIN, T(ev("response.refusal.delta", delta="No")), ev("response.refusal.done", refusal="No."), ev("response.completed", response=response("completed", [NO], RUSED))], {**ROK, **RCOUNTS, "refusal": True})
stream("responses-empty", RESP, [*BEGIN, ev("response.completed", response=response("completed", [], RUSED))], {**ROK, **RCOUNTS, "empty": True})
RTOOL = {**R, **RCOUNTS, "finish": "ToolCalls", "tool_calls": 1}
call = lambda a: [BEGIN[0], T(ev("response.function_call_arguments.delta", item_id="fc_1", delta="{")), ev("response.function_call_arguments.done", arguments=a), ev("response.output_item.done", item=DO(a)), ev("response.completed", response=response("completed", [DO(a)], RUSED))]
stream("responses-tool", RESP, call("{\"a\":\"\\u00e9\"}"), RTOOL)
stream("responses-tool-bad", RESP, call("{\"a\":"), {**RTOOL, "tool_errors": 1})
stream("responses-reasoning", RESP, [BEGIN[0], T(ev("response.reasoning_summary_text.delta", delta="hm")), *TELL, *SAIDIT, END], {**ROK, **RCOUNTS})
stream("responses-two-beginnings", RESP, [BEGIN[0], *BEGIN, *TELL, *SAIDIT, END], {**ROK, **RCOUNTS, "duplicates": 1})
stream("responses-huge-end", RESP, [*BEGIN, *TELL, ev("response.completed", response=response("completed", [{**SAY, "content": [{"type": "output_text", "text": "x" * 300_000}]}], RUSED))], {**ROK, **RCOUNTS, "oversized": 1})
stream("responses-huge-incomplete", RESP, [*BEGIN, *TELL, ev("response.incomplete", response=response("incomplete", [{**SAY, "content": [{"type": "output_text", "text": "x" * 300_000}]}], RUSED, incomplete_details={"reason": "max_output_tokens"}))], {**R, **RCOUNTS, "oversized": 1, "finish": "Length", "truncated": True})
stream("responses-unknown-path", "/llm", [*BEGIN, *TELL, *SAIDIT, END], {**ROK, **RCOUNTS})
whole("responses-doc", RESP, response("completed", [{"type": "reasoning", "summary": []}, SAY], RUSED), {**ROK, **RCOUNTS})
whole("responses-doc-tool", RESP, response("completed", [DO("{}"), DO("{")], RUSED), {**RTOOL, "tool_calls": 2, "tool_errors": 1})
whole("responses-doc-empty", RESP, response("completed", [{"type": "reasoning", "summary": []}], RUSED), {**ROK, **RCOUNTS, "empty": True})
whole("responses-doc-refusal", RESP, response("completed", [NO], RUSED), {**ROK, **RCOUNTS, "refusal": True})
whole("responses-doc-failed", RESP, response("failed", error={"code": "server_error", "message": "x"}), {**R, "finish": "Error", "in_band_error": True})
whole("responses-doc-incomplete", RESP, response("incomplete", [SAY], RUSED, incomplete_details={"reason": "max_output_tokens"}), {**R, **RCOUNTS, "finish": "Length", "truncated": True})
whole("responses-doc-queued", RESP, response("queued"), R)
whole("responses-doc-cut", RESP, j(response("completed", [SAY], RUSED))[:100], {**R, "cut": True})
whole("responses-doc-huge", RESP, response("completed", [{**SAY, "content": [{"type": "output_text", "text": "é" * 150_000}]}], RUSED), {**ROK, **RCOUNTS, "oversized": 1})

# ---------------------------------------------------------------- Anthropic messages
MSG = "/v1/messages"
A = {"dialect": "Messages"}


def an(kind, **body):
    return f"event: {kind}\ndata: " + j({"type": kind, **body})


START = an("message_start", message={"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": None, "stop_sequence": None,
           "usage": {"input_tokens": 25, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 100, "output_tokens": 1}})
AUSED = {"in": 25, "out": 15, "cached": 100, "written": 7}
block = lambda i, **b: an("content_block_start", index=i, content_block=b)
part = lambda i, **d: an("content_block_delta", index=i, delta=d)
halt = lambda i: an("content_block_stop", index=i)
over = lambda reason, **u: an("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 15, **u})
PING, FIN = an("ping"), an("message_stop")
HELLO = [block(0, type="text", text=""), PING, *[T(part(0, type="text_delta", text=t)) for t in ("Hello", " \"text\":", "\n世界")], halt(0)]
AOK = {**A, **AUSED, "finish": "Stop"}
stream("messages-good", MSG, [START, *HELLO, over("end_turn"), FIN], AOK)
stream("messages-crlf", MSG, [START, *HELLO, over("end_turn"), FIN], AOK, end="\r\n")
stream("messages-cr", MSG, [START, *HELLO, over("end_turn"), FIN], AOK, end="\r")
stream("messages-data-only", MSG, [nameless(e) for e in [START, *HELLO, over("end_turn"), FIN]], AOK)
stream("messages-anthropic-protocol", MSG, [START, *HELLO, over("end_turn"), FIN], AOK, protocol="anthropic")
stream("messages-unknown-path", "/claude", [START, *HELLO, over("end_turn"), FIN], AOK)
stream("messages-cumulative-usage", MSG, [START, *HELLO, over("end_turn", input_tokens=30, cache_read_input_tokens=0), FIN], {**AOK, "in": 30})
stream("messages-max-tokens", MSG, [START, *HELLO, over("max_tokens"), FIN], {**A, **AUSED, "finish": "Length", "truncated": True})
stream("messages-context-window", MSG, [START, *HELLO, over("model_context_window_exceeded"), FIN], {**A, **AUSED, "finish": "Length", "truncated": True})
stream("messages-refusal", MSG, [START, *HELLO, over("refusal"), FIN], {**A, **AUSED, "finish": "Refusal", "refusal": True})
stream("messages-refusal-at-once", MSG, [START, over("refusal"), FIN], {**A, **AUSED, "finish": "Refusal", "refusal": True})
stream("messages-empty", MSG, [START, over("end_turn"), FIN], {**AOK, "empty": True})
stream("messages-empty-text", MSG, [START, block(0, type="text", text=""), halt(0), over("end_turn"), FIN], {**AOK, "empty": True})
stream("messages-pause", MSG, [START, *HELLO, over("pause_turn"), FIN], {**A, **AUSED, "finish": "Pause"})
stream("messages-unknown-reason", MSG, [START, *HELLO, over("tired"), FIN], {**A, **AUSED, "finish": "Other"})
THINK = [block(0, type="thinking", thinking="", signature=""), T(part(0, type="thinking_delta", thinking="Hm")), part(0, type="signature_delta", signature="abc"), halt(0)]
stream("messages-thinking", MSG, [START, *THINK, *HELLO, over("end_turn"), FIN], AOK)
stream("messages-thinking-only", MSG, [START, *THINK, over("max_tokens"), FIN], {**A, **AUSED, "finish": "Length", "truncated": True, "empty": True})
use = lambda *parts: [T(block(1, type="tool_use", id="t1", name="f", input={})), part(1, type="input_json_delta", partial_json=""), *[T(part(1, type="input_json_delta", partial_json=p)) for p in parts], halt(1)]
ATOOL = {**A, **AUSED, "finish": "ToolCalls", "tool_calls": 1}
stream("messages-tool", MSG, [START, *HELLO, *use("{\"loc", "ation\": \"Zürich \\u00e9\"", "}"), over("tool_use"), FIN], ATOOL)
stream("messages-tool-no-arguments", MSG, [START, *use(), over("tool_use"), FIN], ATOOL)
stream("messages-tool-bad", MSG, [START, *use("{\"a\": ", "}"), over("tool_use"), FIN], {**ATOOL, "tool_errors": 1})
stream("messages-two-tools", MSG, [START, *use("{}"), *use("[", "1]"), over("tool_use"), FIN], {**ATOOL, "tool_calls": 2})
stream("messages-server-tool", MSG, [START, T(block(0, type="server_tool_use", id="s", name="web_search", input={})), T(part(0, type="input_json_delta", partial_json="{}")), halt(0), over("end_turn"), FIN], AOK)
FAIL = an("error", error={"type": "overloaded_error", "message": "Overloaded"})
stream("messages-error-first", MSG, [FAIL], {**A, "in_band_error": True})
stream("messages-error-midway", MSG, [START, *HELLO[:4], FAIL], {**A, **AUSED, "out": 1, "in_band_error": True})
stream("messages-cut-after-start", MSG, [START], {**A, **AUSED, "out": 1, "cut": True})
stream("messages-cut-midway", MSG, [START, *HELLO[:4]], {**A, **AUSED, "out": 1, "cut": True})
stream("messages-cut-in-event", MSG, [START, *HELLO], {**A, **AUSED, "out": 1, "cut": True, "token_events": 3}, cut=9)
stream("messages-cut-in-tool", MSG, [START, *use("{\"a\": ")[:3]], {**A, **AUSED, "out": 1, "tool_calls": 1, "cut": True})
stream("messages-cut-before-stop", MSG, [START, *HELLO, over("end_turn")], {**AOK, "cut": True})
stream("messages-cut-by-reset", MSG, [START, *HELLO], {**A, **AUSED, "out": 1, "cut": True}, ending="broken")
stream("messages-cancelled", MSG, [START, *HELLO[:4]], {**A, **AUSED, "out": 1}, ending="cancelled")
stream("messages-two-starts", MSG, [START, START, *HELLO, over("end_turn"), FIN], {**AOK, "duplicates": 1})
stream("messages-after-stop", MSG, [START, *HELLO, over("end_turn"), FIN, FIN], {**AOK, "duplicates": 1})
stream("messages-unknown-event", MSG, [START, an("new_thing", x=1), *HELLO, over("end_turn"), FIN], AOK)
stream("messages-huge-delta", MSG, [START, block(0, type="text", text=""), T(part(0, type="text_delta", text="x" * 300_000)), halt(0), over("end_turn"), FIN], {**AOK, "oversized": 1})


def claude(content, reason="end_turn", **more):
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": reason, "stop_sequence": None,
            "usage": {"input_tokens": 25, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 100, "output_tokens": 15, **more}}


TXT = {"type": "text", "text": "Hi"}
whole("messages-doc", MSG, claude([TXT]), AOK)
whole("messages-doc-tool", MSG, claude([TXT, {"type": "tool_use", "id": "t", "name": "f", "input": {"usage": {"input_tokens": 9}}}], "tool_use"), ATOOL)
whole("messages-doc-empty", MSG, claude([]), {**AOK, "empty": True})
whole("messages-doc-truncated", MSG, claude([TXT], "max_tokens"), {**A, **AUSED, "finish": "Length", "truncated": True})
whole("messages-doc-error", MSG, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, {**A, "in_band_error": True})
whole("messages-doc-cut", MSG, j(claude([TXT]))[:-2], {**A, "cut": True})
whole("messages-doc-huge", MSG, claude([{"type": "text", "text": "x" * 300_000}]), {**AOK, "oversized": 1})
whole("messages-doc-unknown-path", "/x", claude([TXT]), AOK)

# ---------------------------------------------------------------- MCP
MCP = "/mcp"
M = {"dialect": "Mcp"}
rpc = lambda **b: {"jsonrpc": "2.0", **b}
say = lambda value, name="message": f"event: {name}\ndata: " + j(value)
RESULT = rpc(id=3, result={"content": [{"type": "text", "text": "22 °C"}], "isError": False})
FAILED = rpc(id=3, result={"content": [{"type": "text", "text": "no such city"}], "isError": True})
NOTE = rpc(method="notifications/progress", params={"progressToken": "t", "progress": 1, "note": "\"result\" and \"error\""})
ASK = rpc(id="s1", method="sampling/createMessage", params={"result": 1, "error": {"code": 1}})
REFUSED = rpc(id=3, error={"code": -32602, "message": "Unknown tool: f"})
stream("mcp-good", MCP, [say(NOTE), say(RESULT)], {**M, "tool_calls": 1})
stream("mcp-crlf", MCP, [say(NOTE), say(RESULT)], {**M, "tool_calls": 1}, end="\r\n")
stream("mcp-tool-error", MCP, [say(NOTE), say(FAILED)], {**M, "tool_calls": 1, "tool_errors": 1})
stream("mcp-protocol-error", MCP, [say(REFUSED)], {**M, "in_band_error": True, "rpc_error": -32602})
stream("mcp-cut", MCP, [say(NOTE)], {**M, "cut": True})
stream("mcp-cut-after-request", MCP, [say(ASK)], {**M, "cut": True})
stream("mcp-cut-in-event", MCP, [say(NOTE), say(RESULT)], {**M, "cut": True}, cut=8)
stream("mcp-cancelled", MCP, [say(NOTE)], M, ending="cancelled")
stream("mcp-resumable-end", MCP, ["id: 1\nretry: 500\ndata:"], M)
stream("mcp-resumable-answer", MCP, ["id: 1\ndata:", "id: 2\n" + say(RESULT)], {**M, "tool_calls": 1})
stream("mcp-any-path", "/tools", [say(RESULT)], {**M, "tool_calls": 1}, protocol="mcp")
stream("mcp-sniffed", "/tools", [say(RESULT)], {**M, "tool_calls": 1})
stream("mcp-huge-result", MCP, [say(rpc(id=3, result={"content": [{"type": "text", "text": "x" * 300_000}], "isError": True}))], {**M, "tool_calls": 1, "tool_errors": 1, "oversized": 1})
whole("mcp-doc", MCP, RESULT, {**M, "tool_calls": 1})
whole("mcp-doc-structured", MCP, rpc(id=1, result={"content": [], "structuredContent": {"a": 1}}), {**M, "tool_calls": 1})
whole("mcp-doc-tool-error", MCP, FAILED, {**M, "tool_calls": 1, "tool_errors": 1})
whole("mcp-doc-error", MCP, REFUSED, {**M, "in_band_error": True, "rpc_error": -32602})
whole("mcp-doc-error-no-id", MCP, rpc(id=None, error={"code": -32700, "message": "Parse error"}), {**M, "in_band_error": True, "rpc_error": -32700})
whole("mcp-doc-initialize", MCP, rpc(id=0, result={"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}), M)
whole("mcp-doc-tools-list", MCP, rpc(id=1, result={"tools": [{"name": "f", "inputSchema": {"properties": {"isError": {}, "content": {}}}}], "ttlMs": 1000, "cacheScope": "private"}), M)
whole("mcp-doc-input-required", MCP, rpc(id=1, result={"resultType": "input_required", "inputRequests": {}, "requestState": "opaque"}), M)
whole("mcp-doc-batch", MCP, [RESULT, FAILED, REFUSED], {**M, "tool_calls": 2, "tool_errors": 1, "in_band_error": True, "rpc_error": -32602})
whole("mcp-doc-cut", MCP, j(RESULT)[:-3], {**M, "cut": True})
whole("mcp-doc-nothing", MCP, "", M)
whole("mcp-doc-huge", MCP, rpc(id=3, result={"content": [{"type": "text", "text": "x" * 300_000}], "isError": True}), {**M, "tool_calls": 1, "tool_errors": 1, "oversized": 1})

# ---------------------------------------------------------------- what every dialect's streams may suffer
def suffers(prefix, path, before, last, facts, half, names=True):
    """Cuts at each kind of boundary behind `before`, in the last event `last`; `half`: facts without what `last` tells."""
    tail = len((last + "\n\n").encode())
    name = len(last.split("\n", 1)[0].encode()) if names else 0
    cutting = {"data-field": name + 1 + 3 if names else 3, "data-value": tail - 2 - 4, "last-line": tail - 2}
    if names:
        cutting.update({"event-field": 3, "event-value": name - 2, "lines": name + 1})
    for kind, kept in cutting.items():
        whole_line = kind == "last-line"  # all of its data came, only the blank line did not: it is taken
        stream(f"{prefix}-cut-at-{kind}", path, [*before, last], facts if whole_line else {**half, "cut": True, "done": False},
               cut=max(3, tail - kept) if not whole_line else 2)
    raw = "".join(e.replace("\n", "\r\n") + "\r\n\r\n" for e in before)
    case(f"{prefix}-cut-in-crlf", path, raw[:-1], "sse", {**half, "token_events": sum(isinstance(e, T) for e in before), "cut": True})
    ends = ["\n", "\r", "\r\n"]
    mixed = "".join(e.replace("\n", ends[i % 3]) + ends[i % 3] * 2 for i, e in enumerate([*before, last]))
    case(f"{prefix}-mixed-line-ends", path, mixed, "sse", {**facts, "done": True, "token_events": sum(isinstance(e, T) for e in before)})
    alive = [x for e in before for x in (": keep-alive", ":", e)]
    stream(f"{prefix}-keep-alive-comments", path, [*alive, ": bye", last], facts)
    stream(f"{prefix}-reset-after-end", path, [*before, last], {**facts, "done": True}, ending="broken")
    stream(f"{prefix}-cancelled-after-end", path, [*before, last], {**facts, "done": True}, ending="cancelled")
    stream(f"{prefix}-broken-before-end", path, before, {**half, "cut": True}, ending="broken")
    stream(f"{prefix}-long-comment", path, [*before, ": " + "ü" * 20_000, last], facts)


suffers("chat", CHAT, [ROLE, *SAID, STOP, USAGE], DONE, {**OK, **COUNTS}, {**OK, **COUNTS}, names=False)
suffers("completions", OLD, [T(text("Hi")), T(text(" 世界")), text("", "stop")], DONE, {**P, "finish": "Stop"}, {**P, "finish": "Stop"}, names=False)
suffers("responses", RESP, [*BEGIN, *TELL, *SAIDIT], END, {**ROK, **RCOUNTS}, R)
suffers("messages", MSG, [START, *HELLO, over("end_turn")], FIN, AOK, AOK)
suffers("mcp", MCP, [say(NOTE), say(NOTE)], say(RESULT), {**M, "tool_calls": 1}, M)

# An error document where a stream was announced, a stream where a document was, and statuses.
for name, path, dialect, body in (
    ("chat", CHAT, C, {"error": {"message": "overloaded", "type": "server_error"}}),
    ("responses", RESP, R, {"error": {"message": "overloaded", "type": "server_error", "code": "server_error"}}),
    ("messages", MSG, A, {"type": "error", "error": {"type": "api_error", "message": "x"}}),
    ("completions", OLD, P, {"error": {"message": "overloaded"}}),
):
    case(f"{name}-error-document-announced-as-stream", path, j(body), "json", {**dialect, "in_band_error": True}, media="text/event-stream")
    for status, what in ((400, "bad-request"), (401, "unauthorized"), (429, "throttled"), (500, "failed"), (503, "unavailable"), (504, "timeout"), (529, "overloaded")):
        whole(f"{name}-status-{status}-{what}", path, body, {**dialect, "in_band_error": True}, status=status)
case("chat-stream-announced-as-document", CHAT, "".join(e + "\n\n" for e in [ROLE, *SAID, STOP, DONE]), "sse", {**OK, "token_events": 3, "done": True}, media="application/json")
case("messages-stream-announced-as-document", MSG, "".join(e + "\n\n" for e in [START, *HELLO, over("end_turn"), FIN]), "sse", {**AOK, "token_events": 3, "done": True}, media="application/json")
case("chat-document-announced-as-stream", CHAT, j(message()), "json", {**OK, **COUNTS}, media="text/event-stream")
whole("chat-doc-html-under-502", CHAT, "<html><body>502</body></html>", {}, media="text/html", status=502)
whole("messages-doc-html", MSG, "<html></html>", {**A, "malformed": True})
whole("embeddings-error", "/v1/embeddings", {"error": {"message": "no"}}, {**V, "in_band_error": True})
whole("embeddings-base64", "/v1/embeddings", {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": "AAAA"}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, {**V, "in": 8})
whole("embeddings-no-usage", "/v1/embeddings", {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}, V)

# More of what providers say.
stream("chat-error-of-throttling", CHAT, [ROLE, 'data: {"error":{"message":"Rate limit","type":"rate_limit_error","code":429}}'], {**C, "in_band_error": True})
stream("chat-keep-alive-objects", CHAT, ["data: {}", ROLE, "event: ping\ndata: {}", *SAID, STOP, DONE], OK)
stream("chat-two-usages-of-which-one-is-zero", CHAT, [ROLE, *SAID, chunk({}, "stop", usage={"prompt_tokens": 0, "completion_tokens": 0}), USAGE, DONE], {**OK, **COUNTS})
stream("chat-finish-twice", CHAT, [ROLE, *SAID, STOP, STOP, DONE], OK)
stream("chat-custom-tool", CHAT, [ROLE, T(chunk({"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "free text"}}]})), chunk({}, "tool_calls"), DONE], TOOLS)
whole("chat-doc-reasoning-to-the-limit", CHAT, message("", "length", reasoning_content="hmm"), {**C, **COUNTS, "finish": "Length", "truncated": True, "empty": True})
whole("chat-doc-two-choices", CHAT, {**message(), "choices": [{"index": i, "message": {"role": "assistant", "content": t}, "finish_reason": f} for i, t, f in ((0, "", "stop"), (1, "a", "length"))]}, {**C, **COUNTS, "finish": "Length", "truncated": True})
whole("completions-doc-empty", OLD, {"object": "text_completion", "choices": [{"text": "", "index": 0, "finish_reason": "stop"}]}, {**P, "finish": "Stop", "empty": True})
stream("completions-error-midway", OLD, [T(text("Hi")), ERROR], {**P, "in_band_error": True})
stream("completions-cancelled", OLD, [T(text("Hi"))], P, ending="cancelled")
stream("responses-queued-first", RESP, [ev("response.queued", response=response("queued")), *BEGIN, *TELL, *SAIDIT, END], {**ROK, **RCOUNTS})
stream("responses-no-usage", RESP, [*BEGIN, *TELL, *SAIDIT, ev("response.completed", response=response("completed", [SAY]))], ROK)
stream("responses-failed-midway", RESP, [*BEGIN, *TELL, ev("response.failed", response=response("failed", [SAY], RUSED, error={"code": "rate_limit_exceeded", "message": "x"}))], {**R, **RCOUNTS, "in_band_error": True, "finish": "Error"})
stream("responses-error-nested", RESP, [*BEGIN, "event: error\ndata: " + j({"type": "error", "error": {"type": "invalid_request_error", "message": "x"}, "sequence_number": 4})], {**R, "in_band_error": True})
MCPCALL = {"id": "mcp_1", "type": "mcp_call", "name": "f", "arguments": "{}", "output": "22", "error": None, "server_label": "s"}
stream("responses-mcp-call", RESP, [BEGIN[0], T(ev("response.mcp_call_arguments.delta", delta="{}")), ev("response.mcp_call.completed", item_id="mcp_1"), ev("response.output_item.done", item=MCPCALL), ev("response.completed", response=response("completed", [MCPCALL], RUSED))], {**ROK, **RCOUNTS})
CUSTOM = {"id": "ct_1", "type": "custom_tool_call", "call_id": "c", "name": "f", "input": "free"}
stream("responses-custom-tool", RESP, [BEGIN[0], T(ev("response.custom_tool_call_input.delta", delta="free")), ev("response.output_item.done", item=CUSTOM), ev("response.completed", response=response("completed", [CUSTOM], RUSED))], RTOOL)
stream("responses-text-and-tool", RESP, [*BEGIN, *TELL, *SAIDIT, ev("response.output_item.done", item=DO("{}")), ev("response.completed", response=response("completed", [SAY, DO("{}")], RUSED))], RTOOL)
stream("responses-after-end", RESP, [*BEGIN, *TELL, *SAIDIT, END, END], {**ROK, **RCOUNTS, "duplicates": 1})
whole("responses-doc-cancelled", RESP, response("cancelled"), {**R, "finish": "Other"})
whole("responses-doc-filtered", RESP, response("incomplete", [], RUSED, incomplete_details={"reason": "content_filter"}), {**R, **RCOUNTS, "finish": "ContentFilter", "filtered": True})
stream("messages-two-deltas-of-usage", MSG, [START, *HELLO, over("end_turn"), over("end_turn", output_tokens=17), FIN], {**AOK, "out": 17})
stream("messages-no-usage", MSG, [an("message_start", message={"id": "m", "type": "message", "role": "assistant", "content": []}), *HELLO, an("message_delta", delta={"stop_reason": "end_turn"}), FIN], {**A, "finish": "Stop"})
stream("messages-two-texts", MSG, [START, *HELLO, block(1, type="text", text=""), T(part(1, type="text_delta", text="b")), halt(1), over("end_turn"), FIN], AOK)
stream("messages-citations", MSG, [START, *HELLO[:3], part(0, type="citations_delta", citation={"type": "char_location", "cited_text": "x"}), halt(0), over("end_turn"), FIN], AOK)
stream("messages-redacted-thinking", MSG, [START, block(0, type="redacted_thinking", data="EmwK"), halt(0), *[type(e)(e.replace('"index":0', '"index":1')) for e in HELLO], over("end_turn"), FIN], AOK)
stream("messages-thinking-then-tool", MSG, [START, *THINK, *use("{\"a\":", "1}"), over("tool_use"), FIN], ATOOL)
stream("messages-tool-truncated", MSG, [START, *use("{\"a\": ")[:3], halt(1), over("max_tokens"), FIN], {**A, **AUSED, "finish": "Length", "truncated": True, "tool_calls": 1, "tool_errors": 1})
stream("messages-stop-sequence", MSG, [START, *HELLO, over("stop_sequence"), FIN], AOK)
stream("messages-error-of-throttling", MSG, [START, *HELLO[:4], an("error", error={"type": "rate_limit_error", "message": "x"})], {**A, **AUSED, "out": 1, "in_band_error": True})
stream("messages-error-after-stop", MSG, [START, *HELLO, over("end_turn"), FIN, FAIL], {**AOK, "duplicates": 1})
whole("messages-doc-thinking-only", MSG, claude([{"type": "thinking", "thinking": "Hm", "signature": "s"}], "max_tokens"), {**A, **AUSED, "finish": "Length", "truncated": True, "empty": True})
whole("messages-doc-refusal", MSG, claude([], "refusal"), {**A, **AUSED, "finish": "Refusal", "refusal": True})
whole("messages-doc-server-tool", MSG, claude([{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, TXT]), AOK)
whole("messages-doc-no-usage", MSG, {"id": "m", "type": "message", "role": "assistant", "content": [TXT], "stop_reason": "end_turn"}, {**A, "finish": "Stop"})

# MCP of 2026-07-28: no sessions, results say their type, subscriptions are streams that owe an answer when they are cancelled.
stream("mcp-2026-complete", MCP, [say(NOTE), say(rpc(id=3, result={"resultType": "complete", "content": [{"type": "text", "text": "a"}], "isError": False}))], {**M, "tool_calls": 1})
stream("mcp-2026-input-required", MCP, [say(rpc(id=3, result={"resultType": "input_required", "inputRequests": {"a": {"method": "elicitation/create", "params": {}}}, "requestState": "x"}))], {**M, "done": True})
whole("mcp-2026-doc-complete", MCP, rpc(id=3, result={"resultType": "complete", "content": [], "structuredContent": {"a": 1}, "isError": False}), {**M, "tool_calls": 1})
whole("mcp-2026-doc-version-refused", MCP, rpc(id=1, error={"code": -32004, "message": "Unsupported protocol version", "data": {"supported": ["2026-07-28"]}}), {**M, "in_band_error": True, "rpc_error": -32004}, status=400)
stream("mcp-error-after-progress", MCP, [say(NOTE), say(REFUSED)], {**M, "in_band_error": True, "rpc_error": -32602})
stream("mcp-internal-error", MCP, [say(rpc(id=1, error={"code": -32603, "message": "x"}))], {**M, "in_band_error": True, "rpc_error": -32603})
stream("mcp-batch-in-stream", MCP, ["data: " + j([NOTE, RESULT])], {**M, "tool_calls": 1, "done": True})
whole("mcp-doc-resource", MCP, rpc(id=1, result={"contents": [{"uri": "file:///a", "text": "isError"}]}), M)
whole("mcp-doc-prompt", MCP, rpc(id=1, result={"messages": [{"role": "user", "content": {"type": "text", "text": "a"}}]}), M)
whole("mcp-doc-ping", MCP, rpc(id=1, result={}), M)
whole("mcp-doc-accepted", MCP, "", M, status=202)
whole("mcp-doc-not-json", MCP, "oops", {**M, "malformed": True})
whole("mcp-doc-session-gone", MCP, rpc(id=None, error={"code": -32001, "message": "Session not found"}), {**M, "in_band_error": True, "rpc_error": -32001}, status=404)

# ---------------------------------------------------------------- Gemini generateContent
GEM, GEMS = "/v1beta/models/gemini-x:generateContent", "/v1beta/models/gemini-x:streamGenerateContent?alt=sse"
G = {"dialect": "Gemini"}
GUSED = {"promptTokenCount": 30, "candidatesTokenCount": 12, "totalTokenCount": 47, "cachedContentTokenCount": 20, "thoughtsTokenCount": 5}
GCOUNTS = {"in": 30, "out": 17, "cached": 20, "reasoning": 5}
GOK = {**G, "finish": "Stop", **GCOUNTS}


def gem(*parts, finish=None, used=None, **more):
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **({"finishReason": finish} if finish else {})}
    return {"candidates": [candidate], **({"usageMetadata": used} if used else {}), "modelVersion": "gemini-x", **more}


def gems(*parts, **more):
    event = "data: " + j(gem(*parts, **more))
    return T(event) if parts and parts[0] != {"text": ""} else event


GSAID = [gems({"text": "Grüße"}, used={"promptTokenCount": 30}), gems({"text": ", 世界 \"finishReason\": \"SAFETY\""})]
GEND = gems({"text": "."}, finish="STOP", used=GUSED)
CALLED = {"functionCall": {"name": "look_up", "args": {"city": "Zürich"}}}


def gemini(name, events, expect, whole_answer=True, **more):
    stream("gemini-" + name, GEMS, events, {**expect, **({"done": True} if whole_answer else {})}, **more)


gemini("good", [*GSAID, GEND], GOK)
gemini("good-crlf", [*GSAID, GEND], GOK, end="\r\n")
gemini("good-empty-last-part", [*GSAID, gems({"text": ""}, finish="STOP", used=GUSED)], GOK)
gemini("good-broken-behind-its-end", [*GSAID, GEND], GOK, ending="broken")
gemini("thought-only-then-said", [gems({"text": "hm", "thought": True}), GEND], GOK)
gemini("thought-only", [gems({"text": "hm", "thought": True}), gems({"text": ""}, finish="STOP", used=GUSED)], {**GOK, "empty": True})
gemini("tool-call", [gems(CALLED), gems({"text": ""}, finish="STOP", used=GUSED)], {**GOK, "finish": "ToolCalls", "tool_calls": 1})
gemini("two-tool-calls", [gems(CALLED, CALLED, finish="STOP", used=GUSED)], {**GOK, "finish": "ToolCalls", "tool_calls": 2})
gemini("tool-call-malformed", [gems({"text": ""}, finish="MALFORMED_FUNCTION_CALL", used=GUSED)], {**GOK, "finish": "Other", "tool_calls": 1, "tool_errors": 1})
gemini("length", [*GSAID, gems({"text": "."}, finish="MAX_TOKENS", used=GUSED)], {**GOK, "finish": "Length", "truncated": True})
gemini("safety", [*GSAID, "data: " + j({"candidates": [{"finishReason": "SAFETY", "index": 0}], "usageMetadata": GUSED})], {**GOK, "finish": "ContentFilter", "filtered": True})
gemini("blocked", ["data: " + j({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 30}})], {**G, "finish": "ContentFilter", "filtered": True, "in": 30})
gemini("empty", [gems({"text": ""}, finish="STOP", used=GUSED)], {**GOK, "empty": True})
gemini("cut", GSAID, {**G, "in": 30, "cut": True}, whole_answer=False)
gemini("cut-in-event", [*GSAID, GEND], {**G, "in": 30, "cut": True}, whole_answer=False, cut=40)
gemini("cut-by-reset", GSAID, {**G, "in": 30, "cut": True}, whole_answer=False, ending="broken")
gemini("cancelled", GSAID, {**G, "in": 30}, whole_answer=False, ending="cancelled")
gemini("error-in-stream", [*GSAID, "data: " + j({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})], {**G, "in": 30, "in_band_error": True}, whole_answer=False)
gemini("nothing", [], {**G, "cut": True}, whole_answer=False)
gemini("huge", [gems({"text": "x" * 300_000}, finish="STOP", used=GUSED)], {**GOK, "oversized": 1})
whole("gemini-doc", GEM, gem({"text": "Hi"}, finish="STOP", used=GUSED), GOK)
whole("gemini-doc-list", "/v1beta/models/gemini-x:streamGenerateContent", [gem({"text": "Hi"}), gem({"text": "!"}, finish="STOP", used=GUSED)], GOK)
whole("gemini-doc-list-cut", "/v1beta/models/gemini-x:streamGenerateContent", j([gem({"text": "Hi"}), gem({"text": "!"}, finish="STOP", used=GUSED)])[:-1], {**G, "cut": True})
whole("gemini-doc-tool", GEM, gem(CALLED, finish="STOP", used=GUSED), {**GOK, "finish": "ToolCalls", "tool_calls": 1})
whole("gemini-doc-picture", GEM, gem({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, finish="STOP", used=GUSED), GOK)
whole("gemini-doc-empty", GEM, {"candidates": [{"finishReason": "STOP", "index": 0}], "usageMetadata": GUSED}, {**GOK, "empty": True})
whole("gemini-doc-blocked", GEM, {"promptFeedback": {"blockReason": "SAFETY"}}, {**G, "finish": "ContentFilter", "filtered": True})
whole("gemini-doc-error", GEM, {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}, {**G, "in_band_error": True}, status=429)
whole("gemini-doc-error-in-200", GEM, {"error": {"code": 500, "message": "no", "status": "INTERNAL"}}, {**G, "in_band_error": True})
whole("gemini-doc-cut", GEM, j(gem({"text": "Hi"}, finish="STOP", used=GUSED))[:-20], {**G, "cut": True})
whole("gemini-doc-not-json", GEM, "<html></html>", {**G, "malformed": True})
whole("gemini-doc-huge", GEM, gem({"text": "x" * 300_000}, finish="STOP", used=GUSED), {**GOK, "oversized": 1})
whole("gemini-count", "/v1beta/models/gemini-x:countTokens", {"totalTokens": 5}, {})

# ---------------------------------------------------------------- Bedrock converse
BED = "/model/us.maker.model-v1%3A0/converse"
B = {"dialect": "Converse"}
BUSED = {"inputTokens": 30, "outputTokens": 12, "totalTokens": 42, "cacheReadInputTokens": 20, "cacheWriteInputTokens": 8}
BCOUNTS = {"in": 30, "out": 12, "cached": 20, "written": 8}
BOK = {**B, "finish": "Stop", **BCOUNTS}


def conv(*content, reason="end_turn"):
    return {"output": {"message": {"role": "assistant", "content": list(content)}}, "stopReason": reason, "usage": BUSED, "metrics": {"latencyMs": 812}}


TOOL_USE = {"toolUse": {"toolUseId": "t1", "name": "look_up", "input": {"city": "Zürich"}}}
whole("converse-doc", BED, conv({"text": "Hi \"stopReason\": \"max_tokens\""}), BOK)
whole("converse-doc-tool", BED, conv({"text": "Hm."}, TOOL_USE, reason="tool_use"), {**BOK, "finish": "ToolCalls", "tool_calls": 1})
whole("converse-doc-tool-malformed", BED, conv(reason="malformed_tool_use"), {**BOK, "finish": "Other", "tool_calls": 1, "tool_errors": 1})
whole("converse-doc-thought-only", BED, conv({"reasoningContent": {"reasoningText": {"text": "hm"}}}), {**BOK, "empty": True})
whole("converse-doc-length", BED, conv({"text": "Hi"}, reason="max_tokens"), {**BOK, "finish": "Length", "truncated": True})
whole("converse-doc-guarded", BED, conv({"text": "Sorry."}, reason="guardrail_intervened"), {**BOK, "finish": "ContentFilter", "filtered": True})
whole("converse-doc-empty", BED, conv(), {**BOK, "empty": True})
whole("converse-doc-cut", BED, j(conv({"text": "Hi"}))[:-15], {**B, "cut": True})
whole("converse-doc-cut-by-reset", BED, j(conv({"text": "Hi"}))[:-15], {**B, "cut": True}, ending="broken")
whole("converse-doc-not-json", BED, "oops", {**B, "malformed": True})
whole("converse-doc-huge", BED, conv({"text": "x" * 300_000}), {**BOK, "oversized": 1})
whole("converse-doc-error", BED, {"message": "Too many requests"}, B, status=429)

BST = "/model/us.maker.model-v1%3A0/converse-stream"
BIN = "/model/us.maker.model-v1%3A0/invoke-with-response-stream"
LOST = {"undecoded": True, "streamed": False}


def packed(headers, payload):
    """A message of Amazon's event stream; every header is a string."""
    heads = b"".join(bytes([len(n)]) + n.encode() + b"\x07" + struct.pack(">H", len(v)) + v.encode() for n, v in headers.items())
    prelude = struct.pack(">II", 16 + len(heads) + len(payload), len(heads))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + heads + payload
    return message + struct.pack(">I", zlib.crc32(message))


class P(bytes):
    """A message that carries generated tokens."""


def bev(name, value):
    return packed({":event-type": name, ":content-type": "application/json", ":message-type": "event"}, j(value).encode())


def bfail(name, message="no"):
    return packed({":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}, j({"message": message}).encode())


def bsay(**delta):
    return P(bev("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta, "p": "abcdef"}))


def framed(name, path, messages, expect, cut=0, done=None, **more):
    body = b"".join(messages)
    body = body[:-cut] if cut else body
    expect = dict(expect)
    marks = sum(isinstance(m, P) for m in messages)
    if marks and not expect.get("undecoded"):
        expect.setdefault("token_events", marks)
    if done:
        expect.setdefault("done", True)
    case(name, path, body, "bin", expect, **more)


BBEGIN = bev("messageStart", {"role": "assistant"})
BSAID = [bsay(text="Grüße"), bsay(text=", 世界 🙂"), bsay(text=" \"stopReason\": \"max_tokens\"")]
BSTOP = bev("contentBlockStop", {"contentBlockIndex": 0})
BMETA = bev("metadata", {"usage": BUSED, "metrics": {"latencyMs": 812}})


def bend(reason="end_turn"):
    return bev("messageStop", {"stopReason": reason})


BTOOL = P(bev("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t1", "name": "look_up"}}}))


def bargs(*parts):
    return [BTOOL, *[P(bev("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": p}}})) for p in parts], bev("contentBlockStop", {"contentBlockIndex": 1})]


framed("converse-stream-good", BST, [BBEGIN, *BSAID, BSTOP, bend(), BMETA], BOK, done=True)
framed("converse-stream-known-by-its-shape", "/bedrock", [BBEGIN, *BSAID, BSTOP, bend(), BMETA], BOK, done=True)
framed("converse-stream-other-protocol-is-silent", BST, [BBEGIN, *BSAID, BSTOP, bend(), BMETA], {"streamed": False, "token_events": 0}, protocol="openai")
framed("converse-stream-without-usage", BST, [BBEGIN, *BSAID, BSTOP, bend()], {**B, "finish": "Stop"}, done=True)
framed("converse-stream-empty-text-first", BST, [BBEGIN, bytes(bsay(text="")), *BSAID, BSTOP, bend(), BMETA], BOK, done=True)
framed("converse-stream-tool", BST, [BBEGIN, bsay(text="Hm."), BSTOP, *bargs('{"city": "Zü', 'rich"}'), bend("tool_use"), BMETA], {**BOK, "finish": "ToolCalls", "tool_calls": 1, "tool": "look_up"}, done=True)
framed("converse-stream-tool-without-arguments", BST, [BBEGIN, *bargs(), bend("tool_use"), BMETA], {**BOK, "finish": "ToolCalls", "tool_calls": 1, "tool": "look_up"}, done=True)
framed("converse-stream-tool-bad-arguments", BST, [BBEGIN, *bargs('{"city": ', 'Zürich}'), bend("tool_use"), BMETA], {**BOK, "finish": "ToolCalls", "tool_calls": 1, "tool_errors": 1, "tool": "look_up"}, done=True)
framed("converse-stream-thought", BST, [BBEGIN, bsay(reasoningContent={"text": "hmm"}), bytes(bsay(reasoningContent={"signature": "x=="})), bsay(text="42"), BSTOP, bend(), BMETA], BOK, done=True)
framed("converse-stream-thought-only", BST, [BBEGIN, bsay(reasoningContent={"text": "hmm"}), BSTOP, bend(), BMETA], {**BOK, "empty": True}, done=True)
framed("converse-stream-length", BST, [BBEGIN, *BSAID, BSTOP, bend("max_tokens"), BMETA], {**BOK, "finish": "Length", "truncated": True}, done=True)
framed("converse-stream-guarded", BST, [BBEGIN, *BSAID, BSTOP, bend("guardrail_intervened"), BMETA], {**BOK, "finish": "ContentFilter", "filtered": True}, done=True)
framed("converse-stream-filtered", BST, [BBEGIN, bend("content_filtered"), BMETA], {**BOK, "finish": "ContentFilter", "filtered": True}, done=True)
framed("converse-stream-empty", BST, [BBEGIN, bend(), BMETA], {**BOK, "empty": True}, done=True)
framed("converse-stream-twice", BST, [BBEGIN, *BSAID, BSTOP, bend(), BMETA, BBEGIN, bytes(BSAID[0]), BSTOP, bend(), BMETA], {**BOK, "duplicates": 4}, done=True)
framed("converse-stream-two-beginnings", BST, [BBEGIN, BBEGIN, *BSAID, BSTOP, bend(), BMETA], {**BOK, "duplicates": 1}, done=True)
framed("converse-stream-unknown-events", BST, [bev("initial-response", {}), BBEGIN, bev("later", {"delta": {"text": "x"}}), *BSAID, BSTOP, bend(), BMETA], BOK, done=True)
framed("converse-stream-huge-delta", BST, [BBEGIN, bsay(text="x" * 300_000), BSTOP, bend(), BMETA], {**BOK, "oversized": 1}, done=True)
framed("converse-stream-cut-before-a-word", BST, [BBEGIN], {**B, "cut": True})
framed("converse-stream-cut-after-token", BST, [BBEGIN, *BSAID], {**B, "cut": True})
framed("converse-stream-cut-before-stop", BST, [BBEGIN, *BSAID, BSTOP], {**B, "cut": True})
framed("converse-stream-cut-in-prelude", BST, [BBEGIN, *BSAID, bytes(bend())], {**B, "cut": True}, cut=len(bend()) - 7)
framed("converse-stream-cut-in-headers", BST, [BBEGIN, *BSAID, bytes(bend())], {**B, "cut": True}, cut=len(bend()) - 30)
framed("converse-stream-cut-in-payload", BST, [BBEGIN, *BSAID, bytes(bend())], {**B, "cut": True}, cut=8)
framed("converse-stream-cut-in-sum", BST, [BBEGIN, *BSAID, bytes(bend())], {**B, "cut": True}, cut=1)
framed("converse-stream-cut-in-usage", BST, [BBEGIN, *BSAID, BSTOP, bend(), BMETA], {**B, "finish": "Stop"}, cut=5, done=True)
framed("converse-stream-cut-by-reset", BST, [BBEGIN, *BSAID], {**B, "cut": True}, ending="broken")
framed("converse-stream-reset-behind-its-end", BST, [BBEGIN, *BSAID, BSTOP, bend()], {**B, "finish": "Stop"}, ending="broken", done=True)
framed("converse-stream-cancelled", BST, [BBEGIN, *BSAID], B, ending="cancelled")
framed("converse-stream-not-a-byte", BST, [], {**B, "cut": True})
framed("converse-stream-throttled", BST, [bfail("throttlingException")], {**B, "in_band_error": True})
framed("converse-stream-fails-in-the-middle", BST, [BBEGIN, *BSAID, bfail("modelStreamErrorException")], {**B, "in_band_error": True})
framed("converse-stream-error-message", BST, [BBEGIN, packed({":message-type": "error", ":error-code": "InternalError", ":error-message": "no"}, b"")], {**B, "in_band_error": True})
framed("converse-stream-error-document", BST, [j({"message": "no"}).encode()], {**B, "streamed": False}, status=400)
framed("converse-stream-no-event-stream", BST, [b"\x00\x00\x00\x52\x00\x00\x00\x40" * 9], LOST)
framed("converse-stream-bad-sum", BST, [BBEGIN, *BSAID, bytes(bend())[:-1] + b"!", BMETA], LOST)
framed("converse-stream-bad-prelude-sum", BST, [BBEGIN, *BSAID, bytes(bend())[:9] + b"!!!" + bytes(bend())[12:], BMETA], LOST)
huge = struct.pack(">II", 0x7FFFFFFF, 20)
framed("converse-stream-nonsense-length", BST, [BBEGIN, huge + struct.pack(">I", zlib.crc32(huge)) + b"x" * 50], LOST)
framed("converse-stream-damaged-behind-its-end", BST, [BBEGIN, *BSAID, BSTOP, bend(), bytes(BMETA)[:-1] + b"!"], LOST)


def binv(value, mark=False):
    message = packed({":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}, j({"bytes": base64.b64encode(j(value).encode()).decode(), "p": "abc"}).encode())
    return P(message) if mark else message


INV = [binv({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 30, "output_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 8}}}),
       binv({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
       *[binv({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}}, True) for t in ("Grüße??>>", ", 世界 🙂")],
       binv({"type": "content_block_stop", "index": 0})]
INVEND = [binv({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 12}}),
          binv({"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 30, "outputTokenCount": 12}})]
INVOK = {"dialect": "Messages", "finish": "Stop", "in": 30, "out": 12, "cached": 20, "written": 8}
framed("bedrock-invoke-stream", BIN, [*INV, *INVEND], INVOK, done=True)
framed("bedrock-invoke-stream-anthropic-protocol", BIN, [*INV, *INVEND], INVOK, done=True, protocol="anthropic")
framed("bedrock-invoke-stream-cut", BIN, INV, {"dialect": "Messages", "in": 30, "out": 1, "cached": 20, "written": 8, "cut": True})
framed("bedrock-invoke-stream-fails", BIN, [*INV, bfail("modelStreamErrorException")], {"dialect": "Messages", "in": 30, "out": 1, "cached": 20, "written": 8, "in_band_error": True})
framed("bedrock-invoke-stream-throttled", BIN, [bfail("throttlingException")], {"in_band_error": True})
framed("bedrock-invoke-stream-of-another-maker", BIN, [binv({"outputText": "Hi", "index": 0, "completionReason": None}), binv({"outputText": "", "index": 0, "completionReason": "FINISH"})], {})
framed("bedrock-invoke-stream-no-base64", BIN, [packed({":event-type": "chunk", ":message-type": "event"}, b'{"bytes":"!!!"}'), *INV, *INVEND], INVOK, done=True)
whole("bedrock-invoke-messages", "/model/maker.model/invoke", {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 4}}, {"dialect": "Messages", "finish": "Stop", "in": 3, "out": 4})

# Plain: what is no text of a model stays unread.
case("plain-audio", "/v1/audio/speech", b"ID3\x04\x00\xff\xfb\x90" * 50, "json", {}, media="audio/mpeg")
whole("plain-images", "/v1/images/generations", {"created": 1, "data": [{"b64_json": "AAAA"}], "usage": {"input_tokens": 5, "output_tokens": 7}}, {})
stream("plain-transcript", "/v1/audio/transcriptions", ["data: " + j({"type": "transcript.text.delta", "delta": "Hi"}), "data: " + j({"type": "transcript.text.done", "text": "Hi"})], {"dialect": "Unknown"})


def toml(entry):
    """As TOML: JSON's strings, numbers and arrays are TOML's too."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items() if key != "expect"]
    lines += ["", "[expect]"] + [f"{key} = {json.dumps(value)}" for key, value in entry["expect"].items()]
    return "\n".join(lines) + "\n"


names = [c["file"].rsplit(".", 1)[0] for c in CASES]
assert len(names) == len(set(names)), [n for n in names if names.count(n) > 1]
for old in glob.glob(os.path.join(HERE, "*.*")):
    if os.path.basename(old).rsplit(".", 1)[0] not in names and not old.endswith(".py"):
        os.remove(old)
for entry in CASES:
    with open(os.path.join(HERE, entry["file"].rsplit(".", 1)[0] + ".toml"), "w") as out:
        out.write(toml(entry))
print(len(CASES), "cases")
