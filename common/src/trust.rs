//! Whom TLS connections trust: the certificates of the system, and those of `PLANRELAY_CA_FILE`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::limits::CA_FILE_BYTES_MAX;

/// Certificates that are trusted in addition to the system's. The default: none.
#[derive(Clone, Default)]
pub struct Trust(Arc<[CertificateDer<'static>]>);

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({} certificates)", self.0.len())
    }
}

impl Trust {
    /// Reads a PEM file with one certificate or more. The error is to be read after the file's name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let length = std::fs::metadata(path).map_err(|why| why.to_string())?.len();
        if length > CA_FILE_BYTES_MAX {
            return Err(format!("it has more than {CA_FILE_BYTES_MAX} bytes"));
        }
        Self::parse(&std::fs::read(path).map_err(|why| why.to_string())?)
    }

    fn parse(pem: &[u8]) -> Result<Self, String> {
        let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let certificates = found.map_err(|why| format!("it is not a PEM file: {why}"))?;
        if certificates.is_empty() {
            return Err("it holds no certificate (-----BEGIN CERTIFICATE-----)".to_owned());
        }
        let mut store = RootCertStore::empty();
        for (number, certificate) in (1..).zip(&certificates) {
            store.add(certificate.clone()).map_err(|why| format!("certificate {number} in it cannot be used: {why}"))?;
        }
        Ok(Self(certificates.into()))
    }

    /// What is trusted beyond the system's certificates.
    pub(crate) fn added(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    /// The same for an HTTP client.
    pub(crate) fn http(&self) -> Result<Vec<reqwest::Certificate>, reqwest::Error> {
        self.added().iter().map(|certificate| reqwest::Certificate::from_der(certificate)).collect()
    }

    /// For connections that this crate secures itself.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.all());
        Arc::new(ClientConfig::builder().with_root_certificates(store).with_no_client_auth())
    }

    /// All that is trusted as one PEM text, for a client library that takes nothing else; `None`: the system's alone, which it
    /// trusts anyway.
    pub(crate) fn pem(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut store = RootCertStore::empty();
        let mut pem = String::new();
        // The library refuses all of them for one that it cannot use.
        for certificate in self.all().filter(|certificate| store.add(certificate.clone()).is_ok()) {
            let text = STANDARD.encode(certificate);
            pem.push_str(&format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"));
        }
        Some(pem.into_bytes())
    }

    /// A system without certificates, such as a small container, is no error: the file may hold all that is needed.
    fn all(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        rustls_native_certs::load_native_certs().certs.into_iter().chain(self.0.iter().cloned())
    }
}

/// What helps against an error of a connection, if that is about certificates; to be put behind it.
pub(crate) fn advice(why: &str) -> &'static str {
    if why.contains("certificate") {
        "; certificates of an authority of your own are trusted when PLANRELAY_CA_FILE names a PEM file with them"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_usable_certificate_is_refused() {
        for (pem, why) in [
            ("", "no certificate"),
            ("hello", "no certificate"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 in it cannot be used"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "not a PEM file"),
        ] {
            let refused = Trust::parse(pem.as_bytes()).unwrap_err();
            assert!(refused.contains(why), "{pem}: {refused}");
        }
    }
}
