{{- define "gateway.labels" -}}
app.kubernetes.io/name: gateway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: slipway
app.kubernetes.io/component: gateway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "v%s" .Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{- /* What the schema cannot say; each sentence names the fix. */ -}}
{{- define "gateway.check" -}}
{{- $values := .Values -}}
{{- if not (hasKey $values.services $values.jwt.service) -}}
{{- fail (printf "jwt.service: there is no %q in services; pass the derived values, for example -f k8s/gateway-services.yaml" $values.jwt.service) -}}
{{- end -}}
{{- range $name, $service := $values.services -}}
{{- range $i, $route := $service.routes -}}
{{- if and $route.websocket $route.methods (not (has "GET" $route.methods)) -}}
{{- fail (printf "services.%s.routes[%d].methods: a WebSocket begins with GET; add it" $name $i) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* A duration in seconds as Envoy wants it: whole milliseconds at most. */ -}}
{{- define "gateway.seconds" -}}
{{- printf "%.3f" (float64 .) | trimSuffix "0" | trimSuffix "0" | trimSuffix "0" | trimSuffix "." }}s
{{- end }}

{{- /* A token bucket that refills at .requestsPerSecond, whole tokens at a time. */ -}}
{{- define "gateway.bucket" -}}
{{- $rate := float64 .requestsPerSecond -}}
max_tokens: {{ .burst | int64 }}
{{- if eq $rate (floor $rate) }}
tokens_per_fill: {{ $rate | int64 }}
fill_interval: 1s
{{- else }}
tokens_per_fill: 1
fill_interval: {{ include "gateway.seconds" (divf 1.0 $rate) }}
{{- end }}
{{- end }}
