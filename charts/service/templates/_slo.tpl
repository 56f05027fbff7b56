{{- /* Multi-window, multi-burn-rate alerts. A burn of 1 spends the whole budget in 30 days; an alert
      needs the burn in a long window (it matters) and in a short one (it goes on). */ -}}
{{- define "service.alerts" -}}
{{- list
  (dict "burn" 14.4 "long" "1h" "short" "5m" "severity" "page" "for" "2m")
  (dict "burn" 6 "long" "6h" "short" "30m" "severity" "page" "for" "15m")
  (dict "burn" 3 "long" "1d" "short" "2h" "severity" "ticket" "for" "1h")
  (dict "burn" 1 "long" "3d" "short" "6h" "severity" "ticket" "for" "3h")
  | toJson -}}
{{- end }}

{{- /* The bounds of http_request_duration_seconds: only there is "faster than" a fact. */ -}}
{{- define "service.buckets" -}}
{"1": "0.001", "5": "0.005", "10": "0.01", "25": "0.025", "50": "0.05", "100": "0.1", "250": "0.25", "500": "0.5", "1000": "1.0", "2500": "2.5", "5000": "5.0", "10000": "10.0"}
{{- end }}

{{- /* The share of requests that break the promise in a window: {root, kind, window}. */ -}}
{{- define "service.badRatio" -}}
{{- $of := printf "namespace=%q,job=%q" .root.Release.Namespace .root.Values.name -}}
{{- if eq .kind "errors" -}}
sum(rate(http_requests_total{ {{- $of -}} ,status=~"5.."}[{{ .window }}])) / sum(rate(http_requests_total{ {{- $of -}} }[{{ .window }}]))
{{- else -}}
{{- $le := get (include "service.buckets" . | fromJson) (toString .root.Values.slo.latency.milliseconds) -}}
1 - sum(rate(http_request_duration_seconds_bucket{ {{- $of -}} ,le="{{ $le }}"}[{{ .window }}])) / sum(rate(http_request_duration_seconds_count{ {{- $of -}} }[{{ .window }}]))
{{- end -}}
{{- end }}
