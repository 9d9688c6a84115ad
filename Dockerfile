# Weir in an image without a shell: one static binary, run by a user without rights, on a root that can be read-only.
#
#   docker build -t weir .
#   podman build --build-arg BUILD_IMAGE=registry.example.com/golang:1.26 -t weir .
#   docker run --read-only --cap-drop ALL -p 8080:8080 weir run --backend host.docker.internal:9000 --limit 100/s
#
# Both base images are arguments, so that a builder without the public registries can use what it has. BUILD_IMAGE needs
# Go 1.26 or later on its PATH, and no shell; with git in it, `sidecar version` knows its commit.
ARG BUILD_IMAGE=golang:1.26
ARG RUN_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
ARG GOPROXY
WORKDIR /src
ENV CGO_ENABLED=0
COPY go.mod go.sum ./
RUN ["go", "mod", "download"]
COPY . .
RUN ["go", "build", "-tags", "grpcnotrace", "-trimpath", "-ldflags", "-s -w", "-o", "/out/sidecar", "./cmd/sidecar"]

FROM ${RUN_IMAGE}
ARG VERSION=devel
ARG REVISION=unknown
LABEL org.opencontainers.image.title="weir" \
      org.opencontainers.image.description="A sidecar reverse proxy that holds each tenant of a service to its limits" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/sidecar /sidecar
USER 65532:65532
EXPOSE 8080 9901
ENTRYPOINT ["/sidecar"]
CMD ["run"]
