{{- /*
Roles and databases, as often as one likes: what is there stays, a password is set to what its Secret
holds. Names are checked by the schema; passwords come from the environment, never from the text.
*/ -}}
{{- define "datastores.sql" }}
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
{{- range $name := include "datastores.databases" . | fromJsonArray }}
\set name {{ $name }}
\getenv password {{ include "datastores.prefix" $name }}PASSWORD
SELECT format('CREATE ROLE %I', :'name')
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
ALTER DATABASE :"name" OWNER TO :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
\echo {{ $name }}: its role and its database are there
{{- end }}
{{- if include "datastores.exports" . }}
{{- $role := include "datastores.metricsRole" . }}
\getenv password PASSWORD_OF_METRICS_READER
SELECT 'CREATE ROLE {{ $role }}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{ $role }}') \gexec
ALTER ROLE {{ $role }} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 5 PASSWORD :'password';
GRANT pg_monitor TO {{ $role }};
GRANT CONNECT ON DATABASE postgres TO {{ $role }};
\echo {{ $role }}: its role is there
{{- end }}
{{- end }}

{{- define "datastores.setup" -}}
set -eu
until pg_isready --quiet; do
  echo "PostgreSQL is not ready yet"
  sleep 2
done
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'SQL'
{{- include "datastores.sql" . }}
SQL
{{- end }}

{{- /* helm test: each service's own URL opens its own database. */ -}}
{{- define "datastores.test" -}}
set -eu
{{- range $name := include "datastores.databases" . | fromJsonArray }}
{{- $url := printf "%sDATABASE_URL" (include "datastores.prefix" $name) }}
found=$(psql --no-psqlrc --tuples-only --no-align --command 'SELECT current_database(), current_user' "${{ $url }}")
[ "$found" = "{{ $name }}|{{ $name }}" ] || { echo "{{ $name }}: expected its own database, found $found"; exit 1; }
{{- end }}
echo "every service has its database"
{{- end }}
