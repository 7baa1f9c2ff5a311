# A stand-in for `rabbitmq:management`: the distribution's package with the plugins of that image. The server itself reads
# RABBITMQ_DEFAULT_USER and RABBITMQ_DEFAULT_PASS.
ARG BASE
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends rabbitmq-server >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/* /var/lib/rabbitmq/* /var/lib/rabbitmq/.erlang.cookie \
 && rabbitmq-plugins enable --offline rabbitmq_management rabbitmq_prometheus \
 && chown -R rabbitmq:rabbitmq /etc/rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
ENV HOME=/var/lib/rabbitmq RABBITMQ_LOGS=- LANG=C.UTF-8
VOLUME /var/lib/rabbitmq
EXPOSE 5672 15672 15692
# Not the wrapper of the package: it does not hand SIGTERM on.
CMD ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
