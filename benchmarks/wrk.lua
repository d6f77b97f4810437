-- Sends the request heads of the benchmark and prints the result as one line that load.py reads.
-- Arguments: how many header fields (0 or 12), "keep-alive" or "close", and how many host names take turns: `web0`, `web1`, …; 0: always `web`.
-- wrk formats one request per thread when no request() function is defined; with many hosts they are formatted here, once each.
local twelve = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3",
  ["Accept-Encoding"] = "gzip, deflate, br",
  ["Referer"] = "http://www.example.com/catalogue/category/12?page=3&sort=price",
  ["Cookie"] = "session=4f9a1c6e2b7d48d09c3e5a7b1d2f6e80; theme=dark; consent=necessary",
  ["Cache-Control"] = "max-age=0",
  ["X-Request-Id"] = "5b1f7a0c-3d2e-4f68-9a7b-0c1d2e3f4a5b",
  ["X-Forwarded-For"] = "203.0.113.17",
  ["X-Forwarded-Proto"] = "https",
  ["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}

function init(args)
  wrk.headers["Host"] = "web"
  if args[1] == "12" then
    for name, value in pairs(twelve) do wrk.headers[name] = value end
  end
  if args[2] == "close" then wrk.headers["Connection"] = "close" end
  local hosts = tonumber(args[3]) or 0
  if hosts > 0 then
    local requests, next = {}, 0
    for number = 0, hosts - 1 do
      wrk.headers["Host"] = "web" .. number
      requests[number] = wrk.format()
    end
    request = function()
      next = (next + 1) % hosts
      return requests[next]
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  local line = "RESULT requests=%d duration_us=%d p50_us=%d p99_us=%d p999_us=%d max_us=%d bad_status=%d socket_errors=%d\n"
  io.write(string.format(line, summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), latency.max, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
