{{- /* Labels of an object. `name` and `component` differ for the pods of hooks and tests, so that no
      selector of the service finds them. */ -}}
{{- define "service.labels" -}}
{{- $root := .root -}}
app.kubernetes.io/name: {{ .name | default $root.Values.name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ include "service.version" $root | trunc 63 | trimAll "._-" | quote }}
app.kubernetes.io/part-of: slipway
app.kubernetes.io/component: {{ .component | default "service" }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "service.selector" -}}
app.kubernetes.io/name: {{ .name | default .root.Values.name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "service.version" -}}
{{- .Values.image.tag | default .Chart.AppVersion -}}
{{- end }}

{{- define "service.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ include "service.version" . }}
{{- end -}}
{{- end }}

{{- /* The import package. */ -}}
{{- define "service.package" -}}
{{- .Values.package | default .Values.name | replace "-" "_" -}}
{{- end }}

{{- /* The prefix of the service's own environment variables. */ -}}
{{- define "service.ownPrefix" -}}
{{- include "service.prefix" (.Values.package | default .Values.name) -}}
{{- end }}

{{- /* A name as a prefix of environment variables. */ -}}
{{- define "service.prefix" -}}
{{- . | upper | replace "-" "_" -}}_
{{- end }}

{{- define "service.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary .Values.name "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "service.databaseSecret" -}}
{{- .Values.database.secretName | default (printf "%s-database" (.Values.database.of | default .Values.name)) -}}
{{- end }}

{{- /* "yes" when the database is the release's own to migrate and to seed. */ -}}
{{- define "service.migrates" -}}
{{- if and .Values.database.enabled (not .Values.database.of) -}}yes{{- end -}}
{{- end }}

{{- define "service.valkeySecret" -}}
{{- .Values.valkey.secretName | default (printf "%s-valkey" .Values.name) -}}
{{- end }}

{{- define "service.secret" -}}
{{- .Values.secretName | default .Values.name -}}
{{- end }}

{{- /* The fewest pods that serve. */ -}}
{{- define "service.replicas" -}}
{{- if and (eq .Values.autoscaling.mode "none") (hasKey .Values "replicas") -}}
{{- .Values.replicas | int -}}
{{- else -}}
{{- .Values.autoscaling.minReplicas | int -}}
{{- end -}}
{{- end }}

{{- /* What a terminating pod may need, in seconds. */ -}}
{{- define "service.graceNeeded" -}}
{{- $rollout := .Values.rollout -}}
{{- add (int $rollout.preStopSeconds) (int $rollout.drainSeconds) (int $rollout.shutdownSeconds) -}}
{{- end }}

{{- define "service.grace" -}}
{{- .Values.rollout.terminationGracePeriodSeconds | int | default (include "service.graceNeeded" . | int) -}}
{{- end }}

{{- /* "yes" when the cluster, or assumeApis without one, knows the API version. */ -}}
{{- define "service.hasApi" -}}
{{- if or (has .api .root.Values.assumeApis) (.root.Capabilities.APIVersions.Has .api) -}}yes{{- end -}}
{{- end }}

{{- /* A Kubernetes quantity as a number, to compare two. */ -}}
{{- define "service.quantity" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $factors := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- printf "%f" (mulf (float64 (trimSuffix $unit $text)) (get $factors $unit)) -}}
{{- end }}
