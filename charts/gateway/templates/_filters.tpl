{{- /* In order: what is cheap and keeps others from work comes first. */ -}}
{{- define "gateway.filters" -}}
{{- $values := .Values -}}
- name: envoy.filters.http.cors
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors
{{- if $values.compression.enabled }}
{{- range list "brotli" "gzip" }}
- name: {{ . }}
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
    choose_first: true
    response_direction_config:
      # A strong ETag names exact bytes, and If-Match needs it strong: those answers stay as they are.
      disable_on_etag_header: true
      common_config:
        min_content_length: {{ $values.compression.minBytes | int64 }}
        content_type_matcher:
          {{- range list "application/json" "application/problem+json" "application/javascript" "image/svg+xml" "text/css" "text/html" "text/javascript" "text/plain" }}
          - prefix: {{ . }}
          {{- end }}
    compressor_library:
      name: {{ . }}
      typed_config:
        {{- if eq . "gzip" }}
        "@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip
        compression_level: COMPRESSION_LEVEL_3
        {{- else }}
        "@type": type.googleapis.com/envoy.extensions.compression.brotli.compressor.v3.Brotli
        quality: 4
        {{- end }}
{{- end }}
{{- end }}
- name: envoy.filters.http.header_to_metadata
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
    request_rules:
      - header: x-api-key
        on_header_present: {metadata_namespace: slipway, key: api_key, value: present}
      # The client's trace id, for log lines and problems.
      - header: traceparent
        on_header_present:
          metadata_namespace: slipway
          key: trace_id
          regex_value_rewrite: {pattern: {regex: "^00-(.{32})-.*"}, substitution: "\\1"}
{{- if $values.rateLimits.enabled }}
- name: addresses.ratelimit
  typed_config:
    {{- include "gateway.ratelimit" (dict "prefix" "addresses" "limit" $values.rateLimits.address "by" "address" "quiet" true "root" $) | nindent 4 }}
{{- end }}
{{- if $values.apiKeys.enabled }}
{{- include "gateway.apikeys" . | nindent 0 }}
{{- end }}
- name: envoy.filters.http.jwt_authn
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
    {{- include "gateway.jwt" . | nindent 4 }}
{{- if $values.rateLimits.enabled }}
- name: envoy.filters.http.local_ratelimit
  typed_config:
    {{- include "gateway.ratelimit" (dict "prefix" "clients" "limit" $values.rateLimits "by" "client" "root" $) | nindent 4 }}
{{- end }}
- name: envoy.filters.http.buffer
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
    max_request_bytes: {{ $values.limits.bodyBytes | int64 }}
- name: envoy.filters.http.router
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
    suppress_envoy_headers: true
{{- end }}

{{- /* X-API-Key is exchanged at auth for a short-lived token, which jwt_authn then verifies. */ -}}
{{- define "gateway.apikeys" -}}
{{- $keys := .Values.apiKeys -}}
{{- if .Values.rateLimits.enabled }}
- name: apikeys.ratelimit
  typed_config:
    {{- include "gateway.ratelimit" (dict "prefix" "apikeys" "limit" $keys.rateLimit "by" "apikey" "quiet" true "root" $) | nindent 4 }}
{{- end }}
- name: envoy.filters.http.ext_authz
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
    filter_enabled_metadata:
      filter: slipway
      path: [{key: api_key}]
      value: {string_match: {exact: present}}
    transport_api_version: V3
    failure_mode_allow: false
    status_on_error: {code: ServiceUnavailable}
    stat_prefix: apikeys
    allowed_headers:
      patterns: [{exact: x-api-key}, {exact: x-request-id}, {exact: traceparent}, {exact: tracestate}]
    http_service:
      server_uri:
        uri: http://{{ .Values.jwt.service }}
        cluster: {{ .Values.jwt.service }}
        timeout: {{ include "gateway.seconds" $keys.timeoutSeconds }}
      path_override: {{ $keys.exchangePath }}
      retry_policy: {retry_on: "connect-failure,refused-stream,reset", num_retries: 1}
      authorization_response:
        allowed_upstream_headers: {patterns: [{exact: authorization}]}
        allowed_client_headers: {patterns: [{exact: www-authenticate}, {exact: retry-after}]}
{{- end }}

