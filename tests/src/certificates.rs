//! Certificate authorities of a pipeline, and directories with what a process needs of them.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

/// An authority that signs for the two tiers of pipeline `shop`.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a process presents, and whom it trusts.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub key: String,
}

// === impl Authority ===

impl Authority {
    /// A new one.
    pub fn generate() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with this DNS name, for both sides of a connection.
    pub fn sign(&self, name: &str) -> Presented {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a DNS name");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").pem();
        Presented { certificate, key: key.serialize_pem() }
    }

    /// Fills directory `tier` below `parent`, as the kubelet fills a mounted Secret: all at once by a link.
    pub fn issue(&self, parent: &Path, tier: &str, trusted: &[&Self]) -> PathBuf {
        let presented = self.sign(&format!("{tier}.shop.ringtail"));
        let mount = parent.join(tier);
        let fresh = tempfile::Builder::new().prefix(tier).tempdir_in(parent).expect("a directory");
        let fresh = fresh.keep();
        let authorities: String = trusted.iter().map(|authority| authority.pem()).collect();
        for (name, text) in [
            ("tls.crt", presented.certificate),
            ("tls.key", presented.key),
            ("ca.crt", authorities),
        ] {
            std::fs::write(fresh.join(name), text).expect("it is written");
        }
        let link = parent.join(format!("{tier}.new"));
        std::os::unix::fs::symlink(&fresh, &link).expect("a link");
        std::fs::rename(&link, &mount).expect("the link is swapped");
        mount
    }
}
