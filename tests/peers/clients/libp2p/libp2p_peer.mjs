// SPDX-License-Identifier: AGPL-3.0-or-later
// A js-libp2p peer that does what it is told, one JSON line after the other on its standard input, and answers each with one on
// its standard output. It serves `/mcp+p2p/1.0.0` with one tool of its own.
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const MCP = '/mcp+p2p/1.0.0'
const META = 'io.modelcontextprotocol/'
const VERSION = '2026-07-28'
const WITHIN_MS = 10_000

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping() }
})

// --- frames: four bytes of length, big endian, and so many bytes of JSON ---

function framed (message) {
  const body = new TextEncoder().encode(JSON.stringify(message))
  const frame = new Uint8Array(4 + body.length)
  new DataView(frame.buffer).setUint32(0, body.length)
  frame.set(body, 4)
  return frame
}

async function send (stream, bytes) {
  if (!stream.send(bytes)) await stream.onDrain()
}

async function * messages (stream) {
  let rest = new Uint8Array()
  for await (const piece of stream) {
    const more = piece.subarray()
    const both = new Uint8Array(rest.length + more.length)
    both.set(rest)
    both.set(more, rest.length)
    rest = both
    while (rest.length >= 4) {
      const end = 4 + new DataView(rest.buffer, rest.byteOffset).getUint32(0)
      if (rest.length < end) break
      yield JSON.parse(new TextDecoder().decode(rest.subarray(4, end)))
      rest = rest.subarray(end)
    }
  }
}

// --- its own server ---

const TOOL = {
  name: 'js_sum',
  description: 'The sum of two numbers.',
  inputSchema: { type: 'object', properties: { a: { type: 'number' }, b: { type: 'number' } }, required: ['a', 'b'] }
}

function answer ({ method, params }) {
  if (method === 'server/discover') {
    return {
      resultType: 'complete',
      supportedVersions: [VERSION],
      capabilities: { tools: {} },
      serverInfo: { name: 'js-peer', version: '1' },
      ttlMs: 0,
      cacheScope: 'private'
    }
  }
  if (method === 'tools/list') return { resultType: 'complete', tools: [TOOL], ttlMs: 0, cacheScope: 'private' }
  if (method === 'tools/call' && params.name === TOOL.name) {
    const sum = params.arguments.a + params.arguments.b
    return { resultType: 'complete', content: [{ type: 'text', text: JSON.stringify({ sum }) }], structuredContent: { sum } }
  }
  return null
}

await node.handle(MCP, async stream => {
  try {
    for await (const message of messages(stream)) {
      if (message.id === undefined) continue
      const result = answer(message)
      const error = { code: -32601, message: `there is no ${message.method} here` }
      await send(stream, framed({ jsonrpc: '2.0', id: message.id, ...(result ? { result } : { error }) }))
    }
    await stream.close()
  } catch (error) {
    stream.abort(error)
  }
})

// --- what it is told to do ---

const streams = new Map()
let nextId = 0

async function opened (peer) {
  const open = streams.get(peer)
  if (open !== undefined && open.stream.status === 'open') return open
  const stream = await node.dialProtocol(node.getConnections().find(one => one.remotePeer.toString() === peer).remotePeer, MCP)
  const made = { stream, heard: messages(stream) }
  streams.set(peer, made)
  return made
}

const COMMANDS = {
  async dial ({ address }) {
    const connection = await node.dial(multiaddr(address), { signal: AbortSignal.timeout(WITHIN_MS) })
    return { peer: connection.remotePeer.toString(), encryption: connection.encryption, multiplexer: connection.multiplexer }
  },
  async ping ({ peer }) {
    return { ms: await node.services.ping.ping(connectionWith(peer).remotePeer, { signal: AbortSignal.timeout(WITHIN_MS) }) }
  },
  async identify ({ peer }) {
    const found = await node.services.identify.identify(connectionWith(peer), { signal: AbortSignal.timeout(WITHIN_MS) })
    return { agent: found.agentVersion, protocols: found.protocols, addresses: found.listenAddrs.map(String) }
  },
  async ask ({ peer, method, params }) {
    const { stream, heard } = await opened(peer)
    const meta = {
      [META + 'protocolVersion']: VERSION,
      [META + 'clientCapabilities']: {},
      [META + 'clientInfo']: { name: 'js-peer', version: '1' }
    }
    nextId += 1
    await send(stream, framed({ jsonrpc: '2.0', id: nextId, method, params: { ...params, _meta: meta } }))
    const { value } = await heard.next()
    return { message: value ?? null }
  },
  // Bytes instead of frames; then the end of its half, or of all of it, or nothing.
  async bytes ({ peer, hex, then }) {
    const stream = await node.dialProtocol(connectionWith(peer).remotePeer, MCP)
    await send(stream, Uint8Array.from(Buffer.from(hex, 'hex')))
    if (then === 'close') await stream.close()
    if (then === 'abort') stream.abort(new Error('enough'))
    let heard = 0
    if (then !== 'abort') for await (const piece of stream) heard += piece.byteLength
    return { heard }
  },
  async connections () {
    return { peers: node.getConnections().map(one => one.remotePeer.toString()) }
  }
}

function connectionWith (peer) {
  const found = node.getConnections().find(one => one.remotePeer.toString() === peer)
  if (found === undefined) throw new Error(`no connection with ${peer}`)
  return found
}

function say (value) {
  process.stdout.write(JSON.stringify(value) + '\n')
}

say({ peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...what } = JSON.parse(line)
  try {
    say({ ok: await COMMANDS[name](what) })
  } catch (error) {
    say({ error: String(error) })
  }
}
await node.stop()
process.exit(0)
