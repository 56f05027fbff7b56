{{- define "service.egressDns" -}}
{{- $dns := .Values.networkPolicy.dns -}}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $dns.namespace }}}}
    {{- range $dns.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{- define "service.egressDatabase" -}}
{{- include "service.egressStore" (dict "at" .Values.networkPolicy.database "pods" "postgresql") -}}
{{- end }}

{{- define "service.egressValkey" -}}
{{- include "service.egressStore" (dict "at" .Values.networkPolicy.valkey "pods" "valkey") -}}
{{- end }}

{{- define "service.egressStore" -}}
- to:
    {{- if .at.cidrs }}
    {{- range .at.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
    {{- else }}
    - podSelector: {matchLabels: {app.kubernetes.io/name: {{ .pods }}}}
    {{- end }}
  ports: [{port: {{ .at.port }}, protocol: TCP}]
{{- end }}

{{- /* The network of a hook's pods: names and the database. */ -}}
{{- define "service.databaseOnly" -}}
podSelector:
  matchLabels: {{- include "service.selector" (dict "root" .root "name" (printf "%s-%s" .root.Values.name .step)) | nindent 4 }}
policyTypes: [Ingress, Egress]
egress:
  {{- include "service.egressDns" .root | nindent 2 }}
  {{- include "service.egressDatabase" .root | nindent 2 }}
  {{- with .root.Values.networkPolicy.extraEgress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
