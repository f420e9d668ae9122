# Build engines, predict, verify and measure on a Jetson with JetPack 7.2 (L4T r39.2), without torch:
#   docker build --platform linux/arm64 -f docker/jetson.Dockerfile -t ttl-deploy:jetson .
#
# JetPack 7.2 has CUDA 13.2, TensorRT 10.16 and Ubuntu 24.04 with Python 3.12; images for ARM servers run on it. JetPack
# 5 and 6 have Python 3.8 and 3.10, for which there is no TensorRT binding that this program could use: docs/docker.md.
# The base image is pinned by tag: its digest could not be looked up where this was written.

FROM nvidia/cuda:13.2.1-base-ubuntu24.04 AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3=3.12.* python3-venv=3.12.* python3-pip=24.0+dfsg-* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ttl_deploy ttl_deploy
COPY cli cli
# Packages are chosen without those of the system; only then is the system's TensorRT let in.
RUN python3 -m venv --without-pip /opt/ttl-deploy \
    && python3 -m pip --python /opt/ttl-deploy/bin/python install --no-cache-dir \
        --constraint constraints.txt '.[trt]' \
    && sed -i 's/^include-system-site-packages = false$/include-system-site-packages = true/' /opt/ttl-deploy/pyvenv.cfg

FROM nvidia/cuda:13.2.1-base-ubuntu24.04
LABEL org.opencontainers.image.title="ttl-deploy (Jetson)" \
      org.opencontainers.image.description="Build engines, predict, verify and measure on a Jetson with JetPack 7.2" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ARG TENSORRT=10.16.1.11-1+cuda13.2
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3=3.12.* \
        libnvinfer10="${TENSORRT}" libnvinfer-plugin10="${TENSORRT}" libnvonnxparsers10="${TENSORRT}" \
        python3-libnvinfer="${TENSORRT}" \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 --groups video --shell /usr/sbin/nologin ttl \
    && install --directory --owner=ttl --group=ttl /cache /out
COPY --from=build /opt/ttl-deploy /opt/ttl-deploy
ENV PATH=/opt/ttl-deploy/bin:$PATH \
    TTL_DEPLOY_CACHE=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /out
VOLUME ["/cache"]
HEALTHCHECK --interval=10m --timeout=2m --start-period=1m CMD ["ttl-deploy", "doctor"]
ENTRYPOINT ["ttl-deploy"]
CMD ["doctor"]
