# docker build -t coverslip . && docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" coverslip convert slide.svs -o out

# Every file is checked against the lock's hashes here; the final stage installs from what passed, without a network.
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN pip wheel --no-cache-dir --no-deps --require-hashes --only-binary=:all: --wheel-dir /wheels -r requirements.lock \
    && pip install --no-cache-dir --no-index --find-links /wheels hatchling
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.12-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels 'coverslip[all]' \
    && useradd --create-home coverslip
USER coverslip
WORKDIR /data
# For `coverslip serve --host 0.0.0.0`; Cloud Run says otherwise by PORT.
EXPOSE 8080
ENTRYPOINT ["coverslip"]
CMD ["--help"]
