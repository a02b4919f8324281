//! Certificates between agents and gateways: a CA for each pipeline and two leaves, renewed long before
//! they end.
//!
//! Pods learn of a new Secret a minute or two late, each in its own time, so that nothing may be used before
//! everybody trusts it. A CA is therefore made long before it signs, and trusted until it ends by itself.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ringtail_crds::TracePipeline;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, pem::Pem, prelude::FromDer,
};

use crate::{
    build::{self, Child},
    failure::Failure,
    kind::Kind,
    labels::Component,
};

/// How long a leaf lives. Renewed at two thirds, it survives a month without an operator.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);
/// A CA lives as long as ten leaves: two and a half years.
const CA_LIFETIMES: u32 = 10;
/// Nodes whose clocks are slow must not find a new certificate to be of the future.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The certificate and the private key of a leaf, and whom it trusts.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const TRUSTED: &str = "ca.crt";
/// The CA that will sign next.
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of a leaf.
    pub leaf: Duration,
}

/// The Secrets of a pipeline that hold certificates, as they are in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// `<name>-peer-ca`.
    pub ca: Option<Secret>,
    /// `<name>-gateway-peer-tls`.
    pub gateway: Option<Secret>,
    /// `<name>-agent-peer-tls`.
    pub agent: Option<Secret>,
}

/// The Secrets as they should be.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// To be applied.
    pub secrets: Vec<Child>,
    /// When the next renewal is due.
    pub due_in: Duration,
    /// What was made anew, for people.
    pub made: Vec<&'static str>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    certificate: String,
    key: String,
    ends: SystemTime,
}

// === impl Lifetimes ===

impl Lifetimes {
    fn ca(self) -> Duration {
        self.leaf * CA_LIFETIMES
    }

    // At two thirds of its life.
    fn renewal(self, leaf: &Pair) -> SystemTime {
        leaf.ends - self.leaf / 3
    }

    // At half of its life the next one is made, so that it is trusted everywhere before it signs.
    fn succession(self, ca: &Pair) -> SystemTime {
        ca.ends - self.ca() / 2
    }

    // At two thirds of its life the next one takes over; a third is left for the leaves that it signed.
    fn promotion(self, ca: &Pair) -> SystemTime {
        ca.ends - self.ca() / 3
    }
}

/// The names of the three Secrets: CA, gateway, agent.
pub fn secret_names(pipeline: &TracePipeline) -> [String; 3] {
    let name = pipeline.name_any();
    [
        format!("{name}-peer-ca"),
        format!("{name}-gateway-peer-tls"),
        format!("{name}-agent-peer-tls"),
    ]
}

/// The certificates that a pipeline should have now. What is good is kept byte for byte.
pub fn renew(
    pipeline: &TracePipeline,
    present: &Present,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Renewed, Failure> {
    let mut made = Vec::new();
    let ca = Authority::renew(pipeline, present.ca.as_ref(), lifetimes, now, &mut made)?;
    let leaves = [(Component::Gateway, &present.gateway), (Component::Agent, &present.agent)];
    let [ca_name, ..] = secret_names(pipeline);
    let mut secrets = vec![secret(pipeline, Component::Pipeline, ca_name, ca.data())];
    let mut due = lifetimes.succession(&ca.current);
    if let Some(next) = &ca.next {
        due = lifetimes.promotion(&ca.current).min(lifetimes.succession(next));
    }
    for (component, present) in leaves {
        let good = present.as_ref().and_then(|secret| read_pair(secret, CERTIFICATE, KEY));
        let name = tier_name(pipeline, component);
        let good = good.filter(|leaf| {
            lifetimes.renewal(leaf) > now && ca.signed(leaf) && is_named(leaf, &name)
        });
        let leaf = match good {
            Some(leaf) => leaf,
            None => {
                made.push(component.name());
                ca.sign(pipeline, component, lifetimes.leaf, now)?
            }
        };
        due = due.min(lifetimes.renewal(&leaf));
        let name = format!("{}-{}-peer-tls", pipeline.name_any(), component.name());
        let data =
            [(CERTIFICATE, leaf.certificate), (KEY, leaf.key), (TRUSTED, ca.trusted.clone())];
        secrets.push(secret(pipeline, component, name, data.into()));
    }
    Ok(Renewed { secrets, due_in: due.duration_since(now).unwrap_or_default(), made })
}

fn secret(
    pipeline: &TracePipeline,
    component: Component,
    name: String,
    data: BTreeMap<&'static str, String>,
) -> Child {
    let data =
        data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    let secret = Secret {
        metadata: build::meta(pipeline, component, name),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    };
    Child::new(Kind::Secret, &secret)
}

/// The CA of a pipeline, with its successor once there is one.
struct Authority {
    current: Pair,
    next: Option<Pair>,
    // In PEM, oldest first: every CA that has signed, or will sign, a leaf that is still good.
    trusted: String,
}

// === impl Authority ===

impl Authority {
    fn renew(
        pipeline: &TracePipeline,
        present: Option<&Secret>,
        lifetimes: Lifetimes,
        now: SystemTime,
        made: &mut Vec<&'static str>,
    ) -> Result<Self, Failure> {
        let read =
            |certificate, key| present.and_then(|secret| read_pair(secret, certificate, key));
        let mut current = read(CERTIFICATE, KEY).filter(|ca| ca.ends > now);
        let mut next = read(NEXT_CERTIFICATE, NEXT_KEY).filter(|ca| ca.ends > now);
        if next.is_some() && current.as_ref().is_none_or(|ca| lifetimes.promotion(ca) <= now) {
            current = next.take();
        }
        let current = match current {
            Some(current) => current,
            None => {
                made.push("CA");
                authority(pipeline, lifetimes.ca(), now)?
            }
        };
        if next.is_none() && lifetimes.succession(&current) <= now {
            made.push("next CA");
            next = Some(authority(pipeline, lifetimes.ca(), now)?);
        }
        let before = present.and_then(|secret| text(secret, TRUSTED)).unwrap_or_default();
        let trusted = trusted(&before, &current, next.as_ref(), now);
        Ok(Self { current, next, trusted })
    }

    fn data(&self) -> BTreeMap<&'static str, String> {
        let mut data = BTreeMap::from([
            (CERTIFICATE, self.current.certificate.clone()),
            (KEY, self.current.key.clone()),
            (TRUSTED, self.trusted.clone()),
        ]);
        if let Some(next) = &self.next {
            data.insert(NEXT_CERTIFICATE, next.certificate.clone());
            data.insert(NEXT_KEY, next.key.clone());
        }
        data
    }

    // Every CA has a name of its own.
    fn signed(&self, leaf: &Pair) -> bool {
        let issuer = with_certificate(&leaf.certificate, |leaf| leaf.issuer().as_raw().to_vec());
        let subject =
            with_certificate(&self.current.certificate, |ca| ca.subject().as_raw().to_vec());
        issuer.is_some() && issuer == subject
    }

    fn sign(
        &self,
        pipeline: &TracePipeline,
        component: Component,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Pair, Failure> {
        let minted = || {
            let key = KeyPair::from_pem(&self.current.key)?;
            let issuer = Issuer::from_ca_cert_pem(&self.current.certificate, key)?;
            let mut params = CertificateParams::new(vec![tier_name(pipeline, component)])?;
            named(&mut params, &format!("{} {}", pipeline.name_any(), component.name()));
            let ends = dated(&mut params, lifetime, now);
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = match component {
                Component::Gateway => {
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
                }
                _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
            };
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?.pem();
            Ok(Pair { certificate, key: key.serialize_pem(), ends })
        };
        minted().map_err(failure("a peer certificate"))
    }
}

/// The DNS name by which agents and gateways know a tier. It resolves to nothing: whom a connection leads
/// to is a matter of the ring, and only which tier answers there is one of trust.
fn tier_name(pipeline: &TracePipeline, component: Component) -> String {
    format!("{}.{}.ringtail", component.name(), pipeline.name_any())
}

fn is_named(leaf: &Pair, name: &str) -> bool {
    let named = |leaf: &X509Certificate<'_>| {
        let names = leaf.subject_alternative_name().ok().flatten()?;
        Some(names.value.general_names.contains(&GeneralName::DNSName(name)))
    };
    with_certificate(&leaf.certificate, named).flatten() == Some(true)
}

