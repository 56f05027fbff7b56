{{- /* The whole of envoy.yaml: the cluster's ConfigMap holds it, the local runner writes it. */ -}}
{{- define "gateway.envoy" -}}
{{- include "gateway.check" . -}}
node: {id: gateway, cluster: slipway}
admin:
  address: {socket_address: {address: {{ .Values.admin.address }}, port_value: {{ .Values.admin.port }}}}
  ignore_global_conn_limit: true
{{- if not .Values.tracing.endpoint }}
# The cluster without an address, where spans end that nobody wants: its failures are none.
stats_config: {stats_matcher: {exclusion_list: {patterns: [{prefix: cluster._otlp.}]}}}
{{- end }}
# Envoy's own lines, in the shape of all others: `event` says what happened.
application_log_config:
  log_format:
    json_format: {timestamp: "%Y-%m-%dT%T.%e%z", level: "%l", event: "%j", service: {{ .Values.tracing.serviceName | quote }}, logger: "envoy.%n"}
overload_manager:
  resource_monitors:
    - name: envoy.resource_monitors.global_downstream_max_connections
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
        max_active_downstream_connections: {{ .Values.limits.connections | int64 }}
static_resources:
  listeners:
    {{- include "gateway.listener.public" . | nindent 4 }}
    {{- if .Values.status.enabled }}
    {{- include "gateway.listener.status" . | nindent 4 }}
    {{- end }}
  clusters:
    {{- include "gateway.clusters" . | nindent 4 }}
{{- end }}
