{{- /* Multi-window, multi-burn-rate alerts. A burn of 1 spends the whole budget in 30 days; an alert
      needs the burn in a long window (it matters) and in a short one (it goes on). */ -}}
{{- define "service.alerts" -}}
{{- list
  (dict "burn" 14.4 "lasts" "2 days" "long" "1h" "short" "5m" "severity" "page" "for" "2m")
  (dict "burn" 6 "lasts" "5 days" "long" "6h" "short" "30m" "severity" "page" "for" "15m")
  (dict "burn" 3 "lasts" "10 days" "long" "1d" "short" "2h" "severity" "ticket" "for" "1h")
  (dict "burn" 1 "lasts" "30 days" "long" "3d" "short" "6h" "severity" "ticket" "for" "3h")
  | toJson -}}
{{- end }}

{{- /* An alert needs this many broken promises in its long window: at little traffic a handful of
      failures is a large share and no incident. Few requests that all fail still reach it. */ -}}
{{- define "service.slo.handful" -}}10{{- end }}

{{- /* Seconds between two samples of a recorded rate; a sum over its samples, times this, is a count. */ -}}
{{- define "service.slo.interval" -}}30{{- end }}

{{- /* The bounds of http_request_duration_seconds: only there is "faster than" a fact. */ -}}
{{- define "service.buckets" -}}
{"1": "0.001", "5": "0.005", "10": "0.01", "25": "0.025", "50": "0.05", "100": "0.1", "250": "0.25", "500": "0.5", "1000": "1.0", "2500": "2.5", "5000": "5.0", "10000": "10.0"}
{{- end }}

{{- /* The promises of slo: {slo, objective (percent), alert, says, requests, bad}. The last two are the
      only queries of the service's own metrics; every other rule stands on what they record. */ -}}
{{- define "service.promises" -}}
{{- $slo := .Values.slo -}}
{{- $of := printf "namespace=%q,job=%q" .Release.Namespace .Values.name -}}
{{- $all := printf "sum by (namespace) (rate(http_requests_total{%s}[5m]))" $of -}}
{{- $promises := list (dict
  "slo" "availability" "objective" $slo.availability "alert" "ErrorBudgetBurn" "says" "failed"
  "requests" $all
  "bad" (printf "sum by (namespace) (rate(http_requests_total{%s,status=~\"5..\"}[5m])) or 0 * %s" $of $all)) -}}
{{- with $slo.latency -}}
{{- $le := get (include "service.buckets" $ | fromJson) (toString .milliseconds) -}}
{{- $all := printf "sum by (namespace) (rate(http_request_duration_seconds_count{%s}[5m]))" $of -}}
{{- $promises = append $promises (dict
  "slo" "latency" "objective" .percent "alert" "LatencyBudgetBurn" "says" (printf "took longer than %v ms" .milliseconds)
  "requests" $all
  "bad" (printf "%s - sum by (namespace) (rate(http_request_duration_seconds_bucket{%s,le=%q}[5m]))" $all $of $le)) -}}
{{- end -}}
{{- $promises | toJson -}}
{{- end }}

{{- /* A page of this tree as a link, where monitoring.prometheusRule.runbookBaseUrl says where the tree
      can be read: {root, page}. */ -}}
{{- define "service.runbook" -}}
{{- $base := .root.Values.monitoring.prometheusRule.runbookBaseUrl -}}
{{- if or (contains "://" .page) (not $base) -}}{{ .page }}{{- else -}}{{ trimSuffix "/" $base }}/{{ .page }}{{- end -}}
{{- end }}
