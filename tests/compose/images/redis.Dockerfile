# A stand-in for `valkey/valkey` or `redis`: the distribution's package, an entry point that takes the server's options
# alone, the same user number and folder.
ARG BASE
FROM ${BASE}
ARG SERVER=valkey
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends "$SERVER-server" >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/* \
 && ln -s "$(command -v "$SERVER-server")" /usr/local/bin/server \
 && mkdir -p /data && chown 999:999 /data
WORKDIR /data
VOLUME /data
EXPOSE 6379
ENTRYPOINT ["/usr/local/bin/server"]
