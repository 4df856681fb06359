// SPDX-License-Identifier: AGPL-3.0-or-later
// The official TypeScript clients against one server. Usage: node typescript_client.mjs URL FLAVOUR MODE
//
// URL may also be `stdio:COMMAND` (words by blanks), which is started.
// FLAVOUR: `sdk` (package sdk, version 1: the handshake), `legacy` (package client, the handshake), `auto` (package client,
// probes with server/discover) or `modern` (package client, nothing but 2026-07-28).
// MODE is `visit` or `outlive`, which behave as in steps.py, or (with `sdk`) `tasks`, which says once what it saw of tasks.

import { createInterface } from "node:readline";

const [url, flavour, mode] = process.argv.slice(2);
const [command, ...args] = url.startsWith("stdio:") ? url.slice(6).split(" ") : [];
const stdio = command && { command, args };
const info = { name: "peer-test", version: "1" };
const NEGOTIATION = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };
const CAPABILITIES = { elicitation: {}, sampling: {} };
const TIMEOUT_MS = 12_000;
const ROUNDS_AT_MOST = 40;
const SLOW_S = 5;
const LONG_S = 30;
const SLOW_CALLS = ["sleep", "write_slowly"];
const LIMIT_MS = 150_000;
let handshakes = 0;

async function countingFetch(address, init) {
  if (typeof init?.body === "string" && init.body.includes('"initialize"')) handshakes += 1;
  return fetch(address, init);
}

