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

const ofChat = (usage) => [usage.prompt_tokens, usage.completion_tokens];
const ofOthers = (usage) => [usage.input_tokens, usage.output_tokens];

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
    ofOthers((await openai.responses.create({ model: "any", input, max_output_tokens: most }, options)).usage),
  async (input, most, options) => {
    let usage;
    const body = { model: "any", input, max_output_tokens: most, stream: true };
    for await (const event of await openai.responses.create(body, options)) usage = event.response?.usage ?? usage;
    return ofOthers(usage);
  },
  async (messages, most, options) =>
    ofOthers((await anthropic.messages.create({ model: "any", messages, max_tokens: most }, options)).usage),
  async (messages, most, options) => {
    const stream = anthropic.messages.stream({ model: "any", messages, max_tokens: most }, options);
    return ofOthers((await stream.finalMessage()).usage);
  },
];

let next = 0;
const total = { answers: 0, input: 0, output: 0 };
async function worker() {
  while (next < Number(count)) {
    const index = next++;
    const messages = [{ role: "user", content: "word ".repeat(1 + (index % 17)) }];
    const options = { headers: { "x-user-id": `node-${index % 97}` } };
    const [input, output] = await ways[index % ways.length](messages, 1 + (index % 13), options);
    total.answers += 1;
    total.input += input;
    total.output += output;
  }
}
await Promise.all(Array.from({ length: 16 }, worker));
const version = (name) => require(`${folder}/node_modules/${name}/package.json`).version;
console.log(JSON.stringify({ ...total, sdk: `openai ${version("openai")}, anthropic ${version("@anthropic-ai/sdk")} (node)` }));
