# syntax=docker/dockerfile:1
# The image of a node: the binary, the C library, and trusted certificates.
#
#     docker build --build-arg VERSION=0.1.0 --build-arg GIT_COMMIT="$(git rev-parse HEAD)" -t switchboard .
#
# For linux/amd64 and linux/arm64.

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
# Build the dependencies first, with an empty program: this layer is rebuilt only when they change.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir -p src benches/load \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs benches/load/main.rs \
    && cargo build --release --locked
COPY migrations migrations
COPY src src
COPY console console
COPY docs/operations/failure-modes.md docs/operations/failure-modes.md
ARG GIT_COMMIT=unknown
# The sources' times may be older than those of the empty program.
RUN touch src/lib.rs src/main.rs \
    && GIT_COMMIT="$GIT_COMMIT" cargo build --release --locked

FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=unknown
ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="Switchboard" \
      org.opencontainers.image.description="A connection broker for real-time chat" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$GIT_COMMIT"
COPY --from=build /src/target/release/switchboard /usr/local/bin/switchboard
# Probes and Prometheus connect from outside the container.
ENV ADMIN_LISTEN=0.0.0.0:8001
EXPOSE 8000 8001
# A numeric user: only then can Kubernetes verify that it isn't root.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s --retries=3 CMD ["switchboard", "healthcheck"]
ENTRYPOINT ["switchboard"]
CMD ["serve"]
