{{- define "gateway.listener.public" -}}
- name: public
  address: {socket_address: {address: {{ .Values.listen.address }}, port_value: {{ .Values.listen.port }}}}
  per_connection_buffer_limit_bytes: 65536
  filter_chains:
    - filters:
        - name: envoy.filters.network.http_connection_manager
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            {{- include "gateway.connection" . | nindent 12 }}
{{- end }}

{{- define "gateway.connection" -}}
{{- $times := .Values.timeouts -}}
stat_prefix: public
codec_type: AUTO # HTTP/1.1, and h2c by prior knowledge
server_name: slipway
# Who the client is: the peer, or the address that the trusted proxies wrote.
use_remote_address: true
xff_num_trusted_hops: {{ .Values.trustedHops }}
# No address makes a request internal: an empty list would mean all private networks.
internal_address_config: {cidr_ranges: [{address_prefix: 255.255.255.255, prefix_len: 32}]}
generate_request_id: true
preserve_external_request_id: false
always_set_request_id_in_response: true
# One spelling of each path before any route is looked at.
normalize_path: true
merge_slashes: true
path_with_escaped_slashes_action: REJECT_REQUEST
max_request_headers_kb: {{ .Values.limits.headerKilobytes }}
common_http_protocol_options:
  headers_with_underscores_action: REJECT_REQUEST
  max_headers_count: {{ .Values.limits.headerCount }}
  idle_timeout: {{ include "gateway.seconds" $times.idleSeconds }}
  max_connection_duration: {{ include "gateway.seconds" $times.maxConnectionSeconds }}
http1_safe_max_connection_duration: true
http2_protocol_options:
  allow_connect: true # WebSockets over HTTP/2 (RFC 8441), where a route allows upgrades
  max_concurrent_streams: {{ .Values.limits.streamsPerConnection }}
  initial_stream_window_size: 65536
  initial_connection_window_size: 1048576
request_headers_timeout: {{ include "gateway.seconds" $times.headersSeconds }}
request_timeout: {{ include "gateway.seconds" $times.requestSeconds }}
stream_idle_timeout: {{ include "gateway.seconds" $times.streamIdleSeconds }}
delayed_close_timeout: 1s
drain_timeout: 5s
upgrade_configs:
  - {upgrade_type: websocket, enabled: false}
early_header_mutation_extensions:
  {{- include "gateway.strip" . | nindent 2 }}
{{- include "gateway.tracing" . | nindent 0 }}
{{- if .Values.accessLog.enabled }}
access_log:
  {{- include "gateway.accesslog" . | nindent 2 }}
{{- end }}
local_reply_config:
  {{- include "gateway.problems" . | nindent 2 }}
http_filters:
  {{- include "gateway.filters" . | nindent 2 }}
route_config:
  {{- include "gateway.routes" . | nindent 2 }}
{{- end }}

{{- /* Headers that only we may set. Dropped before anything reads the request. */ -}}
{{- define "gateway.strip" -}}
{{- $prefixes := list "x-envoy-" "x-auth-" "x-slipway-" "x-user-" "x-jwt-" "x-ms-client-principal" "x-goog-" "x-amzn-oidc-" "cf-access-" -}}
{{- $names := list "forwarded" "proxy" "remote-user" "x-remote-user" "x-user" "x-subject" "x-sub" "x-principal" "x-client-id" "x-tenant-id" "x-role" "x-roles" "x-scope" "x-scopes" "x-groups" "x-authenticated-user" "x-authenticated-userid" "x-consumer-id" "x-forwarded-user" "x-forwarded-email" "x-forwarded-groups" "x-forwarded-preferred-username" "x-forwarded-access-token" "x-forwarded-host" "x-forwarded-port" "x-forwarded-prefix" "x-forwarded-server" "x-forwarded-client-cert" "x-real-ip" "x-client-ip" "x-cluster-client-ip" "true-client-ip" "cf-connecting-ip" "x-original-url" "x-original-uri" "x-rewrite-url" "x-http-method" "x-http-method-override" "x-method-override" "x-request-timeout-ms" -}}
{{- if eq (int .Values.trustedHops) 0 -}}
{{- $prefixes = append $prefixes "x-forwarded-" -}}
{{- end -}}
- name: envoy.http.early_header_mutation.header_mutation
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
    mutations:
      {{- range $prefixes }}
      - remove_on_match: {key_matcher: {prefix: {{ . }}}}
      {{- end }}
      {{- range concat $names .Values.stripHeaders | uniq }}
      - remove: {{ lower . | quote }}
      {{- end }}
{{- end }}

