{{- define "gateway.clusters" -}}
{{- $up := .Values.upstream -}}
{{- $limits := .Values.limits -}}
{{- range $name, $service := .Values.services }}
{{- /* A stream holds its connection: as many as clients may have. */ -}}
{{- $most := $up.maxConnections }}
{{- $requests := $up.maxRequests }}
{{- range $service.routes }}
{{- if or .websocket (and (hasKey . "timeoutSeconds") (eq (float64 .timeoutSeconds) 0.0)) }}
{{- $most = $limits.connections }}
{{- $requests = $limits.connections }}
{{- end }}
{{- end }}
- name: {{ $name }}
  {{- $host := $service.host | default (printf "%s%s" $name $up.hostSuffix) }}
  {{- include "gateway.endpoint" (dict "name" $name "host" $host "port" $service.port "root" $) | nindent 2 }}
  lb_policy: LEAST_REQUEST
  connect_timeout: {{ include "gateway.seconds" $up.connectTimeoutSeconds }}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {http_protocol_options: {}}
      # We let go of an idle connection before the service does.
      common_http_protocol_options: {idle_timeout: {{ include "gateway.seconds" $up.idleSeconds }}}
  circuit_breakers:
    thresholds:
      - max_connections: {{ $most | int64 }}
        max_pending_requests: {{ $up.maxPendingRequests | int64 }}
        max_requests: {{ $requests | int64 }}
        retry_budget: {budget_percent: {value: {{ $up.retries.budgetPercent }}}, min_retry_concurrency: {{ $up.retries.minConcurrency }}}
        track_remaining: true
  outlier_detection:
    # Local faults (refused, reset, timed out) and gateway statuses; a service's own 500 is no
    # reason to send its requests elsewhere. The last half of the hosts is never ejected.
    split_external_local_origin_errors: true
    consecutive_local_origin_failure: {{ $up.outliers.consecutiveFailures }}
    enforcing_consecutive_local_origin_failure: 100
    consecutive_gateway_failure: {{ mul 2 $up.outliers.consecutiveFailures }}
    enforcing_consecutive_gateway_failure: 100
    enforcing_consecutive_5xx: 0
    enforcing_success_rate: 0
    enforcing_local_origin_success_rate: 0
    interval: 5s
    base_ejection_time: {{ include "gateway.seconds" $up.outliers.ejectionSeconds }}
    max_ejection_percent: {{ $up.outliers.maxEjectionPercent }}
{{- end }}
{{- if .Values.status.enabled }}
- name: _admin
  type: STATIC
  connect_timeout: 1s
  load_assignment:
    cluster_name: _admin
    endpoints:
      - lb_endpoints:
          - endpoint: {address: {socket_address: {address: {{ .Values.admin.address }}, port_value: {{ .Values.admin.port }}}}}
{{- end }}
{{- with .Values.tracing.endpoint }}
{{- $url := urlParse . }}
{{- $tls := eq $url.scheme "https" }}
{{- $port := ternary 443 80 $tls }}
{{- $parts := splitList ":" $url.host }}
{{- if gt (len $parts) 1 }}{{ $port = last $parts | int }}{{ end }}
- name: _otlp
  {{- include "gateway.endpoint" (dict "name" "_otlp" "host" (first $parts) "port" $port "root" $) | nindent 2 }}
  connect_timeout: 1s
  {{- if $tls }}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: {{ first $parts | quote }}
      common_tls_context:
        validation_context:
          trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}
          match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: {{ first $parts | quote }}}}]
  {{- end }}
{{- else }}
# Log lines want the tracer's ids, and the tracer wants somewhere to send to: spans end here.
- {name: _otlp, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: _otlp}}
{{- end }}
{{- end }}

{{- /* An address is taken as it is; a name is asked for again and again, and all its pods are used. */ -}}
{{- define "gateway.endpoint" -}}
{{- if regexMatch "^[0-9.]+$" .host }}
type: STATIC
{{- else }}
cluster_type:
  name: envoy.clusters.dns
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster
    all_addresses_in_single_endpoint: false
    dns_refresh_rate: {{ include "gateway.seconds" .root.Values.upstream.dnsRefreshSeconds }}
    dns_failure_refresh_rate: {base_interval: 1s, max_interval: {{ include "gateway.seconds" .root.Values.upstream.dnsRefreshSeconds }}}
    dns_lookup_family: V4_PREFERRED
{{- end }}
load_assignment:
  cluster_name: {{ .name }}
  endpoints:
    - lb_endpoints:
        - endpoint: {address: {socket_address: {address: {{ .host }}, port_value: {{ .port }}}}}
{{- end }}
