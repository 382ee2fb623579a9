# docker build -t coverslip . && docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" coverslip convert slide.svs -o out
#
# A release is built from a base by digest: --build-arg BASE=python@sha256:...
# `make image` runs these steps without Docker, as another user than root.
ARG BASE=python:3.12-slim-bookworm

# Every file is checked against the lock's hashes here; what is installed comes from what passed, without a network.
FROM ${BASE} AS build
WORKDIR /src
COPY requirements.lock ./
RUN pip wheel --no-cache-dir --no-deps --require-hashes --only-binary=:all: --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /build \
    && /build/bin/pip install --no-cache-dir --no-index --find-links /wheels hatchling \
    && /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .
# What converts, delivers, indexes and serves; not what clusters, notebooks and other libraries' users want.
ARG EXTRAS=catalog,cloud,czi,isyntax,s3,serve,tables,telemetry,validate
# pip compiles what it installs, and is of no use after that; nor is cmake, with which one of the libraries is built.
RUN python -m venv /opt/coverslip \
    && /opt/coverslip/bin/pip install --no-cache-dir --no-index --find-links /wheels "coverslip[$EXTRAS]" \
    && /opt/coverslip/bin/pip uninstall --yes --quiet cmake pip

FROM ${BASE}
COPY --from=build /opt/coverslip /opt/coverslip
RUN useradd --uid 10001 --create-home coverslip
ENV PATH=/opt/coverslip/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# By number, so that Kubernetes can see that it is not root.
USER 10001
WORKDIR /data
# For `coverslip serve --host 0.0.0.0` and `coverslip worker`; Cloud Run says otherwise by PORT.
EXPOSE 8080
ENTRYPOINT ["coverslip"]
CMD ["--help"]
