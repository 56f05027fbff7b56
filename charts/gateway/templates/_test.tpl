{{- /* Asks through the Service for auth's keys, until they come or half a minute is over. */ -}}
{{- define "gateway.test" -}}
ask() { # PATH
  timeout 5 bash -c '
    { printf "GET %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n" "$3" >&3 &&
      cat <&3; } 3<>"/dev/tcp/$1/$2"' ask {{ .Release.Name }} {{ .Values.service.port }} "$1"
}
for try in {1..15}; do
  keys=$(ask {{ .Values.jwt.jwksPath }})
  if [[ $keys == "HTTP/1.1 200 "* && $keys == *'"keys"'* ]]; then
    nothing=$(ask /no-such-path)
    if [[ $nothing == "HTTP/1.1 404 "* && $nothing == *application/problem+json* ]]; then
      echo "the gateway serves"
      exit 0
    fi
    echo "no problem for a path that is not there: ${nothing:-no answer}"
  else
    echo "no keys of {{ .Values.jwt.service }} at {{ .Values.jwt.jwksPath }}: ${keys:-no answer}"
  fi
  sleep 2
done
exit 1
{{- end }}
