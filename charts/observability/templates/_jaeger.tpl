{{- /*
Jaeger's config. Span metrics are counted from all spans that arrive; which traces are stored is
decided afterwards, when a trace is over. So there is one pod: all spans of a trace meet in it.
*/ -}}
{{- define "observability.jaeger" -}}
{{- $own := .Values.jaeger -}}
{{- $tail := $own.tailSampling -}}
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces/received:
      receivers: [otlp]
      processors: [memory_limiter]
      exporters: [forward{{ if $own.spanMetrics.enabled }}, span_metrics{{ end }}]
    traces/stored:
      receivers: [forward]
      processors: [{{ if $tail.enabled }}tail_sampling, {{ end }}batch]
      exporters: [jaeger_storage_exporter]
    {{- if $own.spanMetrics.enabled }}
    metrics/spans:
      receivers: [span_metrics]
      exporters: [prometheus]
    {{- end }}
  telemetry:
    resource: {attributes: [{name: service.name, value: jaeger}]}
    logs: {level: info}
    metrics:
      level: normal
      readers: [{pull: {exporter: {prometheus: {host: 0.0.0.0, port: 8888}}}}]
extensions:
  healthcheckv2:
    use_v2: true
    http: {endpoint: "0.0.0.0:13133"}
  jaeger_query:
    storage:
      traces: traces
      {{- if $own.spanMetrics.enabled }}
      metrics: spans
      {{- end }}
    http: {endpoint: "0.0.0.0:16686"}
    grpc: {endpoint: "127.0.0.1:16685"}
  jaeger_storage:
    backends:
      traces:
        {{- if eq $own.backend "memory" }}
        memory: {max_traces: {{ $own.maxTraces | int64 }}}
        {{- else }}
        badger:
          ephemeral: false
          directories: {keys: /data/keys, values: /data/values}
          ttl: {spans: {{ $own.retentionHours }}h}
        {{- end }}
    {{- if $own.spanMetrics.enabled }}
    metric_backends:
      spans:
        prometheus:
          endpoint: {{ ternary .Values.kubePrometheusStack.prometheusUrl "http://prometheus:9090" .Values.kubePrometheusStack.enabled }}
          latency_unit: ms
          normalize_calls: true
          normalize_duration: true
    {{- end }}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "0.0.0.0:4317"}
      http: {endpoint: "0.0.0.0:4318"}
processors:
  memory_limiter: {check_interval: 1s, limit_percentage: 80, spike_limit_percentage: 20}
  batch: {timeout: 1s}
  {{- if $tail.enabled }}
  tail_sampling:
    decision_wait: {{ $tail.decisionSeconds }}s
    num_traces: {{ $tail.maxTraces | int64 }}
    # What comes late, such as an event from the outbox, goes the way of its trace.
    decision_cache: {sampled_cache_size: {{ mul 4 $tail.maxTraces }}, non_sampled_cache_size: {{ mul 4 $tail.maxTraces }}}
    # Any of them keeps a trace.
    policies:
      - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
      - {name: slow, type: latency, latency: {threshold_ms: {{ $tail.slowMilliseconds }}}}
      - {name: rest, type: probabilistic, probabilistic: {sampling_percentage: {{ $tail.percent }}}}
  {{- end }}
connectors:
  forward: {}
  {{- if $own.spanMetrics.enabled }}
  span_metrics:
    metrics_flush_interval: 15s
    metrics_expiration: 30m
    # A pod more is no series more, and operations without end are one series.
    resource_metrics_key_attributes: [service.name]
    aggregation_cardinality_limit: 2000
    histogram:
      unit: ms
      explicit: {buckets: [5ms, 10ms, 25ms, 50ms, 100ms, 250ms, 500ms, 1s, 2500ms, 5s, 10s]}
    exemplars: {enabled: true, max_per_data_point: 5}
  {{- end }}
exporters:
  jaeger_storage_exporter: {trace_storage: traces}
  {{- if $own.spanMetrics.enabled }}
  prometheus: {endpoint: "0.0.0.0:8889", enable_open_metrics: true, without_scope_info: true, metric_expiration: 30m}
  {{- end }}
{{- end }}