async function connect() {
  const onElicit = async () => ({ action: "accept", content: { name: "Ada" } });
  const onSample = async () => ({ role: "assistant", content: { type: "text", text: "something" }, model: "peer-model" });
  if (flavour === "sdk") {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const { ElicitRequestSchema, CreateMessageRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");
    const client = new Client(info, { capabilities: CAPABILITIES });
    client.setRequestHandler(ElicitRequestSchema, onElicit);
    client.setRequestHandler(CreateMessageRequestSchema, onSample);
    const { StdioClientTransport } = await import("@modelcontextprotocol/sdk/client/stdio.js");
    const transport = stdio ? new StdioClientTransport(stdio) : new StreamableHTTPClientTransport(new URL(url), { fetch: countingFetch });
    let version;
    transport.setProtocolVersion = ((tell) => (found) => (version = found, tell?.call(transport, found)))(transport.setProtocolVersion);
    await client.connect(transport);
    return { client, call: (params, options) => client.callTool(params, undefined, options), version: () => version };
  }
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const client = new Client(info, { capabilities: CAPABILITIES, versionNegotiation: { mode: NEGOTIATION[flavour] } });
  client.setRequestHandler("elicitation/create", onElicit);
  client.setRequestHandler("sampling/createMessage", onSample);
  const started = async () => new (await import("@modelcontextprotocol/client/stdio")).StdioClientTransport(stdio);
  await client.connect(stdio ? await started() : new StreamableHTTPClientTransport(new URL(url), { fetch: countingFetch }));
  return { client, call: (params, options) => client.callTool(params, options), version: () => client.getNegotiatedProtocolVersion() };
}

// A value, or the error as a user would see it.
async function outcome(promise) {
  try {
    return await promise;
  } catch (error) {
    return { error_code: error.code ?? null, error_name: error.name, message: error.message };
  }
}

async function callTool(call, name, args, options) {
  const result = await call({ name, arguments: args }, { timeout: TIMEOUT_MS, ...options });
  const text = result.content.filter((part) => part.type === "text").map((part) => part.text).join("");
  return { is_error: result.isError === true, text };
}

async function progressOf(call) {
  const seen = [];
  const onprogress = (update) => seen.push([update.progress, update.total ?? null, update.message ?? null]);
  const result = await callTool(call, "sleep", { seconds: 0.3 }, { onprogress });
  return result.is_error ? [[-1, null, result.text]] : seen;
}

// Start a long call and cancel it when it runs; whether that ended it.
async function cancelledCall(call) {
  const abort = new AbortController();
  const onprogress = () => abort.abort("the test says so");
  try {
    await callTool(call, "sleep", { seconds: LONG_S, steps: 300 }, { signal: abort.signal, onprogress });
  } catch (error) {
    if (abort.signal.aborted) return true;
    throw error;
  }
  return false;
}

async function oneRound({ client, call }) {
  const options = { timeout: TIMEOUT_MS, cacheMode: "refresh" };
  const read = (uri) => client.readResource({ uri }, options).then((result) => result.contents.map((part) => part.text).join(""));
  return {
    tools: await outcome(client.listTools(undefined, options).then((listed) => listed.tools.map((tool) => tool.name))),
    echo: await outcome(callTool(call, "echo", { text: "grüß dich" })),
    progress: await outcome(progressOf(call)),
    cancelled: await outcome(cancelledCall(call)),
    resources: await outcome(client.listResources(undefined, options).then((listed) => listed.resources.map((one) => one.uri))),
    templates: await outcome(client.listResourceTemplates(undefined, options).then((listed) => listed.resourceTemplates.map((one) => one.uriTemplate))),
    read: await outcome(read("peers://colours")),
    read_template: await outcome(read("peers://colour/sky")),
    prompts: await outcome(client.listPrompts(undefined, options).then((listed) => listed.prompts.map((one) => one.name))),
    prompt: await outcome(
      client.getPrompt({ name: "describe", arguments: { thing: "sky" } }, options).then((got) => got.messages.map((one) => one.content.text).join("")),
    ),
    elicit: await outcome(callTool(call, "ask_name", {})),
    sample: await outcome(callTool(call, "ask_model", {})),
  };
}

function failures(round) {
  return Object.fromEntries(Object.entries(round).filter(([, value]) => value?.error_name || value?.is_error));
}

async function visit(connection) {
  const { client, call, version } = connection;
  say({
    protocol_version: version(),
    server_name: client.getServerVersion()?.name ?? null,
    ...(await oneRound(connection)),
    wrong_argument: await outcome(callTool(call, "echo", { txet: 1 })),
    unknown_tool: await outcome(callTool(call, "no_such_tool", {})),
    unknown_resource: await outcome(client.readResource({ uri: "peers://colour/nothing" })),
  });
  while (!(await lines.next()).done) await longCall(connection);
}

// Start, and on command cancel, one long call.
async function longCall({ call }) {
  const abort = new AbortController();
  let finished = null;
  const options = { signal: abort.signal, onprogress: () => {}, timeout: LIMIT_MS };
  const running = outcome(callTool(call, "sleep", { seconds: LONG_S }, options)).then((seen) => (finished = seen));
  say({ started: true });
  await lines.next();
  const early = finished;
  abort.abort("the test says so");
  await running;
  // A further call shows that cancelling one call leaves the connection usable.
  const echo = await outcome(callTool(call, "echo", { text: "a" }));
  say({ cancelled: early === null && finished.is_error === undefined, finished: early, echo });
}

// One slow call; `runs` is called when the tool runs.
async function slowCall(call, name, calls, runs) {
  const began = performance.now();
  const seen = await outcome(callTool(call, name, { seconds: SLOW_S }, { onprogress: runs }));
  calls[name] = { ...seen, seconds: (performance.now() - began) / 1000 };
  runs();
}

async function outlive(connection) {
  say({ failures: failures(await oneRound(connection)), handshakes });
  while (!(await lines.next()).done) {
    const calls = {};
    const ends = [];
    const running = SLOW_CALLS.map((name) => new Promise((runs) => ends.push(slowCall(connection.call, name, calls, runs))));
    await Promise.all(running);
    say({ calling: true });
    const rounds = [];
    while (Object.keys(calls).length < SLOW_CALLS.length && rounds.length < ROUNDS_AT_MOST) {
      rounds.push(failures(await oneRound(connection)));
    }
    await Promise.all(ends);
    // A round that began with both calls over: from here on nothing may fail.
    say({ calls, rounds, after: failures(await oneRound(connection)), handshakes });
  }
}

// All that a call goes through that runs as a task; ends with its result or error.
async function asTask(client, name, args) {
  const seen = { statuses: [] };
  for await (const step of client.experimental.tasks.callToolStream({ name, arguments: args }, undefined, { task: { ttl: 60_000 } })) {
    if (step.type === "taskCreated") seen.id = step.task.taskId;
    if (step.type === "taskStatus" && seen.statuses.at(-1) !== step.task.status) seen.statuses.push(step.task.status);
    if (step.type === "result") seen.text = step.result.content.map((part) => part.text).join("");
    if (step.type === "error") seen.error = step.error.message;
  }
  return seen;
}

async function tasks({ client }) {
  const tasks = client.experimental.tasks;
  await client.listTools(); // it learns which tools are for tasks
  const told = await outcome(asTask(client, "count_slowly", { seconds: 0.5 }));
  const asked = await outcome(asTask(client, "ask_in_a_task", {}));
  const failed = await outcome(asTask(client, "fail_in_a_task", {}));
  const { CallToolResultSchema } = await import("@modelcontextprotocol/sdk/types.js");
  const reason = await outcome(tasks.getTaskResult(failed.id, CallToolResultSchema).then((result) => result.content[0].text));
  const long = tasks.callToolStream({ name: "count_slowly", arguments: { seconds: LONG_S } }, undefined, { task: {} });
  const created = (await long.next()).value.task;
  const cancelled = await outcome(tasks.cancelTask(created.taskId).then((task) => task.status));
  const listed = await outcome(tasks.listTasks().then((page) => page.tasks.map((task) => [task.taskId, task.status])));
  say({ offered: client.getServerCapabilities().tasks, told, asked, failed, reason, long: created.taskId, cancelled, listed });
}

const say = (value) => console.log(JSON.stringify(value));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
// Nothing may hang a test run: leave, failing, whatever happens.
setTimeout(() => process.exit(3), LIMIT_MS).unref();
const connection = await connect();
await { visit, outlive, tasks }[mode](connection);
await connection.client.close();
process.exit(0);
