{{- /* A Job of the service's image around an install or upgrade: {root, step, events, settings}. Its
      pods have a name of their own, so that no Service and no disruption budget counts them. */ -}}
{{- define "service.hookJob" -}}
{{- $root := .root -}}
{{- $name := printf "%s-%s" $root.Values.name .step -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  labels: {{- include "service.labels" (dict "root" $root "name" $name) | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .events }}
    helm.sh/hook-weight: "0"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
    helm.sh/hook-output-log-policy: hook-failed
spec:
  backoffLimit: {{ .settings.backoffLimit }}
  activeDeadlineSeconds: {{ .settings.activeDeadlineSeconds }}
  # A failed one stays for its logs, until the next try or for a day.
  ttlSecondsAfterFinished: 86400
  template:
    metadata:
      labels:
        {{- include "service.labels" (dict "root" $root "name" $name) | nindent 8 }}
        {{- include "service.databaseLabel" $root | trim | nindent 8 }}
      {{- with $root.Values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- $command := list "python" "-m" "chassis" .step (include "service.package" $root) }}
      {{- include "service.podSpec" (dict "root" $root "command" $command "hook" true "serves" false) | trim | nindent 6 }}
{{- end }}
