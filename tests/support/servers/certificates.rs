//! An authority of a test's own, and the certificate that it gives a server.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// PEM files in a folder of their own.
pub struct Certificates {
    folder: tempfile::TempDir,
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
}

impl Certificates {
    /// An authority that nobody else knows, and a server with these names.
    pub fn new(names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        // Another name than that of the servers: who has issued their certificates is known by it.
        params.distinguished_name.push(DnType::CommonName, "An authority for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        Self::signed(Arc::new(issuer), names)
    }

    /// Another server of the same authority.
    pub fn certify(&self, names: &[&str]) -> Self {
        Self::signed(Arc::clone(&self.issuer), names)
    }

    fn signed(issuer: Arc<CertifiedIssuer<'static, KeyPair>>, names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (server, params) = (key(), CertificateParams::new(names).expect("names of a server"));
        let certificate = params.signed_by(&server, &issuer).expect("a certificate");
        let file = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file is written");
        file("ca.pem", issuer.pem());
        file("server.pem", certificate.pem());
        file("server.key", server.serialize_pem());
        Self { folder, issuer }
    }

    /// What `PLANRELAY_CA_FILE` must be.
    pub fn authority(&self) -> String {
        self.path("ca.pem")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> String {
        self.path("server.pem")
    }

    /// The server's key.
    pub fn key(&self) -> String {
        self.path("server.key")
    }

    /// What a Redis or a Sentinel that listens for TLS on `port` must be told.
    pub(super) fn of_redis(&self, port: u16) -> [(&'static str, String); 5] {
        [
            ("tls-port", port.to_string()),
            ("tls-cert-file", self.certificate()),
            ("tls-key-file", self.key()),
            ("tls-ca-cert-file", self.authority()),
            ("tls-auth-clients", "no".to_owned()),
        ]
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_string_lossy().into_owned()
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