{{- define "gateway.jwt" -}}
{{- $jwt := .Values.jwt -}}
bypass_cors_preflight: true
providers:
  slipway:
    issuer: {{ $jwt.issuer | quote }}
    audiences: {{ $jwt.audiences | toJson }}
    require_expiration: true
    clock_skew_seconds: {{ $jwt.leewaySeconds }}
    forward: true
    # The header alone: a token in a query would end in logs.
    from_headers: [{name: Authorization, value_prefix: "Bearer "}]
    # For the rate limits; the routes take these headers off again.
    claim_to_headers:
      - {header_name: x-slipway-subject, claim_name: sub}
      - {header_name: x-slipway-key, claim_name: key_id}
    {{- if $jwt.cachedTokens }}
    jwt_cache_config: {jwt_cache_size: {{ $jwt.cachedTokens | int64 }}}
    {{- end }}
    remote_jwks:
      http_uri:
        uri: http://{{ $jwt.service }}{{ $jwt.jwksPath }}
        cluster: {{ $jwt.service }}
        timeout: 2s
      cache_duration: {{ include "gateway.seconds" $jwt.refreshSeconds }}
      # Fetched ahead and kept when auth is away; the listener does not wait for it.
      async_fetch: {fast_listener: true, failed_refetch_duration: 1s}
      retry_policy: {num_retries: 1}
requirement_map:
  required: {provider_name: slipway}
  optional: {requires_any: {requirements: [{provider_name: slipway}, {allow_missing: {}}]}}
{{- end }}

{{- /*
Buckets by client. Each entry of rate_limits makes a descriptor or none; they exclude one another.
Descriptor entries without a value are wildcards: one bucket for each value, up to maxClients.
The default bucket is for requests without a descriptor and must never be the one that runs dry.
*/ -}}
{{- define "gateway.ratelimit" -}}
{{- $key := dict "request_headers" (dict "header_name" "x-slipway-key" "descriptor_key" "key") -}}
{{- $subject := dict "request_headers" (dict "header_name" "x-slipway-subject" "descriptor_key" "subject") -}}
{{- $address := dict "masked_remote_address" (dict "v6_prefix_mask_len" 64) -}}
"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
stat_prefix: {{ .prefix }}
status: {code: TooManyRequests}
filter_enabled: {default_value: {numerator: 100}, runtime_key: ratelimit_enabled}
filter_enforced: {default_value: {numerator: 100}, runtime_key: ratelimit_enforced}
token_bucket: {max_tokens: 4294967295, tokens_per_fill: 4294967295, fill_interval: 1s}
always_consume_default_token_bucket: false
max_dynamic_descriptors: {{ .root.Values.rateLimits.maxClients | int64 }}
{{- /* The headers tell of one limit: the client's own. */ -}}
{{- if not .quiet }}
enable_x_ratelimit_headers: DRAFT_VERSION_03
{{- end }}
enable_retry_after_header: true
{{- if eq .by "client" }}
rate_limits:
  - actions: [{{ $key | toJson }}]
  - actions:
      - header_value_match: {descriptor_key: no_key, descriptor_value: "1", expect_match: false, headers: [{name: x-slipway-key, present_match: true}]}
      - {{ $subject | toJson }}
  - actions:
      - header_value_match: {descriptor_key: no_subject, descriptor_value: "1", expect_match: false, headers: [{name: x-slipway-subject, present_match: true}]}
      - {{ $address | toJson }}
descriptors:
  - entries: [{key: key}]
    token_bucket: {{- include "gateway.bucket" .limit | nindent 6 }}
  - entries: [{key: no_key, value: "1"}, {key: subject}]
    token_bucket: {{- include "gateway.bucket" .limit | nindent 6 }}
  - entries: [{key: no_subject, value: "1"}, {key: masked_remote_address}]
    token_bucket: {{- include "gateway.bucket" .limit | nindent 6 }}
{{- else }}
rate_limits:
  - actions:
      {{- if eq .by "apikey" }}
      - header_value_match: {descriptor_key: with_key, descriptor_value: "1", headers: [{name: x-api-key, present_match: true}]}
      {{- end }}
      - {{ $address | toJson }}
descriptors:
  - entries: [{{ if eq .by "apikey" }}{key: with_key, value: "1"}, {{ end }}{key: masked_remote_address}]
    token_bucket: {{- include "gateway.bucket" .limit | nindent 6 }}
{{- end }}
{{- end }}
