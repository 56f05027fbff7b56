{{- /*
Data sources for Grafana: (dict "root" "jaegerUrl" "only"). The uids are those of the dashboards. A
dollar sign is doubled: Grafana puts variables of its environment into these files.
*/ -}}
{{- define "observability.datasource.jaeger" -}}
{{- $logs := .root.Values.grafana.logs.url -}}
- name: Jaeger
  uid: jaeger
  type: jaeger
  access: proxy
  url: {{ .jaegerUrl }}
  editable: false
  jsonData:
    nodeGraph: {enabled: true}
    traceQuery: {timeShiftEnabled: true, spanStartTimeShift: 1h, spanEndTimeShift: -1h}
    tracesToMetrics:
      datasourceUid: prometheus
      spanStartTimeShift: -10m
      spanEndTimeShift: 10m
      tags: [{key: service.name, value: job}]
      queries:
        - {name: Requests per second, query: 'sum(rate(http_requests_total{$$__tags}[5m]))'}
        - {name: Share of failures, query: 'sum(rate(http_requests_total{$$__tags,status=~"5.."}[5m])) / sum(rate(http_requests_total{$$__tags}[5m]))'}
        - {name: 99th percentile, query: 'histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{$$__tags}[5m])))'}
    {{- if $logs }}
    tracesToLogsV2:
      datasourceUid: loki
      spanStartTimeShift: -5m
      spanEndTimeShift: 5m
      customQuery: true
      query: '{service_name="$${__span.tags["service.name"]}"} |= "$${__trace.traceId}"'
    {{- end }}
{{- end }}

{{- define "observability.datasources" -}}
apiVersion: 1
prune: true
datasources:
  {{- if include "observability.runs" (list . "prometheus") }}
  - name: Prometheus
    uid: prometheus
    type: prometheus
    access: proxy
    url: http://prometheus:9090
    isDefault: true
    editable: false
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
      timeInterval: {{ .Values.prometheus.scrapeIntervalSeconds }}s
      {{- if include "observability.runs" (list . "jaeger") }}
      exemplarTraceIdDestinations:
        - {name: trace_id, datasourceUid: jaeger, urlDisplayLabel: The trace}
      {{- end }}
  {{- end }}
  {{- if include "observability.runs" (list . "jaeger") }}
  {{- include "observability.datasource.jaeger" (dict "root" . "jaegerUrl" "http://jaeger:16686") | nindent 2 }}
  {{- end }}
  {{- if include "observability.runs" (list . "alertmanager") }}
  - name: Alertmanager
    uid: alertmanager
    type: alertmanager
    access: proxy
    url: http://alertmanager:9093
    editable: false
    jsonData: {implementation: prometheus}
  {{- end }}
  {{- with .Values.grafana.logs.url }}
  - name: Loki
    uid: loki
    type: loki
    access: proxy
    url: {{ . }}
    editable: false
    jsonData:
      derivedFields:
        - {name: trace_id, matcherRegex: '"trace_id": ?"([0-9a-f]{32})"', datasourceUid: jaeger, url: '$${__value.raw}', urlDisplayLabel: The trace}
  {{- end }}
{{- end }}

{{- define "observability.grafana.provider" -}}
apiVersion: 1
providers:
  - name: slipway
    folder: Slipway
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options: {path: /var/lib/grafana-dashboards}
{{- end }}
