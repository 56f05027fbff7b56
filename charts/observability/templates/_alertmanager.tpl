{{- /*
alertmanager.yml. A page is told at once and again each hour, a ticket once a day; while a service is
paged about, its tickets wait. What has no receiver is only to be seen.
*/ -}}
{{- define "observability.alertmanager" -}}
{{- $own := .Values.alertmanager -}}
route:
  receiver: "null"
  group_by: [alertname, namespace, service]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 1d
  routes:
    {{- range $severity := list "page" "ticket" }}
    - receiver: {{ get $own.routes $severity | default "null" | quote }}
      matchers: [{{ printf "severity=%q" $severity | squote }}]
      group_wait: {{ ternary "10s" "1m" (eq $severity "page") }}
      repeat_interval: {{ get $own.repeatMinutes $severity }}m
    {{- end }}
inhibit_rules:
  - source_matchers: ['severity="page"']
    target_matchers: ['severity="ticket"']
    equal: [namespace, service]
receivers:
  - name: "null"
  {{- range $name, $receiver := $own.receivers }}
  - name: {{ $name | quote }}
    {{- with $receiver.webhook }}
    webhook_configs: [{url_file: /etc/alertmanager/secrets/{{ $name }}-webhook, send_resolved: true}]
    {{- end }}
    {{- with $receiver.slack }}
    slack_configs: [{api_url_file: /etc/alertmanager/secrets/{{ $name }}-slack, channel: {{ .channel | quote }}, send_resolved: true}]
    {{- end }}
    {{- with $receiver.pagerduty }}
    pagerduty_configs: [{routing_key_file: /etc/alertmanager/secrets/{{ $name }}-pagerduty, send_resolved: true}]
    {{- end }}
    {{- with $receiver.email }}
    email_configs:
      - to: {{ .to | quote }}
        from: {{ .from | quote }}
        smarthost: {{ .smarthost | quote }}
        {{- with .username }}
        auth_username: {{ . | quote }}
        auth_password_file: /etc/alertmanager/secrets/{{ $name }}-email
        {{- end }}
        send_resolved: true
    {{- end }}
  {{- end }}
{{- end }}

{{- /* The Secrets of the receivers as sources of a projected volume, a JSON list. */ -}}
{{- define "observability.alertmanager.secrets" -}}
{{- $sources := list -}}
{{- range $name, $receiver := .Values.alertmanager.receivers -}}
{{- range $kind, $way := $receiver -}}
{{- with $way.secret -}}
{{- $item := dict "key" .key "path" (printf "%s-%s" $name $kind) -}}
{{- $sources = append $sources (dict "secret" (dict "name" .name "items" (list $item))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $sources | toJson -}}
{{- end }}
