# The image: one binary on Debian's C library and certificates. No shell, no root, nothing written.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg GIT_COMMIT="$(git rev-parse --short HEAD)" -t switchboard .

FROM docker.io/library/rust:1-bookworm AS build
WORKDIR /src

# What it depends on is built by itself, and kept until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/load \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs benches/load/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin switchboard

COPY migrations migrations
COPY src src
ARG GIT_COMMIT=unknown
# Newer than what was built in their place.
RUN touch src/main.rs src/lib.rs && GIT_COMMIT="$GIT_COMMIT" cargo build --release --locked --bin switchboard

FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="switchboard" \
      org.opencontainers.image.description="A connection broker for real-time chat" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$GIT_COMMIT"
COPY --from=build /src/target/release/switchboard /usr/local/bin/switchboard
# As numbers, so that Kubernetes can tell that it is not root.
USER 65532:65532
# Metrics and probes come from outside the container.
ENV ADMIN_LISTEN=0.0.0.0:8001
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s CMD ["/usr/local/bin/switchboard", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/switchboard"]
CMD ["serve"]
