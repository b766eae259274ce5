// Answers by the unmodified OpenAI and Anthropic SDKs for Node, mixed and at once; prints what they reported as JSON.
//
// usage: node tokens.mjs FOLDER ANSWERS (FOLDER has node_modules; environment: SERIN_URL).

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, count] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${folder}/package.json`));
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")));
const { default: Anthropic } = await import(pathToFileURL(require.resolve("@anthropic-ai/sdk")));

const url = process.env.SERIN_URL;
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-test", maxRetries: 0, timeout: 60_000 });
const anthropic = new Anthropic({ baseURL: url, apiKey: "sk-test", maxRetries: 0, timeout: 60_000 });

const kinds = ["input", "output", "cached_input", "reasoning", "cache_write", "fresh"];
const ofChat = ({ prompt_tokens: input, completion_tokens: output, prompt_tokens_details: more, completion_tokens_details: less }) => [
  input,
  output,
  more.cached_tokens,
  less.reasoning_tokens,
  0,
  input - more.cached_tokens,
];
const ofResponses = ({ input_tokens: input, output_tokens: output, input_tokens_details: more, output_tokens_details: less }) => [
  input,
  output,
  more.cached_tokens,
  less.reasoning_tokens,
  0,
  input - more.cached_tokens,
];
const ofClaude = ({ input_tokens: input, output_tokens: output, cache_read_input_tokens: read, cache_creation_input_tokens: written }) => [
  input,
  output,
  read,
  0,
  written,
  input,
];

const ways = [
  async (messages, most, options) =>
    ofChat((await openai.chat.completions.create({ model: "any", messages, max_tokens: most }, options)).usage),
  async (messages, most, options) => {
    const body = { model: "any", messages, max_tokens: most, stream: true, stream_options: { include_usage: true } };
    let usage;
    for await (const chunk of await openai.chat.completions.create(body, options)) usage = chunk.usage ?? usage;
    return ofChat(usage);
  },
  async (input, most, options) =>
    ofResponses((await openai.responses.create({ model: "any", input, max_output_tokens: most }, options)).usage),
  async (input, most, options) => {
    let usage;
    const body = { model: "any", input, max_output_tokens: most, stream: true };
    for await (const event of await openai.responses.create(body, options)) usage = event.response?.usage ?? usage;
    return ofResponses(usage);
  },
  async (messages, most, options) =>
    ofClaude((await anthropic.messages.create({ model: "any", messages, max_tokens: most }, options)).usage),
  async (messages, most, options) => {
    const stream = anthropic.messages.stream({ model: "any", messages, max_tokens: most }, options);
    return ofClaude((await stream.finalMessage()).usage);
  },
];

let next = 0;
const total = Object.fromEntries(["answers", ...kinds].map((kind) => [kind, 0]));
async function worker() {
  while (next < Number(count)) {
    const index = next++;
    const messages = [{ role: "user", content: "word ".repeat(1 + (index % 17)) }];
    const options = { headers: { "x-user-id": `node-${index % 97}` } };
    const counted = await ways[index % ways.length](messages, 1 + (index % 13), options);
    total.answers += 1;
    kinds.forEach((kind, at) => (total[kind] += counted[at]));
  }
}
await Promise.all(Array.from({ length: 16 }, worker));
const version = (name) => require(`${folder}/node_modules/${name}/package.json`).version;
console.log(JSON.stringify({ ...total, sdk: `openai ${version("openai")}, anthropic ${version("@anthropic-ai/sdk")} (node)` }));