fn authority(
    pipeline: &TracePipeline,
    lifetime: Duration,
    now: SystemTime,
) -> Result<Pair, Failure> {
    let minted = || {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        let born = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let namespace = pipeline.namespace().unwrap_or_default();
        named(&mut params, &format!("{namespace} {} peer CA {born}", pipeline.name_any()));
        let ends = dated(&mut params, lifetime, now);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem(), ends })
    };
    minted().map_err(failure("a peer CA"))
}

fn named(params: &mut CertificateParams, name: &str) {
    params.distinguished_name.remove(DnType::CommonName);
    // 64 characters are the most that X.520 allows.
    let name: String = name.chars().rev().take(64).collect::<Vec<_>>().into_iter().rev().collect();
    params.distinguished_name.push(DnType::CommonName, name);
}

fn dated(params: &mut CertificateParams, lifetime: Duration, now: SystemTime) -> SystemTime {
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
    now + lifetime
}

fn failure(what: &'static str) -> impl FnOnce(rcgen::Error) -> Failure {
    move |error| Failure::Mint { what, reason: error.to_string() }
}

// Those of before that have not ended, then ours, each once.
fn trusted(before: &str, current: &Pair, next: Option<&Pair>, now: SystemTime) -> String {
    let mut trusted: Vec<String> = Vec::new();
    let known = blocks(before).filter(|pem| ends(pem).is_some_and(|ends| ends > now));
    let ours = [Some(current), next].into_iter().flatten().map(|pair| pair.certificate.clone());
    for pem in known.chain(ours) {
        if !trusted.contains(&pem) {
            trusted.push(pem);
        }
    }
    trusted.concat()
}

fn blocks(text: &str) -> impl Iterator<Item = String> + '_ {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END).filter(|block| block.ends_with(END)).map(|block| {
        let begin = block.find("-----BEGIN").unwrap_or_default();
        format!("{}\n", &block[begin..])
    })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.clone()).ok()
}

// A pair that can be used; none if anything about it is wrong, so that it is made anew.
fn read_pair(secret: &Secret, certificate: &str, key: &str) -> Option<Pair> {
    let (certificate, key) = (text(secret, certificate)?, text(secret, key)?);
    let pair = KeyPair::from_pem(&key).ok()?;
    let public = with_certificate(&certificate, |parsed| {
        parsed.public_key().subject_public_key.data.to_vec()
    })?;
    let ends = ends(&certificate)?;
    (pair.public_key_raw() == public).then_some(Pair { certificate, key, ends })
}

fn ends(certificate: &str) -> Option<SystemTime> {
    let seconds = with_certificate(certificate, |parsed| parsed.validity().not_after.timestamp())?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn with_certificate<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let block = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    let (_, parsed) = X509Certificate::from_der(&block.contents).ok()?;
    Some(read(&parsed))
}

#[cfg(test)]
mod tests;
