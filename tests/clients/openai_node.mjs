// The official OpenAI SDK for Node against a running proxy: `node openai_node.mjs URL`, a JSON line for each check.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import OpenAI from "openai";

const [url, png] = process.argv.slice(2);
const manifest = createRequire(import.meta.url).resolve("openai").replace(/(.*node_modules\/openai)\/.*/, "$1/package.json");
const version = JSON.parse(readFileSync(manifest, "utf8")).version;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "Name a colour." }];
const schema = { type: "object", properties: { colour: { enum: ["red", "green"] } }, required: ["colour"], additionalProperties: false };
const chat = (more) => client.chat.completions.create({ model: "small", messages, max_tokens: 8, ...more });

const checks = {
  "one answer": async () => {
    const answer = await chat();
    assert.ok(answer.choices[0].message.content);
    assert.ok(answer.usage.completion_tokens > 0);
  },
  "stream with usage": async () => {
    let text = "", usage, reason;
    for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta.content ?? "";
      reason = chunk.choices[0]?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
    }
    assert.ok(text && reason && usage.completion_tokens > 0);
  },
  "JSON schema": async () => {
    const format = { type: "json_schema", json_schema: { name: "colour", schema, strict: true } };
    const answer = await chat({ max_tokens: 64, response_format: format });
    assert.ok(["red", "green"].includes(JSON.parse(answer.choices[0].message.content).colour));
  },
  "log probabilities": async () => {
    const answer = await chat({ logprobs: true, top_logprobs: 3 });
    assert.equal(answer.choices[0].logprobs.content[0].top_logprobs.length, 3);
  },
  "n": async () => assert.equal((await chat({ n: 2 })).choices.length, 2),
  "image": async () => {
    const image = { type: "image_url", image_url: { url: `data:image/png;base64,${png}` } };
    const answer = await chat({ model: "eyes", messages: [{ role: "user", content: [{ type: "text", text: "What is this?" }, image] }] });
    assert.ok(answer.choices[0].finish_reason);
  },
  "responses": async () => assert.ok((await client.responses.create({ model: "small", input: "Name a colour.", max_output_tokens: 16 })).output_text),
  "cancelled stream": async () => {
    const stream = await chat({ stream: true, max_tokens: 400 });
    for await (const _ of stream) break; // which aborts the request
    assert.ok((await chat({ max_tokens: 2 })).choices.length);
  },
  "list of models": async () => {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.ok(names.includes("small") && names.includes("role:chat"));
  },
  "unknown model": async () => {
    await assert.rejects(chat({ model: "none" }), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
  },
  "refused parameter": async () => {
    await assert.rejects(chat({ chat_template: "x" }), (error) => error instanceof OpenAI.BadRequestError && error.param === "chat_template");
  },
};

let failed = 0;
for (const [check, run] of Object.entries(checks)) {
  let problem = null;
  try {
    await run();
  } catch (error) {
    problem = `${error.name}: ${error.message}`;
    failed = 1;
  }
  console.log(JSON.stringify({ client: `openai (Node) ${version}`, check, problem }));
}
process.exit(failed);
