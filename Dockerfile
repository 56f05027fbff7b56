# One file for every service: `make images`, or for one of them
#   docker build --build-arg SERVICE=orders -t slipway/orders:dev .
# Targets: runtime (the last); dev, which reloads when skaffold syncs a Python file; smoke.
#
# Layers, from the one that changes least: the locked dependencies in /opt/venv, then the service
# and the chassis in /app. Bytecode is made here and never checked against its source: pods have a
# read-only root, and two builds of one commit differ in nothing but time stamps.
#
# A package mirror is the builder's business: the secret `index` is its address, the secret `ca`
# the certificates it is trusted by. Secrets are in no layer and no history.
ARG BASE=python:3.13-slim

FROM ${BASE} AS tools
ENV UV_LINK_MODE=copy UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements.lock ./
# The tools come from the lock like everything else, found by their hashes.
RUN --mount=type=secret,id=index --mount=type=secret,id=ca \
    if [ -s /run/secrets/index ]; then export PIP_INDEX_URL="$(cat /run/secrets/index)" UV_DEFAULT_INDEX="$(cat /run/secrets/index)"; fi \
    && if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi \
    && python -m venv /tools \
    && awk '/^[^ ]/ { on = /^(uv|hatchling)==/ } on' requirements.lock > tools.txt \
    && /tools/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r tools.txt \
    && /tools/bin/uv pip install --quiet --no-cache --python /tools/bin/python --require-hashes -c requirements.lock -r tools.txt

FROM tools AS dependencies
ARG SERVICE
COPY services/chassis/pyproject.toml services/chassis/
COPY services/${SERVICE}/pyproject.toml services/${SERVICE}/
# The lock is the constraint: of the whole workspace's packages, only what these two projects need,
# each at the locked version and with a locked hash. The chassis itself comes from this tree.
RUN --mount=type=secret,id=index --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/uv \
    if [ -s /run/secrets/index ]; then export UV_DEFAULT_INDEX="$(cat /run/secrets/index)"; fi \
    && if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi \
    && echo slipway-chassis > ours.txt \
    && /tools/bin/uv venv --quiet --no-project --python "$(command -v python)" /opt/venv \
    && /tools/bin/uv pip install --quiet --python /opt/venv/bin/python --require-hashes --only-binary :all: \
        -c requirements.lock --excludes ours.txt \
        -r services/chassis/pyproject.toml -r "services/${SERVICE}/pyproject.toml"
# One process, in one order, with fixed hash seeds: bytecode comes out the same each time.
COPY scripts/slim.py ./
RUN python slim.py /opt/venv \
    && echo /app > "$(echo /opt/venv/lib/python3.*/site-packages)/slipway.pth" \
    && PYTHONHASHSEED=0 python -m compileall -q -j 1 --invalidation-mode unchecked-hash /opt/venv/lib

FROM tools AS application
ARG SERVICE
COPY services/chassis services/chassis
COPY services/${SERVICE} services/${SERVICE}
# Wheels hold what the projects declare (the migrations too), and are no more than archives.
# /app/__main__.py lets the entry point name the service in exec form.
RUN package="$(echo "${SERVICE}" | tr - _)" \
    && for project in chassis "${SERVICE}"; do \
        /tools/bin/uv build --quiet --offline --no-build-isolation --python /tools/bin/python \
            --wheel --out-dir wheels "services/${project}" || exit 1; \
    done \
    && mkdir /app \
    && for wheel in wheels/*.whl; do python -m zipfile -e "${wheel}" /app || exit 1; done \
    && printf 'import sys\n\nfrom chassis.__main__ import main\n\nsys.exit(main([*sys.argv[1:2], "%s", *sys.argv[2:]]))\n' "${package}" > /app/__main__.py \
    && PYTHONHASHSEED=0 python -m compileall -q -j 1 --invalidation-mode unchecked-hash /app

# A service that cannot be imported is no image.
FROM ${BASE} AS checked
ARG SERVICE
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=application /app /app
RUN cd / && /opt/venv/bin/python -c "import importlib, sys; importlib.import_module(sys.argv[1])" \
        "$(echo "${SERVICE}" | tr - _).main"

FROM ${BASE} AS common
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=checked /app /app
ENV PATH=/opt/venv/bin:${PATH} \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
ARG SERVICE
ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE=
ARG CREATED=
LABEL org.opencontainers.image.title="slipway/${SERVICE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.created="${CREATED}"

# Serves from a copy of /app in /tmp, which pods may write, and restarts when a file there changes
# (scripts/reload.py). Hook Jobs run the files of the image.
FROM common AS dev
COPY scripts/reload.py /opt/reload/reload.py
ENTRYPOINT ["python", "/opt/reload/reload.py"]
CMD ["serve"]

# An order through the gateway, for `skaffold verify`: SLIPWAY_URL says where.
FROM common AS smoke
COPY scripts /opt/smoke/scripts
WORKDIR /opt/smoke
ENTRYPOINT ["python", "-m", "scripts.demo"]

# `python /app serve` is `python -m chassis serve <package>`; migrate and the others work alike.
FROM common AS runtime
ENTRYPOINT ["python", "/app"]
CMD ["serve"]
