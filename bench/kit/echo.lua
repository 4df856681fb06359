-- SPDX-License-Identifier: AGPL-3.0-or-later
-- For wrk: posts one body with given headers and prints one JSON line at the end.
-- Usage: wrk ... -s echo.lua URL -- BODY "Name: value"...
-- There is no `request` and no `response` function on purpose: with them wrk runs Lua for every request and becomes the
-- bottleneck. `bytes` over `requests` shows whether all answers were of the expected size.

function init(args)
  wrk.method = "POST"
  wrk.body = args[1]
  for i = 2, #args do
    local name, value = args[i]:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "duration_us": %d, "bytes": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"bad_status": %d, "connect_errors": %d, "read_errors": %d, "write_errors": %d, "timeouts": %d}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
    e.status, e.connect, e.read, e.write, e.timeout))
end
