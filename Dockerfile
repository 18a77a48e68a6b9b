# muster's images, one target each: operator, extender, agent, and runtime for training programs.
#   docker build --target operator --tag muster-operator .
# Nothing of the development bed (dev/) is in them. Without a registry for the base image `make images` assembles the same
# images: dev/src/muster_dev/kind/assembled.py.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.8
ENV UV_PROJECT_ENVIRONMENT=/opt/muster UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /project
COPY pyproject.toml uv.lock ./
# The packages that all parts import.
RUN uv sync --frozen --no-dev --no-install-project --extra kube

FROM build AS build-operator
RUN uv sync --frozen --no-dev --no-install-project --extra operator
COPY . .
RUN uv sync --frozen --no-dev --no-editable --extra operator

FROM build AS build-extender
RUN uv sync --frozen --no-dev --no-install-project --extra extender
COPY . .
RUN uv sync --frozen --no-dev --no-editable --extra extender

FROM build AS build-agent
RUN uv sync --frozen --no-dev --no-install-project --extra fake-gpus
COPY . .
RUN uv sync --frozen --no-dev --no-editable --extra fake-gpus

FROM build AS build-runtime
RUN rm -rf /opt/muster
COPY . .
RUN uv sync --frozen --no-dev --no-editable

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/muster/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /

FROM base AS operator
COPY --from=build-operator /opt/muster /opt/muster
ENTRYPOINT ["muster-operator"]

FROM base AS extender
COPY --from=build-extender /opt/muster /opt/muster
ENTRYPOINT ["muster-extender"]

FROM base AS agent
COPY --from=build-agent /opt/muster /opt/muster
ENTRYPOINT ["muster-agent"]

FROM base AS runtime
COPY --from=build-runtime /opt/muster /opt/muster
COPY examples/allreduce.py /examples/
ENTRYPOINT ["python3"]
