//! Keys and certificates of one cluster.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::error::{Error, OnFile};

/// An authority and what it signs with.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(crate) certificate: String,
}

/// A certificate with its key, both PEM, and the files that hold them.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// Everything that the processes of a cluster read.
pub(crate) struct Pki {
    folder: PathBuf,
    /// Signs servers, clients and whatever the controllers sign.
    pub(crate) cluster: Authority,
    /// Signs the API server's calls to extension servers.
    front: Authority,
}

// === impl Pki ===

impl Pki {
    /// Makes the two authorities and the key pair of service account tokens.
    pub(crate) fn create(folder: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&folder).on("create", &folder)?;
        let pki = Self {
            cluster: Authority::create(&folder, "ca")?,
            front: Authority::create(&folder, "front-proxy-ca")?,
            folder,
        };
        let tokens = KeyPair::generate()?;
        write(&pki.path("tokens.key"), &tokens.serialize_pem())?;
        write(&pki.path("tokens.pub"), &tokens.public_key_pem())?;
        Ok(pki)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A server, reachable by these names and addresses.
    pub(crate) fn server(
        &self,
        file: &str,
        subject: &Subject<'_>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Identity, Error> {
        let mut params = subject.params(&[
            ExtendedKeyUsagePurpose::ServerAuth,
            // The kubelet's certificate is both: it serves, and it is the node's client.
            ExtendedKeyUsagePurpose::ClientAuth,
        ]);
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        self.cluster.sign(&self.folder, file, &params)
    }

    /// A client of the API server or of a kubelet.
    pub(crate) fn client(&self, file: &str, subject: &Subject<'_>) -> Result<Identity, Error> {
        let params = subject.params(&[ExtendedKeyUsagePurpose::ClientAuth]);
        self.cluster.sign(&self.folder, file, &params)
    }

    /// The API server as a client of extension servers.
    pub(crate) fn front_client(&self, name: &str) -> Result<Identity, Error> {
        let subject = Subject { name, group: None };
        let params = subject.params(&[ExtendedKeyUsagePurpose::ClientAuth]);
        self.front.sign(&self.folder, name, &params)
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys stay out of logs even here.
        out.debug_struct("Pki").field("folder", &self.folder).finish_non_exhaustive()
    }
}

// === impl Authority ===

impl Authority {
    fn create(folder: &Path, name: &str) -> Result<Self, Error> {
        let mut params = Subject { name, group: None }.params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        write(&folder.join(format!("{name}.crt")), &certificate)?;
        write(&folder.join(format!("{name}.key")), &key.serialize_pem())?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    fn sign(
        &self,
        folder: &Path,
        file: &str,
        params: &CertificateParams,
    ) -> Result<Identity, Error> {
        let key = KeyPair::generate()?;
        let identity = Identity {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
            certificate_file: folder.join(format!("{file}.crt")),
            key_file: folder.join(format!("{file}.key")),
        };
        write(&identity.certificate_file, &identity.certificate)?;
        write(&identity.key_file, &identity.key)?;
        Ok(identity)
    }
}

/// Who a certificate speaks for, in Kubernetes' reading: user and group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) group: Option<&'a str>,
}

impl Subject<'_> {
    fn params(&self, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.name);
        if let Some(group) = self.group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        // A cluster lives for minutes, a person's for days. The margin before now is for clocks.
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2045, 1, 1);
        params
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).on("write", path)
}
