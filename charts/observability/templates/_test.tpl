{{- /*
helm test: each part answers, Prometheus has its rules and reaches its targets and Alertmanager,
Grafana its dashboards, and Jaeger keeps a trace with an error, whatever its sampling.
*/ -}}
{{- define "observability.test" -}}
{{- $runs := include "observability.components" . | fromJsonArray }}
seen() { # WHAT, TEXT: waits until the output of the rest of the line holds TEXT
  what=$1 text=$2
  shift 2
  for try in $(seq {{ add 30 .Values.jaeger.tailSampling.decisionSeconds }}); do
    if "$@" 2>/dev/null | grep -q -F -e "$text"; then
      echo "ok: $what"
      return 0
    fi
    sleep 2
  done
  echo "FAILED: $what; the last answer:"
  "$@" 2>&1 | head -c 2000
  exit 1
}
# Not -T: the wget of some BusyBox dies of it.
fetch() { timeout 10 wget -q -O - "$@"; }
seen "Prometheus is ready" "" fetch http://prometheus:9090/-/ready
seen "it has the rules" '"ErrorBudgetBurn"' fetch 'http://prometheus:9090/api/v1/rules?type=alert'
seen "it scrapes itself, so it finds pods" '=> 1 @' promtool query instant http://prometheus:9090 'min(up{job="prometheus",namespace="{{ .Release.Namespace }}"})'
{{- range without $runs "prometheus" }}
seen "it scrapes {{ . }}" '=> 1 @' promtool query instant http://prometheus:9090 'min(up{job="{{ . }}",namespace="{{ $.Release.Namespace }}"})'
{{- end }}
{{- if has "alertmanager" $runs }}
seen "Alertmanager is ready" "" fetch http://alertmanager:9093/-/ready
seen "Prometheus knows it" 'http://alertmanager:9093/' fetch http://prometheus:9090/api/v1/alertmanagers
{{- end }}
{{- if has "grafana" $runs }}
seen "Grafana is well" '"ok"' fetch http://grafana/api/health
{{- end }}
{{- if has "jaeger" $runs }}
now=$(date +%s)
trace=$(printf '%032x' "$now")
span='{"traceId":"'$trace'","spanId":"00000000000000a1","name":"helm test","kind":2,"startTimeUnixNano":"'$now'000000000","endTimeUnixNano":"'$now'001000000","status":{"code":2}}'
send() {
  fetch --header 'Content-Type: application/json' \
    --post-data '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"helm-test"}}]},"scopeSpans":[{"spans":['"$span"']}]}]}' \
    http://jaeger:4318/v1/traces
}
seen "Jaeger takes a span" '{' send
seen "Jaeger keeps the trace, because of its error" '"helm test"' fetch "http://jaeger:16686/api/traces/$trace"
{{- end }}
echo "everything observes"
{{- end }}