{{- /*
Every request has a trace: continued or new, for log lines and for the services. Its spans go to an
endpoint, if there is one. The tracer must have an exporter; that of gRPC is silent when it fails.
*/ -}}
{{- define "gateway.tracing" -}}
tracing:
  client_sampling: {value: 100}
  overall_sampling: {value: 100}
  random_sampling: {value: {{ .Values.tracing.samplePercent }}}
  operation: "%REQ(:METHOD)% %ROUTE_NAME%"
  custom_tags:
    - {tag: http.url, value: "%REQ(:SCHEME)%://%REQ(:AUTHORITY)%%PATH(NQ:PATH)%"} # without the query
  provider:
    name: envoy.tracers.opentelemetry
    typed_config:
      "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
      service_name: {{ .Values.tracing.serviceName | quote }}
      {{- with .Values.tracing.endpoint }}
      http_service:
        http_uri:
          uri: {{ printf "%s/v1/traces" (trimSuffix "/" .) | quote }}
          cluster: _otlp
          timeout: 5s
      {{- else }}
      grpc_service: {envoy_grpc: {cluster_name: _otlp}}
      {{- end }}
{{- end }}

{{- /* For problems: the client's trace id. Envoy's own span is not known yet where they are written. */ -}}
{{- define "gateway.traceid" -}}
%DYNAMIC_METADATA(slipway:trace_id):32%
{{- end }}

{{- /* No query and no credentials: both would end where logs are read. */ -}}
{{- define "gateway.accesslog" -}}
- name: envoy.access_loggers.stdout
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
    log_format:
      json_format:
        timestamp: "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%"
        level: info
        event: request
        service: {{ .Values.tracing.serviceName | quote }}
        method: "%REQ(:METHOD)%"
        path: "%PATH(NQ:PATH)%"
        protocol: "%PROTOCOL%"
        route: "%ROUTE_NAME%"
        status: "%RESPONSE_CODE%"
        reason: "%RESPONSE_CODE_DETAILS%"
        flags: "%RESPONSE_FLAGS%"
        duration_ms: "%DURATION%"
        upstream_ms: "%RESPONSE_DURATION%"
        upstream: "%UPSTREAM_CLUSTER%"
        upstream_host: "%UPSTREAM_HOST%"
        attempts: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
        bytes_received: "%BYTES_RECEIVED%"
        bytes_sent: "%BYTES_SENT%"
        request_id: "%REQ(X-REQUEST-ID)%"
        trace_id: "%TRACE_ID%"
        user_agent: "%REQ(USER-AGENT):256%"
        client: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
{{- end }}

{{- /* A second door for probes and Prometheus: two paths of the admin interface, read only. */ -}}
{{- define "gateway.listener.status" -}}
- name: status
  address: {socket_address: {address: {{ .Values.status.address }}, port_value: {{ .Values.status.port }}}}
  ignore_global_conn_limit: true
  filter_chains:
    - filters:
        - name: envoy.filters.network.http_connection_manager
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            stat_prefix: status
            normalize_path: true
            merge_slashes: true
            path_with_escaped_slashes_action: REJECT_REQUEST
            request_headers_timeout: 5s
            request_timeout: 5s
            internal_address_config: {cidr_ranges: [{address_prefix: 255.255.255.255, prefix_len: 32}]}
            route_config:
              name: status
              virtual_hosts:
                - name: status
                  domains: ["*"]
                  routes:
                    {{- range list "/ready" "/stats/prometheus" }}
                    - match: {path: {{ . }}, headers: [{name: ":method", string_match: {exact: GET}}]}
                      route: {cluster: _admin, timeout: 5s}
                    {{- end }}
            http_filters:
              - name: envoy.filters.http.router
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{{- end }}
