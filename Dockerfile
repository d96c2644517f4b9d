# A page and a service. For CPUs, NVIDIA GPUs and TPUs:
#
#   docker build -t omgsr .
#   docker build -t omgsr:cuda --build-arg EXTRAS=serve,cuda .
#   docker build -t omgsr:tpu --build-arg EXTRAS=serve,tpu .
#
# The model is mounted (-v /path/to/model:/models/model:ro), or baked in: --build-arg MODEL=folder, a
# converted model inside the build's context. Without either it is nano.
FROM python:3.12-slim

ARG EXTRAS=serve
ARG MODEL=omgsr_jax/assets/nano

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

RUN useradd --uid 10001 --no-create-home omgsr \
    && install --directory --owner=omgsr /cache /models

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY omgsr_jax omgsr_jax
COPY conversion conversion
RUN pip install ".[${EXTRAS}]"

COPY ${MODEL} /models/model

USER 10001
WORKDIR /tmp
# Compiled programs: mount a volume, and the next container is ready sooner.
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["omgsr", "serve", "--model", "/models/model", "--host", "0.0.0.0", "--port", "8000"]
