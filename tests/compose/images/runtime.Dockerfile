# A stand-in for `gcr.io/distroless/cc-debian13:nonroot`: the C library, the roots of trust, a user, and nothing to run.
ARG BASE
FROM ${BASE} AS files
WORKDIR /packages
RUN apt-get update -qq && apt-get download -qq base-files libc6 libgcc-s1 netbase tzdata
RUN mkdir /root-of-image \
 && for package in *.deb; do dpkg-deb --extract "$package" /root-of-image || exit 1; done \
 && rm -rf /root-of-image/usr/share/doc /root-of-image/usr/share/man \
 && mkdir -p /root-of-image/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /root-of-image/etc/ssl/certs/ \
 && echo 'root:x:0:0:root:/root:/sbin/nologin' >/root-of-image/etc/passwd \
 && echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >>/root-of-image/etc/passwd \
 && echo 'nonroot:x:65532:' >/root-of-image/etc/group

FROM scratch
COPY --from=files /root-of-image/ /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
