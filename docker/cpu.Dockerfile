# Predict, verify and measure on any CPU, without torch:  docker build -f docker/cpu.Dockerfile -t ttl-deploy:cpu .
#
# The base image is pinned by tag: its digest could not be looked up where this was written. To pin it harder, put
# "@sha256:…" behind the tag (docker buildx imagetools inspect python:3.11.15-slim-trixie).

FROM python:3.11.15-slim-trixie AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ttl_deploy ttl_deploy
COPY cli cli
# The environment holds no pip of its own; OpenVINO without NNCF, which only quantises while a model is exported.
RUN python -m venv --without-pip /opt/ttl-deploy \
    && python -m pip --python /opt/ttl-deploy/bin/python install --no-cache-dir \
        --constraint constraints.txt . openvino

FROM python:3.11.15-slim-trixie
LABEL org.opencontainers.image.title="ttl-deploy (CPU)" \
      org.opencontainers.image.description="Predict, verify and measure exported models with ONNX Runtime or OpenVINO" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN useradd --create-home --uid 10001 --shell /usr/sbin/nologin ttl \
    && install --directory --owner=ttl --group=ttl /cache /out
COPY --from=build /opt/ttl-deploy /opt/ttl-deploy
ENV PATH=/opt/ttl-deploy/bin:$PATH \
    TTL_DEPLOY_CACHE=/cache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /out
VOLUME ["/cache"]
HEALTHCHECK --interval=10m --timeout=2m --start-period=1m CMD ["ttl-deploy", "doctor"]
ENTRYPOINT ["ttl-deploy"]
CMD ["doctor"]
