// SPDX-License-Identifier: AGPL-3.0-or-later
// The official TypeScript clients against one server. Usage: node typescript_client.mjs URL FLAVOUR MODE
//
// URL may also be `stdio:COMMAND` (words by blanks), which is started.
// FLAVOUR: `sdk` (package sdk, version 1: the handshake), `legacy` (package client, the handshake), `auto` (package client,
// probes with server/discover) or `modern` (package client, nothing but 2026-07-28).
// MODE is `tour` or `cancel`; both behave as in python_client.py.

import { createInterface } from "node:readline";

const [url, flavour, mode] = process.argv.slice(2);
const [command, ...args] = url.startsWith("stdio:") ? url.slice(6).split(" ") : [];
const stdio = command && { command, args };
const info = { name: "peer-test", version: "1" };
const NEGOTIATION = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };

async function connect() {
  if (flavour === "sdk") {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const { StdioClientTransport } = await import("@modelcontextprotocol/sdk/client/stdio.js");
    const client = new Client(info);
    const transport = stdio ? new StdioClientTransport(stdio) : new StreamableHTTPClientTransport(new URL(url));
    let version;
    transport.setProtocolVersion = ((tell) => (found) => (version = found, tell?.call(transport, found)))(transport.setProtocolVersion);
    await client.connect(transport);
    return { client, call: (params, options) => client.callTool(params, undefined, options), version: () => version };
  }
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const client = new Client(info, { versionNegotiation: { mode: NEGOTIATION[flavour] } });
  const started = async () => new (await import("@modelcontextprotocol/client/stdio")).StdioClientTransport(stdio);
  await client.connect(stdio ? await started() : new StreamableHTTPClientTransport(new URL(url)));
  return { client, call: (params, options) => client.callTool(params, options), version: () => client.getNegotiatedProtocolVersion() };
}

async function outcome(call, name, args, options) {
  try {
    const result = await call({ name, arguments: args }, { timeout: 40_000, ...options });
    const text = result.content.filter((part) => part.type === "text").map((part) => part.text).join("");
    return { is_error: result.isError === true, text };
  } catch (error) {
    return { error_code: error.code ?? null, error_name: error.name, message: error.message };
  }
}

async function tour({ client, call, version }) {
  const progress = [];
  const onprogress = (update) => progress.push([update.progress, update.total ?? null, update.message ?? null]);
  const listed = await client.listTools();
  return {
    protocol_version: version(),
    server_name: client.getServerVersion()?.name ?? null,
    tools: listed.tools.map((tool) => tool.name),
    echo: await outcome(call, "echo", { text: "grüß dich" }),
    sleep: await outcome(call, "sleep", { seconds: 0.3 }, { onprogress }),
    progress,
    wrong_argument: await outcome(call, "echo", { txet: 1 }),
    unknown_tool: await outcome(call, "no_such_tool", {}),
  };
}

async function cancel({ call }) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const abort = new AbortController();
  let finished = null;
  const running = outcome(call, "sleep", { seconds: 30 }, { signal: abort.signal, onprogress: () => {} }).then((seen) => (finished = seen));
  console.log(JSON.stringify({ started: true }));
  await lines.next();
  const early = finished;
  abort.abort("the test says so");
  await running;
  const echo = await outcome(call, "echo", { text: "a" });
  console.log(JSON.stringify({ cancelled: early === null && finished.is_error === undefined, finished: early, echo }));
  await lines.next();
}

// Nothing may hang a test run: leave, failing, after a minute whatever happens.
setTimeout(() => process.exit(3), 60_000).unref();
const connection = await connect();
if (mode === "tour") {
  console.log(JSON.stringify(await tour(connection)));
} else {
  await cancel(connection);
}
await connection.client.close();
process.exit(0);
