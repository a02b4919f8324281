//! The patterns that strings of a manifest follow, each with the words for what it wants.
//!
//! A schema can only say that a string does not match a regular expression. The offline check looks the
//! expression up here and says in a user's words what is wanted, so every pattern of the schema has a row
//! (a test proves it).

use std::sync::LazyLock;

use regex::Regex;

/// A regular expression of the schema, and what a person should have written.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// As the API server reads it; it is anchored by itself.
    pub(crate) regex: &'static str,
    /// Completes the sentence "must be …".
    pub(crate) wants: &'static str,
}

// 65535 is the largest port; spelt out, so that the API server refuses 70000 as well.
macro_rules! port {
    () => {
        "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}

// An IPv6 address in brackets, or a host name or IPv4 address. The underscore is no letter of DNS, but
// Compose files name services with it.
macro_rules! host {
    () => {
        r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)"
    };
}

/// At most four units: enough for `1h2m3s4ms`. Five digits a unit keep the sum far from overflow
/// (4 x 99,999 h is 1.4e12 ms).
pub(crate) const DURATION: Pattern = Pattern {
    regex: "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
    wants: "a duration such as 30s, 500ms or 1m30s",
};

/// Whole numbers only: `1536Mi` says what `1.5Gi` would, without rounding.
pub(crate) const SIZE: Pattern = Pattern {
    regex: "^[1-9][0-9]{0,11}(k|M|G|T|Ki|Mi|Gi|Ti)?$",
    wants: "a size in bytes such as 512Ki, 64Mi or 1Gi, without a fraction",
};

/// Ten digits after the point resolve one trace in 10^12.
pub(crate) const PERCENTAGE: Pattern = Pattern {
    regex: r"^(100(\.0{1,10})?|[0-9]{1,2}(\.[0-9]{1,10})?)$",
    wants: "a percentage from 0 to 100 such as 25 or \"0.1\", without a % sign",
};

/// Names of policies: what people write in Collector configurations, without blanks, because they become
/// metric labels.
pub(crate) const POLICY_NAME: Pattern = Pattern {
    regex: "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
    wants: "a name of letters, digits, '-', '_' and '.', with a letter or digit at both ends",
};

/// Names of exporters: DNS labels, because they become names of volumes and files later.
pub(crate) const EXPORTER_NAME: Pattern = Pattern {
    regex: "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    wants: "a name of lower-case letters, digits and '-', with a letter or digit at both ends",
};

/// Names of pipelines: names of Services are made from it, so it starts with a letter and leaves room for
/// `-gateway-headless` (17 characters of 63).
pub(crate) const PIPELINE_NAME: Pattern = Pattern {
    regex: "^[a-z]([a-z0-9-]{0,44}[a-z0-9])?$",
    wants: "a name of at most 46 lower-case letters, digits and '-', \
            starting with a letter and ending with a letter or digit",
};

/// Where an exporter sends to. The port of https is known, that of http is not: 4317, 4318 and others are
/// all in use.
pub(crate) const HTTP_ENDPOINT: Pattern = Pattern {
    regex: concat!(
        "^(http://",
        host!(),
        ":",
        port!(),
        "|https://",
        host!(),
        "(:",
        port!(),
        ")?)",
        r"(/[A-Za-z0-9._~%!$&'()*+,;=:@/?-]*)?$"
    ),
    wants: "http://host:port or https://host, such as http://tempo:4317 or \
            https://otlp.example.com/v1/traces",
};

/// A name in a certificate.
pub(crate) const SERVER_NAME: Pattern = Pattern {
    regex: concat!("^", host!(), "$"),
    wants: "a host name or an address, such as tempo.example.com",
};

/// A file that an exporter writes.
pub(crate) const FILE_PATH: Pattern = Pattern {
    regex: r"^([A-Za-z0-9._/-]*\{identity\})?[A-Za-z0-9._/-]*[A-Za-z0-9_-]$",
    wants: "a path such as /var/spans/{identity}.jsonl: letters, digits, '.', '_', '-' and '/', with \
            {identity} at most once",
};

/// Where a gateway listens.
pub(crate) const HOST_PORT: Pattern = Pattern {
    regex: concat!("^", host!(), ":", port!(), "$"),
    wants: "host:port, such as gateway-0.example.com:4317 or [::1]:4317",
};

/// gRPC metadata names are lower case on the wire; asking for them so keeps `X-Org` and `x-org` from being
/// two.
pub(crate) const DNS_NAME: Pattern = Pattern {
    regex: r"^[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?$",
    wants: "a DNS name such as gateways.example.com or _otlp-grpc._tcp.gateways.example.com",
};

pub(crate) const HEADER_NAME: Pattern = Pattern {
    regex: "^[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?$",
    wants: "a header name in lower case, such as x-scope-orgid",
};

/// Visible ASCII with blanks inside: what a gRPC metadata value may hold.
pub(crate) const HEADER_VALUE: Pattern =
    Pattern { regex: "^[!-~]([ -~]*[!-~])?$", wants: "printable ASCII without blanks at its ends" };

/// Names of Secrets, ServiceAccounts and PriorityClasses.
pub(crate) const OBJECT_NAME: Pattern = Pattern {
    regex: "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
    wants: "a name of lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
};

/// Keys of Secrets. They become names of files, so `..` is none.
pub(crate) const SECRET_KEY: Pattern = Pattern {
    regex: "^[.]?[A-Za-z0-9_-][A-Za-z0-9._-]{0,251}$",
    wants: "a key of a Secret: letters, digits, '-', '_' and '.'",
};

/// References to images; the container runtime knows their finer rules.
pub(crate) const IMAGE: Pattern = Pattern {
    regex: "^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
    wants: "an image such as registry.example.com/ringtail:0.1.0, without blanks or https://",
};

/// Quantities of Kubernetes that are not negative.
pub(crate) const QUANTITY: Pattern = Pattern {
    regex: r"^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
    wants: "a quantity such as 500m, 2, 64Mi or 1Gi",
};

/// A percentage of pods; without zero, with which no node could be drained.
pub(crate) const SHARE: Pattern = Pattern {
    regex: "^(100|[1-9][0-9]?)%$",
    wants: "a whole number or a percentage from 1% to 100%",
};

/// Names of attributes that become labels: a letter first, so that no label is one of Prometheus's own.
pub(crate) const ATTRIBUTE_NAME: Pattern = Pattern {
    regex: "^[A-Za-z][A-Za-z0-9._/:-]{0,127}$",
    wants: "a name of letters, digits, '.', '_', '-', '/' and ':', starting with a letter",
};

const ALL: [&Pattern; 19] = [
    &DURATION,
    &SIZE,
    &PERCENTAGE,
    &POLICY_NAME,
    &EXPORTER_NAME,
    &PIPELINE_NAME,
    &HTTP_ENDPOINT,
    &SERVER_NAME,
    &FILE_PATH,
    &HOST_PORT,
    &DNS_NAME,
    &HEADER_NAME,
    &HEADER_VALUE,
    &OBJECT_NAME,
    &SECRET_KEY,
    &IMAGE,
    &QUANTITY,
    &SHARE,
    &ATTRIBUTE_NAME,
];

static COMPILED: LazyLock<Vec<(&Pattern, Regex)>> = LazyLock::new(|| {
    ALL.iter().filter_map(|pattern| Some((*pattern, Regex::new(pattern.regex).ok()?))).collect()
});

/// What `text` should have been, when it does not match `regex`.
pub(crate) fn mismatch(regex: &str, text: &str) -> Option<&'static str> {
    let (pattern, compiled) = COMPILED.iter().find(|(pattern, _)| pattern.regex == regex)?;
    (!compiled.is_match(text)).then_some(pattern.wants)
}

/// What a string that follows `regex` is.
pub(crate) fn wants(regex: &str) -> &'static str {
    ALL.iter().find(|pattern| pattern.regex == regex).map_or("text", |pattern| pattern.wants)
}

/// Whether `regex` has a row here and compiles.
#[cfg(test)]
pub(crate) fn is_known(regex: &str) -> bool {
    COMPILED.iter().any(|(pattern, _)| pattern.regex == regex)
}
