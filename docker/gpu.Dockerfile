# Search, train and export on a workstation with an NVIDIA card, and build engines of TensorRT for RTX:
#   docker build -f docker/gpu.Dockerfile -t ttl-deploy:gpu .
#
# torch brings CUDA's libraries in its own packages, so the base is as slim as the CPU's; the driver comes from the
# host through NVIDIA's container toolkit. The base image is pinned by tag: its digest could not be looked up where this
# was written. Full TensorRT is not here, because its libraries are not in the package registry: docs/docker.md.

FROM python:3.11.15-slim-trixie AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ttl_deploy ttl_deploy
COPY cli cli
# The environment holds no pip of its own. NVML's bindings read the card's energy.
RUN python -m venv --without-pip /opt/ttl-deploy \
    && python -m pip --python /opt/ttl-deploy/bin/python install --no-cache-dir \
        --constraint constraints.txt '.[train,timm,openvino,rtx]' nvidia-ml-py

FROM python:3.11.15-slim-trixie
LABEL org.opencontainers.image.title="ttl-deploy (GPU)" \
      org.opencontainers.image.description="Search, train and export on a workstation with an NVIDIA card" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN useradd --create-home --uid 10001 --shell /usr/sbin/nologin ttl \
    && install --directory --owner=ttl --group=ttl /cache /runs /out
COPY --from=build /opt/ttl-deploy /opt/ttl-deploy
ENV PATH=/opt/ttl-deploy/bin:$PATH \
    TTL_DEPLOY_CACHE=/cache \
    TORCH_HOME=/cache/torch \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /out
VOLUME ["/cache", "/runs"]
HEALTHCHECK --interval=10m --timeout=2m --start-period=1m CMD ["ttl-deploy", "doctor"]
ENTRYPOINT ["ttl-deploy"]
CMD ["doctor"]
