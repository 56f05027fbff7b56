{{- /* Labels of one store: (list . "postgresql"). */ -}}
{{- define "datastores.labels" -}}
{{- $root := index . 0 -}}
{{ include "datastores.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: slipway
app.kubernetes.io/component: datastore
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{- define "datastores.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "datastores.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end }}

{{- define "datastores.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "datastores.container" -}}
image: {{ include "datastores.image" .image | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* The names of the services with a database, as JSON. */ -}}
{{- define "datastores.databases" -}}
{{- $names := list -}}
{{- if .Values.postgresql.enabled -}}
{{- range $name, $service := .Values.services -}}
{{- if $service.database -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end }}

{{- /* "yes" when PostgreSQL's metrics are exported. */ -}}
{{- define "datastores.exports" -}}
{{- if and .Values.postgresql.enabled .Values.postgresql.exporter.enabled -}}yes{{- end -}}
{{- end }}

{{- /* The role of the exporter; no service can have this name. */ -}}
{{- define "datastores.metricsRole" -}}
metrics_reader
{{- end }}

{{- /* The prefix of a service's variables. */ -}}
{{- define "datastores.prefix" -}}
{{ . | upper | replace "-" "_" }}_
{{- end }}

{{- /* What a Secret of the cluster holds today, else the given new value: (list . secret key new). */ -}}
{{- define "datastores.kept" -}}
{{- $old := lookup "v1" "Secret" (index . 0).Release.Namespace (index . 1) | default dict -}}
{{- $data := get $old "data" | default dict -}}
{{- if get $data (index . 2) -}}
{{- get $data (index . 2) | b64dec -}}
{{- else -}}
{{- index . 3 -}}
{{- end -}}
{{- end }}

{{- /* One Secret: (dict "root" . "name" "data"). */ -}}
{{- define "datastores.secret" -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ .name }}
  labels: {{- include "datastores.labels" (list .root .store) | nindent 4 }}
  {{- if .root.Values.postgresql.storage.keep }}
  annotations: {helm.sh/resource-policy: keep}
  {{- end }}
type: Opaque
data:
  {{- range $key, $value := .data }}
  {{ $key }}: {{ $value | b64enc | quote }}
  {{- end }}
{{- end }}

{{- /* What the schema cannot say; each sentence names the fix. */ -}}
{{- define "datastores.refusals" -}}
{{- $values := .Values -}}
{{- if ne $values.environment "development" -}}
{{- fail (printf "environment: these stores have one copy and no backup, refused in %s; point the services at managed ones by the Secrets <service>-database, see k8s/README.md" $values.environment) -}}
{{- end -}}
{{- if not $values.services -}}
{{- fail "services: there is none; pass the derived values, for example -f k8s/datastores-services.yaml" -}}
{{- end -}}
{{- range $name, $service := $values.services -}}
{{- if has $name (list "postgresql" "valkey") -}}
{{- fail (printf "services.%s: the store itself has this name; rename the service" $name) -}}
{{- end -}}
{{- with $service.client -}}
{{- if ne (get ($service.secrets | default dict) .secret) "password" -}}
{{- fail (printf "services.%s.client.secret: %s is no password in its secrets; add it" $name .secret) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
