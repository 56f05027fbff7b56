{{- define "service.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.security.user | int64 }}
runAsGroup: {{ .Values.security.group | int64 }}
fsGroup: {{ .Values.security.group | int64 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "service.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: {{ .Values.security.readOnlyRootFilesystem }}
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Where pods go; the same for serving, hooks and tests. */ -}}
{{- define "service.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range $name, $_ := . }}
  - name: {{ $name }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A pod that runs the service's image: {root, command, hook, serves}. */ -}}
{{- define "service.podSpec" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- if .hook }}
{{- /* Before the first install the release's own account does not exist. */}}
serviceAccountName: {{ $values.migrations.serviceAccountName }}
automountServiceAccountToken: false
{{- else }}
serviceAccountName: {{ include "service.serviceAccountName" $root }}
automountServiceAccountToken: {{ $values.serviceAccount.automountToken }}
{{- end }}
{{- /* Otherwise Kubernetes sets ORDERS_PORT=tcp://... for a Service named orders. */}}
enableServiceLinks: false
{{- if .serves }}
terminationGracePeriodSeconds: {{ include "service.grace" $root }}
{{- else }}
restartPolicy: Never
{{- end }}
securityContext: {{- include "service.podSecurity" $root | nindent 2 }}
{{- include "service.placement" $root }}
{{- if and .serves $values.topologySpread }}
topologySpreadConstraints:
  {{- range $key, $spread := $values.topologySpread }}
  - topologyKey: {{ $key }}
    maxSkew: {{ $spread.maxSkew }}
    whenUnsatisfiable: {{ $spread.whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{- include "service.selector" (dict "root" $root) | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
containers:
  - name: {{ $values.name }}
    image: {{ include "service.image" $root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    command: {{- toYaml .command | nindent 6 }}
    securityContext: {{- include "service.containerSecurity" $root | nindent 6 }}
    {{- include "service.containerEnvironment" (dict "root" $root "inline" .hook) | trim | nindent 4 }}
    {{- if .serves }}
    ports:
      - {name: http, containerPort: {{ $values.port }}, protocol: TCP}
    {{- range $kind := list "startup" "liveness" "readiness" }}
    {{- $probe := index $values.probes $kind }}
    {{ $kind }}Probe:
      httpGet: {path: {{ get (dict "startup" "/startupz" "liveness" "/livez" "readiness" "/readyz") $kind }}, port: http}
      periodSeconds: {{ $probe.periodSeconds }}
      timeoutSeconds: {{ $probe.timeoutSeconds }}
      failureThreshold: {{ $probe.failureThreshold }}
    {{- end }}
    {{- if $values.rollout.preStopSeconds }}
    lifecycle:
      # Still serving while load balancers and kube-proxy forget this pod.
      preStop: {sleep: {seconds: {{ $values.rollout.preStopSeconds }}}}
    {{- end }}
    {{- end }}
    resources: {{- toYaml $values.resources | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- range $name, $volume := $values.volumes }}
      - name: {{ $name }}
        {{- toYaml (omit $volume "source") | nindent 8 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: {{ $values.tmp.sizeLimit }}}
  {{- range $name, $volume := $values.volumes }}
  - name: {{ $name }}
    {{- toYaml $volume.source | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* What the policies of the development stores look for. */ -}}
{{- define "service.databaseLabel" -}}
{{- if .Values.database.enabled }}
slipway.dev/database: "true"
{{- end }}
{{- end }}

{{- define "service.valkeyLabel" -}}
{{- if .Values.valkey.enabled }}
slipway.dev/valkey: "true"
{{- end }}
{{- end }}

{{- /* Labels of the serving pods: who they call is a label that the peers' network policies look for. */ -}}
{{- define "service.podLabels" -}}
{{- include "service.labels" (dict "root" .) }}
{{- range $peer, $_ := .Values.dependsOn }}
slipway.dev/calls-{{ $peer }}: "true"
{{- end }}
{{- if and (ne .Values.name "auth") (not (hasKey .Values.dependsOn "auth")) }}
slipway.dev/calls-auth: "true"
{{- end }}
{{- include "service.databaseLabel" . }}
{{- include "service.valkeyLabel" . }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
