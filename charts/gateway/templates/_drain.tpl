{{- /*
What preStop runs. SIGTERM ends Envoy at once, so everything that must not be cut happens before it.
Once /healthcheck/fail is said, /ready is 503 and every answer carries `connection: close` (GOAWAY in
HTTP/2). The image has bash, but no HTTP client.
Open streams (WebSockets, server-sent events) count as requests and never end by themselves: with one
left, both waits last as long as they may, and SIGTERM cuts it. Its client resumes elsewhere.
*/ -}}
{{- define "gateway.drain" -}}
set -u

admin() { # METHOD PATH
  { printf '%s %s HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$1" "$2" >&3 &&
    cat <&3; } 3<>/dev/tcp/{{ .Values.admin.address }}/{{ .Values.admin.port }}
}

active() { # cx: connections, rq: requests
  local answer
  answer=$(admin GET "/stats?filter=public.downstream_$1_active")
  [[ $answer =~ downstream_$1_active:\ ([0-9]+) ]] && echo "${BASH_REMATCH[1]}" || echo 0
}

admin POST /healthcheck/fail >/dev/null
# Endpoints, proxies and load balancers need a moment to send new connections elsewhere.
sleep {{ .Values.noticeSeconds }}
while ((SECONDS < {{ .Values.drainSeconds }})) && (($(active cx) > 0)); do sleep 0.5; done
# The last ones: no new connection, and the requests in flight get the time that a route gives them.
admin POST /drain_listeners >/dev/null
while ((SECONDS < {{ sub (include "gateway.draining" . | int) 5 }})) && (($(active rq) > 0)); do sleep 0.1; done
{{- end }}
