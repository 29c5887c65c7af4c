# One small image for every role: the tool, Python for qa, bubblewrap for its sandbox.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# The C library of the TLS crate is built with cmake and a C compiler.
RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ make && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY benches benches
COPY bin bin
COPY roles roles
COPY src src
COPY tests tests
RUN cargo build --release --locked --bin oarlock

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap ca-certificates python3 python3-pip \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home oarlock
COPY --from=build /src/target/release/oarlock /usr/local/bin/oarlock
# Puts pytest into the cache, so that qa needs no package index when it runs.
ENV OARLOCK_CACHE=/var/cache/oarlock
RUN mkdir -p "$OARLOCK_CACHE" && { oarlock doctor || true; } && ls -d "$OARLOCK_CACHE"/pytest-* && chmod -R a+rX "$OARLOCK_CACHE"
USER 10001:10001
ENTRYPOINT ["oarlock"]
CMD ["--help"]
