# A stand-in for `rust:slim`: Debian with a C compiler, and the toolchain that is the build context (`rustc --print sysroot`).
ARG BASE
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*
COPY bin/ /usr/local/bin/
COPY lib/ /usr/local/lib/
RUN ldconfig && cargo --version && rustc --version
